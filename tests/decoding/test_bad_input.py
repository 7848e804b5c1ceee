"""What cannot work is refused with a message that says what was found and the way out, and the model is as it was
before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import StoppingCriteria, T5Config, T5ForConditionalGeneration

import truthkit as tk
from tests.decoding.cases import CASES, KINDS, Bench, tiny_bench
from tests.decoding.oracle import with_adapter
from tests.tiny import padded_batch, tiny


def snapshot(model: Any) -> dict[str, Any]:
    """Everything that attaching a decoder could leave behind: hooks, shadowed methods, PEFT's switches, and the
    output."""
    state: dict[str, Any] = {}
    for name, module in model.named_modules():
        hooks = [getattr(module, kind) for kind in vars(module) if kind.endswith("_hooks")]
        mine = set(vars(module)) - {"_previous_max_cache_length"}  # generate's own note
        state[name] = (mine, [sorted(kind) for kind in hooks], module._compiled_call_impl)
        state[f"{name} adapters"] = str(getattr(module, "active_adapters", None))
    shadowed = ("forward", "generate", "generate_batch", "prepare_inputs_for_generation", "get_compiled_call")
    state["methods"] = {method: getattr(model, method) for method in shadowed}
    state["tokens"] = model.generate(**padded_batch(9, 5), max_new_tokens=4, do_sample=False).tolist()
    return state


@pytest.fixture
def bench(tmp_path: Any) -> Bench:
    return tiny_bench("llama", tmp_path)


class _Interrupt(StoppingCriteria):
    def __call__(self, input_ids: torch.Tensor, _scores: Any, **_kwargs: Any) -> bool:
        if input_ids.shape[1] > 11:
            raise KeyboardInterrupt
        return False


class TestArguments:
    """Refused when the decoder is made."""

    @pytest.mark.parametrize(
        ("make", "error", "message"),
        [
            (lambda b: tk.DoLa(b.model, layers=[4]), tk.ArgumentError, r"layers contains 4.*4 decoder blocks.*-4 to 3"),
            (lambda b: tk.DoLa(b.model, layers=[-5]), tk.ArgumentError, r"layers contains -5"),
            (lambda b: tk.DoLa(b.model, layers=[True]), tk.ArgumentError, r"layers contains True"),
            (lambda b: tk.DoLa(b.model, layers=[]), tk.ArgumentError, "layers is empty"),
            (lambda b: tk.DoLa(b.model, layers="middle"), tk.ArgumentError, r"'middle'; expected \"low\", \"high\""),
            (lambda b: tk.SLED(b.model, layers=[]), tk.ArgumentError, "layers is empty"),
            (lambda b: tk.SLED(b.model, evolution_scale=0), tk.ArgumentError, "evolution_scale is 0; expected a whole"),
            (lambda b: tk.SLED(b.model, steps=1.5), tk.ArgumentError, r"steps is 1\.5; expected a whole number"),
            (
                lambda b: tk.SLED(b.model, evolution_rate=-1),
                tk.ArgumentError,
                "evolution_rate is -1; expected 0 or more",
            ),
            (lambda b: tk.ActivationDecoding(b.model, alpha="1"), tk.ArgumentError, "alpha is '1'; expected a finite"),
            (lambda b: tk.ActivationDecoding(b.model, beta=2), tk.ArgumentError, "beta is 2; the plausibility"),
            (lambda b: tk.DeCo(b.model, layers=[4]), tk.ArgumentError, "layers contains 4"),
            (
                lambda b: tk.ExitsMean(b.model, share=1.5),
                tk.ArgumentError,
                r"share is 1.5; expected a number in \[0, 1\]",
            ),
            (lambda b: tk.ExitsMean(b.model, layers=[]), tk.ArgumentError, "layers is empty"),
            (lambda b: tk.DeCo(b.model, top_p=0), tk.ArgumentError, r"top_p is 0; expected a share .* in \(0, 1\]"),
            (lambda b: tk.DeCo(b.model, top_k=True), tk.ArgumentError, "top_k is True; expected a whole number"),
            (lambda b: tk.AdaCAD(b.model, b.tokenizer, context=""), tk.ArgumentError, "context is empty"),
            (
                lambda b: tk.AdaCAD(b.model, b.tokenizer, context="x", theta=-0.1),
                tk.ArgumentError,
                r"theta is -0\.1; expected 0 or more",
            ),
            (
                lambda b: tk.COIECD(b.model, b.tokenizer, context="x", form="both"),
                tk.ArgumentError,
                'form is \'both\'; expected "code" or "paper"',
            ),
            (
                lambda b: tk.Agreement(b.model, view="cad"),
                tk.ArgumentError,
                "view is 'cad'; expected a View, or one of",
            ),
            (lambda b: tk.Agreement(b.model, divergence="kl"), tk.ArgumentError, "divergence is 'kl'; expected \"js\""),
            (lambda b: tk.TopNSigma(b.model, n=-1), tk.ArgumentError, "n is -1; expected 0 or more"),
            (lambda b: tk.EntropyGate(b.model, threshold=float("nan")), tk.ArgumentError, "threshold is nan"),
            (lambda b: tk.LOL(b.model, amateur=b.adapter, layers=[9]), tk.ArgumentError, "layers contains 9"),
            (lambda b: tk.DoLa(b.model, beta=1.5), tk.ArgumentError, r"beta is 1\.5.*\(0, 1\], or 0 to turn it off"),
            (lambda b: tk.ICD(b.model, amateur=b.adapter, beta=-0.1), tk.ArgumentError, r"beta is -0\.1"),
            (lambda b: tk.ICD(b.model, amateur=b.adapter, beta=float("nan")), tk.ArgumentError, "beta is nan"),
            (lambda b: tk.ICD(b.model, amateur=b.adapter, lam=float("inf")), tk.ArgumentError, "lam is inf"),
            (lambda b: tk.LOL(b.model, amateur=b.adapter, omega="1"), tk.ArgumentError, "omega is '1'"),
            (lambda b: tk.ICD(b.model), tk.ArgumentError, "processor is None, but an instruction needs the tokenizer"),
            (lambda b: tk.ICD(b.model, amateur=3), tk.ArgumentError, "amateur is a int; expected an adapter's name"),
            (lambda b: tk.ICD(b.model, b.tokenizer, amateur_prompt=" "), tk.ArgumentError, "the instruction is empty"),
            (lambda b: tk.CAD(b.model, b.tokenizer, context=""), tk.ArgumentError, "context is empty"),
            (
                lambda b: tk.ICD(b.model, amateur="./nowhere"),
                tk.NotAvailableError,
                r"'\./nowhere' is neither a folder here nor a hub id.*Pass amateur=.prompt. for the prompt-only",
            ),
            (
                lambda b: tk.ICD(b.model, amateur="no/such"),
                tk.NotAvailableError,
                "'no/such' is neither a folder here nor to be had.*Nor is it an adapter loaded in this model",
            ),
            (lambda b: tk.ICD(b.model, amateur="."), tk.NotAvailableError, "without adapter_config.json"),
            (
                lambda b: tk.ICD(b.model, amateur=tiny("llama", vocab_size=130)),
                tk.ModelError,
                "amateur's vocabulary has 130 tokens and the model's 128",
            ),
            (lambda b: tk.ICD(b.model, typo=1), TypeError, "typo"),
        ],
    )
    def test_message(self, bench: Bench, make: Callable[[Bench], Any], error: type, message: str) -> None:
        before = snapshot(bench.model)
        with pytest.raises(error, match=f"(?s){message}"):
            make(bench)
        assert snapshot(bench.model) == before

    def test_amateur_with_another_tokenizer(self, bench: Bench) -> None:
        class Other(type(bench.tokenizer)):
            def get_vocab(self) -> dict[str, int]:
                return {"other": 1}

        with pytest.raises(tk.ModelError, match=r"tokenizer differs from the model's \(1 and 128 tokens\)"):
            tk.ICD(bench.model, bench.tokenizer, amateur=(bench.other, Other()))

    def test_encoder_decoder(self) -> None:
        config = T5Config(vocab_size=32, d_model=8, d_kv=4, d_ff=8, num_layers=4, num_heads=2)
        with pytest.raises(tk.ModelError, match="T5ForConditionalGeneration is an encoder-decoder"):
            tk.DoLa(T5ForConditionalGeneration(config))

    def test_one_block_has_no_lower_layer(self) -> None:
        with pytest.raises(tk.ArgumentError, match="layers is empty"):
            tk.DoLa(tiny("llama", num_hidden_layers=1))


class TestWhileDecoding:
    """Refused or interrupted in the middle of `generate`."""

    def check(self, bench: Bench, name: str, error: type, message: str, inputs: Any = None, **options: Any) -> None:
        before = snapshot(bench.model)
        with CASES[name].attached(bench, 1), pytest.raises(error, match=message):
            bench.model.generate(**(inputs or bench.rows(1)), **{"max_new_tokens": 6, "do_sample": False, **options})
        assert snapshot(bench.model) == before

    @pytest.mark.parametrize("name", KINDS.values(), ids=KINDS)
    def test_interrupted(self, bench: Bench, name: str) -> None:
        """Ctrl-C, and whatever a callback raises; the same decoder then works again."""
        before = snapshot(bench.model)
        decoder = CASES[name].attached(bench, 1)
        with decoder:
            want = bench.model.generate(**bench.rows(1), max_new_tokens=6, do_sample=False)
            for mode in ({}, {"num_beams": 2}, {"cache_implementation": "static"}):
                with pytest.raises(KeyboardInterrupt):
                    bench.model.generate(**bench.rows(1), max_new_tokens=6, stopping_criteria=[_Interrupt()], **mode)
            assert torch.equal(bench.model.generate(**bench.rows(1), max_new_tokens=6, do_sample=False), want)
        assert snapshot(bench.model) == before

    @pytest.mark.parametrize("name", KINDS.values(), ids=KINDS)
    def test_exception_leaves_the_with_block(self, bench: Bench, name: str) -> None:
        before = snapshot(bench.model)
        with pytest.raises(KeyboardInterrupt), CASES[name].attached(bench, 1):
            bench.model.generate(**bench.rows(1), max_new_tokens=6, stopping_criteria=[_Interrupt()])
        assert snapshot(bench.model) == before

    @pytest.mark.parametrize("name", ["icd-adapter", "lol-refocus", "dola-high"])
    def test_exception_inside_forward(self, bench: Bench, name: str) -> None:
        """In the last block, after hooks of the first ones have run."""

        def fail(*_args: Any) -> None:
            raise RuntimeError("no memory")

        before = snapshot(bench.model)
        with CASES[name].attached(bench, 1):
            handle = bench.model.model.layers[-1].mlp.register_forward_hook(fail)
            with pytest.raises(RuntimeError, match="no memory"):
                bench.model.generate(**bench.rows(1), max_new_tokens=6)
            handle.remove()
            got = bench.model.generate(**bench.rows(1), max_new_tokens=6, do_sample=False)
        with CASES[name].attached(bench, 1):
            want = bench.model.generate(**bench.rows(1), max_new_tokens=6, do_sample=False)
        assert torch.equal(got, want)
        assert snapshot(bench.model) == before

    @pytest.mark.parametrize("name", ["icd-adapter", "icd-model", "lol-static", "dola-high", "cad"])
    def test_nan(self, bench: Bench, name: str) -> None:
        with torch.no_grad():
            bench.model.lm_head.weight[7, 3] = float("nan")
        ids = bench.rows(1)["input_ids"]
        with (
            CASES[name].attached(bench, 1),
            pytest.raises(
                tk.ModelError, match=r"met NaN logits from LlamaForCausalLM in torch\.float32.*another dtype"
            ),
        ):
            bench.model.generate(ids, max_new_tokens=4)
        assert not bench.model._forward_hooks

    def test_nan_of_the_amateur(self, bench: Bench) -> None:
        with torch.no_grad():
            bench.other.lm_head.weight[7, 3] = float("nan")
        self.check(bench, "icd-model", tk.ModelError, "met NaN logits", **{})

    @pytest.mark.parametrize("name", ["icd-adapter", "dola-high", "cad"])
    def test_empty_prompt(self, bench: Bench, name: str) -> None:
        empty = {"input_ids": torch.zeros(1, 0, dtype=torch.long)}
        self.check(bench, name, tk.ArgumentError, r"the prompt is empty: input_ids has shape \(1, 0\)", empty)

    @pytest.mark.parametrize("name", ["icd-adapter", "dola-high"])
    def test_prompt_longer_than_the_context(self, bench: Bench, name: str) -> None:
        self.check(
            bench, name, tk.ArgumentError, "a prompt has 513 tokens.*room for 512.*shorten it", padded_batch(513)
        )

    def test_view_longer_than_the_context(self, bench: Bench) -> None:
        """The prompt fits, the instruction in front of it does not."""
        self.check(
            bench, "icd-prompt", tk.ArgumentError, "a prompt has 515 tokens .the longest of 2 views", padded_batch(506)
        )

    def test_context_that_is_not_in_the_prompt(self, bench: Bench) -> None:
        bench.contexts[0] = "elsewhere"
        self.check(bench, "cad", tk.ArgumentError, "context 'elsewhere' does not occur in the prompt")

    def test_contexts_that_are_not_one_per_prompt(self, bench: Bench) -> None:
        with CASES["cad"].attached(bench, 3), pytest.raises(tk.ArgumentError, match="3 passages for 4 rows"):
            bench.model.generate(**bench.rows(4), max_new_tokens=2)

    def test_continuous_batching(self, bench: Bench) -> None:
        with CASES["icd-adapter"].attached(bench, 1), pytest.raises(tk.ModelError, match="continuous batching"):
            bench.model.generate_batch([[1, 2, 3]])

    def test_model_that_takes_no_views(self, bench: Bench) -> None:
        """An adapter on the output head changes early exits of all views, which share the head."""
        from tests.decoding.oracle import save_adapter

        folder = save_adapter(tiny("llama"), bench.adapter + "-head", target_modules=["lm_head"])
        with pytest.raises(tk.ModelError, match="changes the output head"):
            tk.LOL(bench.model, amateur=folder)
        with tk.ICD(bench.model, amateur=folder):
            bench.model.generate(**bench.rows(1), max_new_tokens=2)


class TestAttaching:
    def test_two_at_once(self, bench: Bench) -> None:
        before = snapshot(bench.model)
        with CASES["icd-adapter"].attached(bench, 1):
            inside = bench.model.generate(**bench.rows(1), max_new_tokens=4, do_sample=False)
            with pytest.raises(tk.AttachError, match=r"DoLa cannot be attached.*under ICD.*leave the `with ICD"):
                CASES["dola-high"].attached(bench, 1).__enter__()
            assert torch.equal(bench.model.generate(**bench.rows(1), max_new_tokens=4, do_sample=False), inside)
        assert snapshot(bench.model) == before

    def test_same_one_twice(self, bench: Bench) -> None:
        decoder = CASES["icd-adapter"].attached(bench, 1)
        with decoder, pytest.raises(tk.AttachError, match="ICD cannot be attached"):
            decoder.__enter__()
        assert not bench.model._forward_hooks

    def test_wrapper_of_an_attached_model(self, bench: Bench) -> None:
        wrapped = with_adapter(bench.model, bench.adapter)
        with CASES["dola-high"].attached(bench, 1), pytest.raises(tk.AttachError, match="already runs under DoLa"):
            CASES["dola-high"].attached(bench, 1, wrapped).__enter__()

    @pytest.mark.parametrize("name", [*KINDS.values(), "icd-model-prompt", "cad"])
    def test_nothing_is_left(self, bench: Bench, name: str) -> None:
        before = snapshot(bench.model)
        other = snapshot(bench.other)
        with CASES[name].attached(bench, 4):
            for options in ({}, {"num_beams": 2}, {"cache_implementation": "static"}, {"use_cache": False}):
                bench.model.generate(**bench.rows(4), max_new_tokens=3, **options)
            bench.model(**bench.rows(4))
        assert snapshot(bench.model) == before
        assert snapshot(bench.other) == other
        processor = CASES[name].processor(bench, 4)
        bench.model.generate(**bench.rows(4), max_new_tokens=3, logits_processor=[processor])
        assert snapshot(bench.model) == before
        assert snapshot(bench.other) == other
