"""A decoder as an entry of `logits_processor=[...]`.

The oracle is that of test_decoders.py; its scores are normalised, as the processor's are.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

import truthkit as tk
from tests.decoding.cases import CACHES, CASES, MODES, Bench, tiny_bench
from tests.decoding.test_decoders import decode, want
from tests.tiny import tiny

SOME = ("icd-adapter", "icd-model-prompt", "lol-dynamic", "lol-adapter-refocus", "dola-high", "cad-beta")
_FAMILIES = ("llama", "gemma3_text", "gpt2")


@pytest.fixture(scope="module", params=_FAMILIES)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(request.param, tmp_path_factory.mktemp("adapter"), dtype=torch.float64)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench("llama", tmp_path_factory.mktemp("adapter"), dtype=torch.float64)


def check(bench: Bench, name: str, batch: int, *, assistant: Any = None, **options: Any) -> None:
    case, inputs = CASES[name], bench.rows(batch)
    help_ = assistant or {}
    processor = case.processor(bench, batch)
    got = decode(bench.model, inputs, max_new_tokens=6, logits_processor=[processor], **options, **help_)
    expected = want(bench, name, inputs, got.sequences, max_new_tokens=6, **options)
    assert got.sequences.tolist() == expected.sequences.tolist()
    if got.get("sequences_scores") is not None:
        torch.testing.assert_close(got.sequences_scores, expected.sequences_scores, atol=1e-5, rtol=1e-5)


class TestModes:
    @pytest.mark.parametrize("name", SOME)
    def test_padded_batch(self, bench: Bench, name: str) -> None:
        """Modes and caches take turns, so that each mode meets every family and every case."""
        turn = SOME.index(name) + _FAMILIES.index(bench.model.config.model_type)
        for mode in list(MODES)[turn % 2 :: 2]:
            turn += 1
            options = {**MODES[mode], **list(CACHES.values())[turn % len(CACHES)]}
            options.pop("use_cache", None)  # the oracle has none anyway
            check(bench, name, 4, **options)

    @pytest.mark.parametrize("name", CASES)
    def test_one_row(self, llama: Bench, name: str) -> None:
        check(llama, name, 1)
        check(llama, name, 1, **MODES["beams"])

    @pytest.mark.parametrize("name", SOME)
    def test_prompt_lookup_and_assistant(self, bench: Bench, name: str) -> None:
        """Rejected tokens leave no trace in the processor's own cache."""
        check(bench, name, 1, assistant={"prompt_lookup_num_tokens": 4})
        twin = tiny(bench.model.config.model_type, dtype=torch.float64)
        check(bench, name, 1, assistant={"assistant_model": twin})


class TestReuse:
    def test_new_prompts_and_batch_sizes(self, llama: Bench) -> None:
        """One processor object for one `generate` after another; the mask is found from the pad token."""
        case = CASES["icd-prompt"]
        processor = case.processor(llama, 4)
        for batch, mode in [(4, "beams"), (1, "greedy"), (4, "beams"), (3, "several"), (1, "greedy"), (1, "greedy")]:
            got = decode(llama.model, llama.rows(batch), logits_processor=[processor], **MODES[mode])
            expected = want(llama, case.name, llama.rows(batch), got.sequences, **MODES[mode])
            assert got.sequences.tolist() == expected.sequences.tolist()

    def test_prompt_that_goes_on_from_the_last_answer(self, llama: Bench) -> None:
        """The whole longer text counts as its prompt."""
        case, inputs = CASES["icd-prompt"], llama.rows(1)
        processor = case.processor(llama, 1)
        first = decode(llama.model, inputs, logits_processor=[processor]).sequences
        longer = {"input_ids": torch.cat([first, torch.tensor([[77, 78]])], dim=1)}
        longer["attention_mask"] = torch.ones_like(longer["input_ids"])
        got = decode(llama.model, longer, logits_processor=[processor])
        assert got.sequences.tolist() == decode(case.expected(llama), longer).sequences.tolist()

    def test_given_mask(self, llama: Bench) -> None:
        """For prompts that begin with the pad token itself."""
        case, inputs = CASES["icd-prompt"], {name: value.clone() for name, value in llama.rows(4).items()}
        row = int((inputs["attention_mask"][:, 0] == 0).nonzero()[0])
        start = int(inputs["attention_mask"][row].argmax())
        inputs["input_ids"][row, start] = 0
        processor = case.processor(llama, 4, inputs["attention_mask"])
        got = decode(llama.model, inputs, logits_processor=[processor], **MODES["beams"])
        expected = want(llama, case.name, inputs, got.sequences, **MODES["beams"])
        assert got.sequences.tolist() == expected.sequences.tolist()

    def test_mask_of_another_prompt(self, llama: Bench) -> None:
        processor = CASES["icd-prompt"].processor(llama, 4, torch.ones(4, 3))
        with pytest.raises(tk.ArgumentError, match=r"attention_mask has shape \(4, 3\)"):
            decode(llama.model, llama.rows(4), logits_processor=[processor])


class TestScores:
    def test_normalised(self, llama: Bench) -> None:
        processor, inputs = CASES["cad"].processor(llama, 4), llama.rows(4)
        scores = processor(inputs["input_ids"], torch.randn(4, 128))
        torch.testing.assert_close(scores.exp().sum(-1), torch.ones(4, dtype=scores.dtype))

    @pytest.mark.parametrize("name", SOME)
    def test_tokens_that_earlier_processors_ruled_out_stay_out(self, llama: Bench, name: str) -> None:
        """`generate` puts its own processors first: -inf in, -inf out, and no NaN."""
        options = {"eos_token_id": 5, "min_new_tokens": 6, "suppress_tokens": list(range(20, 60)), "max_new_tokens": 6}
        processor = CASES[name].processor(llama, 4)
        got = decode(llama.model, llama.rows(4), logits_processor=[processor], output_scores=True, **options)
        scores = torch.stack(got.scores)
        assert not scores.isnan().any()
        assert scores[..., [5, *range(20, 60)]].isneginf().all()

    def test_same_bits_as_the_context_manager_gives_greedy(self, llama: Bench) -> None:
        with CASES["lol-dynamic"].attached(llama, 4):
            inside = decode(llama.model, llama.rows(4))
        processor = CASES["lol-dynamic"].processor(llama, 4)
        outside = decode(llama.model, llama.rows(4), logits_processor=[processor])
        assert inside.sequences.tolist() == outside.sequences.tolist()


class TestRefusals:
    def test_under_a_decoder(self, llama: Bench) -> None:
        processor = CASES["icd-prompt"].processor(llama, 1)
        with (
            CASES["dola-high"].attached(llama, 1),
            pytest.raises(tk.AttachError, match=r"ICDLogitsProcessor.*`with DoLa"),
        ):
            decode(llama.model, llama.rows(1), logits_processor=[processor])

    def test_active_adapter_as_amateur(self, llama: Bench) -> None:
        """What the processor receives would be the amateur's scores already."""
        from peft import PeftModel

        wrapped = PeftModel.from_pretrained(tiny("llama", dtype=torch.float64), llama.adapter).eval()
        processor = tk.ICDLogitsProcessor(wrapped, amateur="default")
        with pytest.raises(tk.ModelError, match="'default' is active"):
            decode(wrapped, llama.rows(1), logits_processor=[processor])
        with wrapped.disable_adapter():
            got = decode(wrapped, llama.rows(1), logits_processor=[processor])
        expected = decode(llama.oracle(CASES["icd-adapter"]), llama.rows(1))
        assert got.sequences.tolist() == expected.sequences.tolist()

    def test_signature_is_the_decoders(self) -> None:
        import inspect

        mine, decoders = (list(inspect.signature(one).parameters) for one in (tk.LOLLogitsProcessor, tk.LOL))
        assert mine == [*decoders, "attention_mask", "images"]
