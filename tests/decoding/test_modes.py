"""What `generate` can do beside plain decoding, under a decoder.

The oracle is that of test_decoders.py; where a mode may not change the tokens (assistants, chunks, streams), greedy
search from the oracle's logits.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import StaticCache
from transformers.generation.streamers import BaseStreamer

import truthkit as tk
from tests.decoding.cases import CASES, MODES, Bench, tiny_bench
from tests.decoding.test_decoders import NEW, assert_same, decode, want
from tests.tiny import tiny

SOME = ("icd-adapter", "icd-prompt", "icd-model-prompt", "lol-adapter-refocus", "dola-high")


@pytest.fixture(scope="module", params=["llama", "gemma3_text", "gpt2"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(request.param, tmp_path_factory.mktemp("adapter"), dtype=torch.float64)


@pytest.mark.parametrize("name", SOME)
class TestAssisted:
    """Drafted tokens are checked several at a time; rejected ones leave no trace."""

    def check(self, bench: Bench, name: str, **options: Any) -> None:
        case, inputs = CASES[name], bench.rows(1)
        with case.attached(bench, 1):
            got = decode(bench.model, inputs, max_new_tokens=12, **options)
        expected = want(bench, name, inputs, got.sequences, max_new_tokens=12)
        assert got.sequences.tolist() == expected.sequences.tolist()

    def test_prompt_lookup(self, bench: Bench, name: str) -> None:
        self.check(bench, name, prompt_lookup_num_tokens=4)

    def test_assistant_model(self, bench: Bench, name: str) -> None:
        """Another one, and the model's own twin, most of whose drafts are accepted."""
        for seed in (2, 0):
            assistant = tiny(bench.model.config.model_type, seed=seed, dtype=torch.float64)
            self.check(bench, name, assistant_model=assistant)

    def test_early_exit_assistant(self, bench: Bench, name: str) -> None:
        if bench.model.config.model_type == "gpt2":
            pytest.skip("transformers cuts Llama-like models short only")
        self.check(bench, name, assistant_early_exit=2)


class _Record(BaseStreamer):
    def __init__(self) -> None:
        self.tokens: list[int] = []

    def put(self, value: torch.Tensor) -> None:
        self.tokens += value.flatten().tolist()

    def end(self) -> None:
        self.tokens.append(-1)


@pytest.mark.parametrize("name", SOME)
class TestOutputs:
    def test_streamer(self, bench: Bench, name: str) -> None:
        case, stream = CASES[name], _Record()
        with case.attached(bench, 1):
            got = bench.model.generate(**bench.rows(1), max_new_tokens=4, do_sample=False, streamer=stream)
        assert stream.tokens == [*got[0].tolist(), -1]

    @pytest.mark.parametrize("mode", ["greedy", "beams"])
    def test_states_and_attentions_are_those_of_the_main_rows(self, name: str, mode: str, tmp_path: Any) -> None:
        """Plain `generate` returns the same states of the same prompts, in the same shapes."""
        bench = tiny_bench("llama", tmp_path, attn_implementation="eager")
        options = {"output_hidden_states": True, "output_attentions": True, **MODES[mode]}
        plain = decode(bench.model, bench.rows(4), **options)
        with CASES[name].attached(bench, 4):
            got = decode(bench.model, bench.rows(4), **options)
        for kind in ("hidden_states", "attentions"):
            for step, expected in zip(got[kind], plain[kind], strict=True):
                assert [tuple(state.shape) for state in step] == [tuple(state.shape) for state in expected]
        rows = len(got.hidden_states[0][0]) // 4
        tokens = (
            bench.rows(4)["attention_mask"].bool().repeat_interleave(rows, dim=0)
        )  # what padding computes is nothing
        for state, expected in zip(got.hidden_states[0], plain.hidden_states[0], strict=True):
            torch.testing.assert_close(state[tokens], expected[tokens], atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize(("mode", "static"), [("greedy", True), ("several", False)])
    def test_returned_cache_is_the_main_rows_own(self, bench: Bench, name: str, static: bool, mode: str) -> None:
        """Plain greedy search that goes on from it finds what it finds from scratch."""
        case, inputs = CASES[name], bench.rows(4)
        cache = {"cache": StaticCache(config=bench.model.config, max_cache_len=40)} if static else {}
        with case.attached(bench, 4):
            first = decode(bench.model, inputs, **MODES[mode], **cache)
        rows = len(first.sequences) // 4
        mask = torch.nn.functional.pad(inputs["attention_mask"], (0, NEW), value=1).repeat_interleave(rows, dim=0)
        go_on = {"input_ids": first.sequences, "attention_mask": mask}
        assert_same(decode(bench.model, go_on, cache=first.cache), decode(bench.model, go_on), 1e-5)

    def test_repetition_penalty_and_other_processors(self, bench: Bench, name: str) -> None:
        """They see the combined logits, as they would see the model's."""
        case, inputs = CASES[name], bench.rows(4)
        options = {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "min_new_tokens": 2, "eos_token_id": 5}
        with case.attached(bench, 4):
            got = decode(bench.model, inputs, **options)
        assert_same(got, want(bench, name, inputs, got.sequences, **options), 1e-5)


class TestInputs:
    """Ways to say the same thing to `generate`; the oracle as before."""

    @pytest.fixture
    def bench(self, tmp_path: Any) -> Bench:
        return tiny_bench("llama", tmp_path, dtype=torch.float64)

    @pytest.mark.parametrize("name", ["icd-adapter", "lol-static", "dola-high"])
    @pytest.mark.parametrize("size", [4, 1])
    def test_chunked_prefill(self, bench: Bench, name: str, size: int) -> None:
        """Where all views have the same prompt."""
        with CASES[name].attached(bench, 4):
            got = decode(bench.model, bench.rows(4), prefill_chunk_size=size)
        assert_same(got, want(bench, name, bench.rows(4), got.sequences), 1e-5)

    @pytest.mark.parametrize("name", ["icd-prompt", "icd-model", "lol-refocus", "cad"])
    def test_chunked_prefill_of_different_prompts_is_refused(self, bench: Bench, name: str) -> None:
        with (
            CASES[name].attached(bench, 4),
            pytest.raises(tk.ArgumentError, match="prefill_chunk_size=4 cannot be used"),
        ):
            decode(bench.model, bench.rows(4), prefill_chunk_size=4)

    @pytest.mark.parametrize("name", ["icd-adapter", "lol-static", "dola-high"])
    def test_embeddings(self, bench: Bench, name: str) -> None:
        ids, mask = bench.rows(4).values()
        with CASES[name].attached(bench, 4):
            embedded = {"inputs_embeds": bench.model.get_input_embeddings()(ids), "attention_mask": mask}
            got = decode(bench.model, embedded)
        expected = want(bench, name, bench.rows(4), torch.cat([ids, got.sequences], dim=1))
        assert got.sequences.tolist() == expected.sequences[:, ids.shape[1] :].tolist()

    @pytest.mark.parametrize("name", ["icd-prompt", "icd-model"])
    def test_embeddings_without_the_ids_that_a_view_needs(self, bench: Bench, name: str) -> None:
        embeddings = bench.model.get_input_embeddings()(bench.rows(1)["input_ids"])
        with CASES[name].attached(bench, 1), pytest.raises(tk.ArgumentError, match="needs input_ids"):
            bench.model.generate(inputs_embeds=embeddings, max_new_tokens=2)

    def test_right_padding_is_refused_where_views_are_laid_out_anew(self, bench: Bench) -> None:
        batch = {
            "input_ids": torch.tensor([[5, 6, 7], [5, 6, 0]]),
            "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
        }
        with CASES["icd-prompt"].attached(bench, 1), pytest.raises(tk.ArgumentError, match="left padding"):
            bench.model(**batch)

    def test_own_cache_of_either_name(self, bench: Bench) -> None:
        with CASES["icd-prompt"].attached(bench, 4):
            grown = decode(bench.model, bench.rows(4), cache=tk.GrowingCache(config=bench.model.config))
            static = decode(bench.model, bench.rows(4), cache=StaticCache(config=bench.model.config, max_cache_len=26))
        expected = want(bench, "icd-prompt", bench.rows(4), grown.sequences)
        assert_same(grown, expected, 1e-5)
        assert_same(static, expected, 1e-5)
        assert grown.cache.get_seq_length() == static.cache.get_seq_length() == 25

    def test_cache_that_the_views_have_not_seen_is_refused(self, bench: Bench) -> None:
        with torch.no_grad():
            seen = bench.model(**bench.rows(1)).cache
        with CASES["icd-adapter"].attached(bench, 1), pytest.raises(tk.ArgumentError, match="already holds 9 tokens"):
            decode(bench.model, {"input_ids": bench.rows(1)["input_ids"].repeat(1, 2)}, cache=seen)

    def test_dola_goes_on_from_a_cache(self, bench: Bench) -> None:
        """It has no view that would have to see the prompt."""
        inputs = bench.rows(1)
        with torch.no_grad():
            seen = bench.model(inputs["input_ids"][:, :-3]).cache
        with CASES["dola-high"].attached(bench, 1):
            got = decode(bench.model, inputs, cache=seen)
        assert_same(got, decode(bench.oracle(CASES["dola-high"]), inputs), 1e-5)

    def test_one_generate_after_another(self, bench: Bench) -> None:
        """Other prompts, other batch sizes, other modes, under one `with`."""
        turns = [(4, "beams"), (1, "greedy"), (3, "several"), (4, "beams")]
        with CASES["icd-prompt"].attached(bench, 4):
            got = [decode(bench.model, bench.rows(batch), **MODES[mode]) for batch, mode in turns]
        for one, (batch, mode) in zip(got, turns, strict=True):
            assert_same(one, want(bench, "icd-prompt", bench.rows(batch), one.sequences, **MODES[mode]), 1e-5)

    def test_attached_again_after_it_came_off(self, bench: Bench) -> None:
        decoder = CASES["lol-static"].attached(bench, 4)
        with decoder:
            first = decode(bench.model, bench.rows(4))
        plain = decode(bench.model, bench.rows(4))
        with decoder:
            assert_same(decode(bench.model, bench.rows(4)), first, 0)
        assert plain.sequences.tolist() != first.sequences.tolist()
