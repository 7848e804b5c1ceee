"""Entropies of early exits over a prompt: read in parts, in any mode, never all at once.

The oracle of the formula is that of test_decoders.py; of the sums it is the entropy of torch's own softmax.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

import truthkit as tk
from tests.decoding.cases import CASES, MODES, Bench, tiny_bench
from tests.decoding.image_cases import OF_TEXT, image_bench
from tests.decoding.oracle import Oracle, activation_decoding
from tests.decoding.test_decoders import assert_same, decode, exact, want
from tests.decoding.test_image_decoders import decode as decode_images
from tests.each import each
from tests.tiny import LLAMA_LIKE, build, padded_batch, tiny
from truthkit.decoding.engine import prompt_exits
from truthkit.decoding.engine.prompt_exits import PromptExit, PromptExits
from truthkit.decoding.engine.running_entropy import RunningEntropy
from truthkit.hf.tails import behind_head
from truthkit.likelihood.log_probabilities import log_probabilities

NAME = "activation-options"


@pytest.fixture(scope="module", params=["llama", "gemma2", "gpt2"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(request.param, tmp_path_factory.mktemp("adapter"), dtype=exact(request.param))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench("llama", tmp_path_factory.mktemp("adapter"), dtype=torch.float64)


def hooked(model: Any) -> list[int]:
    return [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]


class TestRunningEntropy:
    @pytest.mark.parametrize("some", [1, 3, 40])
    def test_is_that_of_all_values_at_once(self, some: int) -> None:
        values = 20 * torch.randn(3, 11, 7, dtype=torch.float64)
        values[0, :, 2] = values[0, 4, 2]  # all alike
        values[1, 3:, 5] = -torch.inf
        counted = torch.ones(3, 11, dtype=torch.bool)
        counted[1, :2], counted[2, :10] = False, False  # the third row has one value, and begins with blocks of none
        sums = RunningEntropy.of_nothing(values)
        for part, real in zip(values.split(some, dim=1), counted.split(some, dim=1), strict=True):
            sums.add(part, real)
        for row, real, found in zip(values, counted, sums.entropy(), strict=True):
            p = row[real].softmax(dim=0)
            torch.testing.assert_close(found, torch.special.entr(p).sum(dim=0), atol=1e-12, rtol=1e-12)
        chosen = sums.select(torch.tensor([2, 0]))
        assert torch.equal(chosen.entropy(), sums.entropy()[[2, 0]])

    def test_large_values_in_float32(self) -> None:
        """As unnormalised exits have them, of a long prompt."""
        values = 500 + 30 * torch.randn(1, 4000, 50)
        sums = RunningEntropy.of_nothing(values)
        for part in values.split(64, dim=1):
            sums.add(part, torch.ones(1, part.shape[1], dtype=torch.bool))
        expected = torch.special.entr(values.double().softmax(dim=1)).sum(dim=1)
        torch.testing.assert_close(sums.entropy().double(), expected, atol=1e-4, rtol=1e-4)


class TestModes:
    """Same tokens and logits as the oracle."""

    @pytest.mark.parametrize("options", [{"prefill_chunk_size": 4}, {"prefill_chunk_size": 1}])
    def test_prompt_in_chunks(self, bench: Bench, options: dict[str, Any]) -> None:
        """Rows of a batch are as long as the first chunks, so these are padding alone for some."""
        with CASES[NAME].attached(bench, 4):
            got = decode(bench.model, bench.rows(4), **options)
        assert_same(got, want(bench, NAME, bench.rows(4), got.sequences), bench.tolerance)

    def test_drafted_tokens_are_not_the_prompt(self, bench: Bench) -> None:
        for options in ({"prompt_lookup_num_tokens": 4}, {"assistant_model": bench.other}):
            with CASES[NAME].attached(bench, 1):
                got = decode(bench.model, bench.rows(1), max_new_tokens=12, **options)
            expected = want(bench, NAME, bench.rows(1), got.sequences, max_new_tokens=12)
            assert got.sequences.tolist() == expected.sequences.tolist()

    def test_embeddings(self, bench: Bench) -> None:
        ids, mask = bench.rows(4).values()
        with CASES[NAME].attached(bench, 4):
            embeddings = bench.model.get_input_embeddings()(ids)
            got = decode(bench.model, {"inputs_embeds": embeddings, "attention_mask": mask})
        expected = want(bench, NAME, bench.rows(4), torch.cat([ids, got.sequences], dim=1))
        assert got.sequences.tolist() == expected.sequences[:, ids.shape[1] :].tolist()

    @each("mode", ["sampling", "beams"])
    def test_processor_of_a_padded_batch(self, bench: Bench, mode: str) -> None:
        processor = CASES[NAME].processor(bench, 4)
        got = decode(bench.model, bench.rows(4), logits_processor=[processor], **MODES[mode])
        expected = want(bench, NAME, bench.rows(4), got.sequences, **MODES[mode])
        assert got.sequences.tolist() == expected.sequences.tolist()

    def test_one_generate_after_another(self, llama: Bench) -> None:
        turns = [(4, "beams"), (1, "greedy")]
        with CASES[NAME].attached(llama, 4):
            got = [decode(llama.model, llama.rows(batch), **MODES[mode]) for batch, mode in turns]
        for one, (batch, mode) in zip(got, turns, strict=True):
            assert_same(one, want(llama, NAME, llama.rows(batch), one.sequences, **MODES[mode]), llama.tolerance)

    def test_what_happens_behind_the_head(self) -> None:
        """Granite divides its logits, and so the exits'; Gemma 2 of the bench caps them."""
        model: Any = build("granite", **LLAMA_LIKE, logits_scaling=3.0, dtype=torch.float64)
        oracle = Oracle(model, formula=activation_decoding(2.0), prompt_layer=2, norm=True)
        with tk.ActivationDecoding(model, layer=2, alpha=2.0, norm=True):
            got = decode(model, padded_batch(9, 14))
        assert_same(got, decode(oracle, padded_batch(9, 14)), 1e-5)


class TestForwards:
    def test_of_a_whole_text(self, llama: Bench) -> None:
        """All of it is prompt, at every position."""
        row = llama.rows(1)["input_ids"]
        with CASES[NAME].attached(llama, 1), torch.no_grad():
            whole, last = llama.model(row).logits, llama.model(row, logits_to_keep=1).logits
        expected = torch.stack(llama.oracle(CASES[NAME]).scores(row[0].tolist(), [], 9))
        torch.testing.assert_close(whole[0], expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(last, whole[:, -1:], atol=1e-9, rtol=1e-9)

    def test_by_hand_from_a_cache(self, llama: Bench) -> None:
        """What follows the first forward is no prompt, and rows that change places take their prompts along."""
        inputs = padded_batch(9, 9, 9)
        expected = decode(llama.oracle(CASES[NAME]), inputs)
        index = torch.tensor([2, 0, 1])
        with CASES[NAME].attached(llama, 3), torch.no_grad():
            out = llama.model(**inputs, use_cache=True)
            out.cache.reorder_cache(index)
            out = llama.model(expected.sequences[index, 9:11], cache=out.cache)
        torch.testing.assert_close(out.logits[:, -1].float(), expected.logits[2][index], atol=1e-5, rtol=1e-5)

    def test_a_cache_of_what_was_not_seen_is_refused(self, llama: Bench) -> None:
        inputs, before = llama.rows(1), hooked(llama.model)
        with torch.no_grad():
            seen = llama.model(inputs["input_ids"][:, :-3]).cache
        with CASES[NAME].attached(llama, 1), pytest.raises(tk.ArgumentError, match="already holds 6 tokens that its"):
            decode(llama.model, inputs, cache=seen)
        assert hooked(llama.model) == before

    @pytest.mark.parametrize("shared", [0, 30])
    def test_likelihoods_have_the_entropies_of_their_prompts(self, llama: Bench, shared: int) -> None:
        """Texts that begin alike are read in branches, and each has a prompt of its own."""
        generator = torch.Generator().manual_seed(3)

        def some(count: int) -> list[int]:
            return torch.randint(2, 128, (count,), generator=generator).tolist()

        beginning = some(shared)
        prompts = [beginning + some(count) for count in (6, 9, 6, 4)]
        rows = [prompt + some(count) for prompt in prompts for count in (3, 5)]
        starts = [len(prompt) for prompt in prompts for _ in range(2)]
        oracle = Oracle(llama.model, formula=activation_decoding(0.5, 0.0), prompt_layer=2, norm=False)
        expected = []
        for row, start in zip(rows, starts, strict=True):
            scores = oracle.scores(row[:start], row[start:], len(row) - start + 1)[:-1]
            expected.append(float(sum(one.log_softmax(-1)[t] for one, t in zip(scores, row[start:], strict=True))))
        decoder = tk.ActivationDecoding(llama.model, alpha=0.5)
        with decoder as session, session.unconstrained():
            found = log_probabilities(llama.model, rows, starts, session, token_budget=40)
            apart = log_probabilities(llama.model, rows, starts, session, share_prefix=False)
        assert found == pytest.approx(expected, abs=1e-5)
        assert apart == pytest.approx(expected, abs=1e-5)


def test_sum_with_another_of_other_exits(llama: Bench) -> None:
    """Each with its own exits, over a prompt and at its end."""
    model, inputs = llama.model, llama.rows(3)
    parts = [
        tk.ActivationDecoding(model, layer=1, alpha=2.0, beta=0.0),
        tk.DoLa(model, layers=[2], beta=0.0),
        tk.ActivationDecoding(model, layer=2, alpha=-1.0, beta=0.0, norm=True),
    ]

    def logits(decoder: Any) -> torch.Tensor:
        with decoder, torch.no_grad():
            return model(**inputs).logits[:, -1]

    with torch.no_grad():
        plain = model(**inputs).logits[:, -1]
    expected = plain + sum(logits(part) - plain for part in parts)
    torch.testing.assert_close(logits(parts[0] + parts[1] + parts[2]), expected, atol=1e-9, rtol=1e-9)


def test_exits_of_a_prompt_are_never_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its length, the head is asked for few positions at a time."""
    model = tiny("llama")
    monkeypatch.setattr(prompt_exits, "_LOGITS_AT_A_TIME", 128 * 8)
    widths: list[int] = []
    handle = model.lm_head.register_forward_hook(lambda _m, _a, out: widths.append(out.shape[0] * out.shape[1]))
    with tk.ActivationDecoding(model):
        model.generate(torch.randint(2, 128, (2, 301)), max_new_tokens=3, do_sample=False)
    handle.remove()
    assert max(widths) == 8
    assert sum(widths) == 2 * 301 + 3 * 2  # every prompt token once, and a next token three times


def test_of_a_view_beside_the_main_one(tmp_path: Any) -> None:
    """RITUAL+ asks about the image first, and a longer prompt of another view moves the main one to the right."""
    bench = image_bench("llava", tmp_path)
    inputs, alpha = bench.inputs(2), 1.0
    free = tk.ActivationDecoding(bench.model, layer=1, alpha=alpha, beta=0.0)
    with free, torch.no_grad():
        scores = bench.model(**inputs).logits[:, -1]
    with torch.no_grad():
        plain = bench.model(**inputs).logits[:, -1]
    entropies = plain - scores
    for other in (
        tk.RITUALPlus(bench.model, bench.tiny.processor, images=bench.images(2), beta=0.0),
        tk.ICD(bench.model, bench.tiny.processor, amateur_prompt="lie now", beta=0.0),
        tk.M3ID(bench.model, bench.tiny.processor, beta=0.0),
    ):
        with other:
            alone = bench.model.generate(**inputs, max_new_tokens=1, output_logits=True, return_dict_in_generate=True)
        with other + free:
            both = bench.model.generate(**inputs, max_new_tokens=1, output_logits=True, return_dict_in_generate=True)
        got, expected = both.logits[0], alone.logits[0] - entropies
        if isinstance(other, tk.ICD):  # whose scores are log-probabilities, and differ by a constant
            got, expected = got.log_softmax(-1), expected.log_softmax(-1)
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["instructblip", "paligemma"])
def test_images(family: str, tmp_path: Any) -> None:
    """Families beside those of the matrix: the image's places are the prompt's."""
    bench, case = image_bench(family, tmp_path), OF_TEXT["activation"]
    inputs, oracle = bench.inputs(3), bench.oracle(case)
    with case.attached(bench, 3):
        got = decode_images(bench.model, inputs, do_sample=False)
    asked = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    oracle.prepare_likely(got.sequences, inputs["attention_mask"])
    assert_same(got, decode_images(oracle, asked, do_sample=False), 1e-4)


class TestRefused:
    def test_layer(self, llama: Bench) -> None:
        for layer in (4, -5, True, "high"):
            with pytest.raises(tk.ArgumentError, match=rf"layer is {layer!r}, but this model has 4 decoder blocks"):
                tk.ActivationDecoding(llama.model, layer=layer)  # type: ignore[arg-type]
        assert tk.ActivationDecoding(llama.model, layer=-1).prompt_exits == (PromptExit(3, norm=False),)

    def test_logits_that_are_not_what_the_head_gives(self) -> None:
        model, made, logits = tiny("llama"), torch.randn(1, 2, 128), torch.randn(1, 2, 128)
        with pytest.raises(tk.ModelError, match=r"not possible in Llama.*head's output is neither a factor nor a soft"):
            behind_head(model, made, logits)
        assert torch.allclose(behind_head(model, made, -0.5 * made)(logits), -0.5 * logits)

    def test_nothing_is_asked_of_models_without(self) -> None:
        """No blocks are looked for where no decoder wants exits."""
        assert not PromptExits(object(), ())
