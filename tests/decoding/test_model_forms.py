"""A model wrapped, compiled, quantised, placed or in another precision decodes as the plain one does."""

from __future__ import annotations

import copy
from itertools import cycle
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.decoding.cases import CASES, Bench, tiny_bench
from tests.decoding.oracle import Look, Oracle, icd, with_adapter
from tests.decoding.test_decoders import assert_same, decode

_HALVES = (torch.bfloat16, torch.float16)
SOME = ("icd-prompt", "icd-model", "lol-adapter-refocus", "dola-high", "cad")


@pytest.fixture
def bench(tmp_path: Any) -> Bench:
    return tiny_bench("llama", tmp_path)


class TestPeft:
    """The oracle: the base model, and a copy in which peft has the adapter active."""

    @pytest.mark.parametrize("name", ["icd-adapter", *SOME])
    def test_wrapper(self, bench: Bench, name: str) -> None:
        """The context is given the wrapper, and `generate` is called on the wrapper or on the model inside."""
        want = decode(bench.oracle(CASES[name]), bench.rows(4))
        wrapped = with_adapter(copy.deepcopy(bench.model), bench.adapter)
        wrapped.base_model.disable_adapter_layers()
        with CASES[name].attached(bench, 4, wrapped):
            outside = decode(wrapped, bench.rows(4))
            inside = decode(wrapped.get_base_model(), bench.rows(4))
        assert_same(outside, want, 1e-4)
        assert_same(inside, want, 1e-4)

    @pytest.mark.parametrize("mode", [{}, {"num_beams": 3}, {"cache_implementation": "static"}])
    def test_loaded_and_active_adapter_as_amateur(self, bench: Bench, mode: dict[str, Any]) -> None:
        """By its name: off in the main rows, on in the amateur's, and active again afterwards."""
        want = decode(bench.oracle(CASES["icd-adapter"]), bench.rows(4), **mode)
        wrapped = with_adapter(copy.deepcopy(bench.model), bench.adapter)
        before = wrapped(**bench.rows(4)).logits
        with tk.ICD(wrapped, amateur="default"):
            assert_same(decode(wrapped, bench.rows(4), **mode), want, 1e-4)
        assert wrapped.active_adapters == ["default"]
        assert torch.equal(wrapped(**bench.rows(4)).logits, before)


class TestCompiled:
    """Eager while a decoder is attached, with a warning; the same tokens; compiled as before afterwards."""

    @pytest.mark.parametrize(
        ("kind", "name"), [("method", "icd-prompt"), ("wrapper", "lol-adapter-refocus"), ("blocks", "lol-static")]
    )
    def test_compiled(self, bench: Bench, name: str, kind: str) -> None:
        torch._dynamo.reset()
        want = decode(bench.oracle(CASES[name]), bench.rows(4))
        calls = []

        def backend(graph: Any, _inputs: Any) -> Any:
            def run(*args: Any) -> Any:
                calls.append(1)
                return graph(*args)

            return run

        model = bench.model
        if kind == "wrapper":
            model = torch.compile(model, backend=backend)
        elif kind == "method":
            model.compile(backend=backend)
        else:
            for block in model.model.layers:
                block.compile(backend=backend)
        with torch.no_grad():
            plain = model(**bench.rows(4)).logits
            assert calls
            attached = CASES[name].attached(bench, 4, model)
            with pytest.warns(UserWarning, match="this model is compiled"), attached:  # noqa: PT031 - warns on entry
                calls.clear()
                got = decode(model, bench.rows(4))
                scored = model(**bench.rows(4)).logits[:, -1]
                assert not calls
            assert_same(got, want, 1e-4)
            torch.testing.assert_close(scored, want.logits[0], atol=1e-4, rtol=1e-4)
            assert torch.equal(model(**bench.rows(4)).logits, plain)
            assert calls


class TestPrecision:
    @pytest.mark.parametrize(
        ("name", "dtype"),
        [*zip(["icd-adapter", *SOME, "icd-adapter"], cycle(_HALVES), strict=False)],
    )
    def test_half_precision(self, name: str, dtype: torch.dtype, tmp_path: Any) -> None:
        """The main rows' logits are close to the oracle's in float32, and combined in float32."""
        exact, half = tiny_bench("llama", tmp_path / "a"), tiny_bench("llama", tmp_path / "b", dtype=dtype)
        half.adapter = exact.adapter
        seen = []
        with CASES[name].attached(half, 4) as decoder:
            decoder.observers.append(lambda views, combined: seen.append((views, combined)))
            decode(half.model, half.rows(4))
            decode(half.model, half.rows(4), num_beams=2)
        views, combined = seen[0]
        assert combined.dtype == views[0].logits.dtype == torch.float32
        assert combined.shape == (4, 1, 128)
        with torch.no_grad():
            want = decode(exact.model, exact.rows(4), max_new_tokens=1).logits[0]
        spread = want.std()
        assert float((views[0].logits[:, -1] - want).abs().mean()) < 0.1 * spread

    def test_device_map(self, bench: Bench) -> None:
        """accelerate's own hooks stay in place."""
        from accelerate import dispatch_model

        want = decode(bench.oracle(CASES["lol-adapter-refocus"]), bench.rows(4))
        model = dispatch_model(bench.model, {"": "cpu"}, main_device="cpu", force_hooks=True)
        with CASES["lol-adapter-refocus"].attached(bench, 4, model):
            assert_same(decode(model, bench.rows(4)), want, 1e-4)
        assert hasattr(model, "_hf_hook")


class TestQuantised:
    """The oracle: peft's own forward of the adapter in a second copy of the same quantised weights."""

    @pytest.mark.parametrize("quantization", ["4bit", "8bit"])
    def test_adapter(self, quantization: str, tmp_path: Any) -> None:
        pytest.importorskip("bitsandbytes")
        sizes = {"hidden_size": 128, "intermediate_size": 128, "head_dim": 32, "num_key_value_heads": 4}
        bench = tiny_bench("llama", tmp_path / "adapter", **sizes)
        bench.model.save_pretrained(tmp_path / "model")
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, BitsAndBytesConfig

        config = {
            "4bit": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32),
            "8bit": BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0),  # outliers depend on batch mates
        }[quantization]

        def load() -> Any:
            return AutoModelForCausalLM.from_pretrained(
                tmp_path / "model", quantization_config=config, dtype=torch.float32, device_map={"": "cpu"}
            ).eval()

        model, amateur = load(), PeftModel.from_pretrained(load(), bench.adapter).eval()
        oracle = Oracle(model, [Look(amateur)], icd())
        with tk.ICD(model, amateur=bench.adapter):
            one = decode(model, bench.rows(1))
        assert one.sequences.tolist() == decode(oracle, bench.rows(1)).sequences.tolist()
        torch.testing.assert_close(
            torch.stack(one.logits).softmax(-1),
            torch.stack(decode(oracle, bench.rows(1)).logits).softmax(-1),
            atol=0.02,
            rtol=0,
        )
        with tk.ICD(model, amateur=bench.adapter):
            decode(model, bench.rows(4), num_beams=2)
