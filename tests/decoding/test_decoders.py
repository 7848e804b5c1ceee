"""Every kind of view on every architecture, in every mode of `generate`; every decoder on some.

The oracle (`oracle.py`): one forward per view and row, alone, without cache, hooks or padding, combined by the
formulas written a second time; Hugging Face's own `generate` decodes from its logits.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.decoding.cases import CACHES, CASES, KINDS, LIE, MODES, Bench, tiny_bench
from tests.tiny import FAMILIES, padded_batch, tiny

NEW = 5


def decode(model: Any, inputs: dict[str, torch.Tensor], **options: Any) -> Any:
    torch.manual_seed(0)
    return model.generate(
        **inputs, **{"max_new_tokens": NEW, "return_dict_in_generate": True, "output_logits": True, **options}
    )


def assert_same(got: Any, want: Any, tolerance: float) -> None:
    """The same tokens, and combined logits that are equal within `tolerance` and ruled out alike."""
    assert got.sequences.tolist() == want.sequences.tolist()
    torch.testing.assert_close(torch.stack(got.logits), torch.stack(want.logits), atol=tolerance, rtol=tolerance)


def exact(family: str) -> torch.dtype:
    """float64, where no rounding decides between two tokens, except for models that cannot: float64 padding is NaN in
    the float32 softmax of eager attention, and Mixtral's experts have no float64 kernel."""
    return torch.float32 if family in {"gemma2", "mpt", "bloom", "mixtral"} else torch.float64


@pytest.fixture(scope="module", params=FAMILIES)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(request.param, tmp_path_factory.mktemp("adapter"), dtype=exact(request.param))


def want(bench: Bench, name: str, inputs: dict[str, torch.Tensor], likely: torch.Tensor, **options: Any) -> Any:
    """What the oracle decodes; `likely` are the sequences that it may well choose."""
    oracle = bench.oracle(CASES[name])
    oracle.prepare_likely(likely, inputs["attention_mask"])
    return decode(oracle, inputs, **options)


def check(bench: Bench, name: str, mode: str, batch: int, cache: str) -> None:
    inputs, case = bench.rows(batch), CASES[name]
    with case.attached(bench, batch):
        got = decode(bench.model, inputs, **MODES[mode], **CACHES[cache])
    assert_same(got, want(bench, name, inputs, got.sequences, **MODES[mode]), bench.tolerance)


def check_modes(bench: Bench, name: str, modes: Iterable[str]) -> None:
    """A padded batch in each of the modes; the caches take turns, differently for every family and case."""
    turn = FAMILIES.index(bench.model.config.model_type) + list(CASES).index(name)
    for i, mode in enumerate(modes, start=turn):
        check(bench, name, mode, 4, list(CACHES)[i % len(CACHES)])


METHODS = [name for name in CASES if name not in KINDS.values()]
_TWO_FAMILIES = [(FAMILIES[(3 * i + 5 * j) % len(FAMILIES)], name) for i, name in enumerate(METHODS) for j in range(2)]
_DRAWN = ("sampling", "several", "beam-sampling")
_WHOLE = ("llama", "gemma3_text")
"""Families that meet every kind of view in every mode; all families do in the slow test."""


class TestEveryFamily:
    """Same tokens and same logits as the oracle."""

    @pytest.mark.parametrize("name", KINDS.values(), ids=KINDS)
    def test_every_kind_of_view(self, bench: Bench, name: str) -> None:
        """In every mode on two families, on the others in one; and one prompt without padding."""
        turn = FAMILIES.index(bench.model.config.model_type) + list(KINDS.values()).index(name)
        few = (("beams", "greedy", *_DRAWN)[turn % 5],)
        check_modes(bench, name, MODES if bench.model.config.model_type in _WHOLE else few)
        check(bench, name, "greedy", 1, "static")

    @pytest.mark.parametrize(("bench", "name"), _TWO_FAMILIES, indirect=["bench"])
    def test_every_method(self, bench: Bench, name: str) -> None:
        """Greedy search, beams and one of the modes that draw."""
        check_modes(bench, name, ("greedy", "beams", _DRAWN[METHODS.index(name) % 3]))
        check(bench, name, "greedy", 1, "static")

    @pytest.mark.slow
    def test_every_method_on_every_family(self, bench: Bench) -> None:
        for name in METHODS:
            check_modes(bench, name, ("greedy", "beams"))

    @pytest.mark.slow
    @pytest.mark.parametrize("name", KINDS.values(), ids=KINDS)
    def test_all_combinations(self, bench: Bench, name: str) -> None:
        for mode, batch, cache in product(MODES, (1, 4), CACHES):
            check(bench, name, mode, batch, cache)


@pytest.mark.parametrize("name", ["icd-prompt", "lol-static", "lol-dynamic", "dola-no-norm", "cad"])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_float32_logits(family: str, name: str, tmp_path: Any) -> None:
    """The oracle in float32: combined logits within 1e-4 (1e-5 of the larger ones that unnormalised exits have)."""
    bench = tiny_bench(family, tmp_path)
    case, inputs = CASES[name], bench.rows(4)
    with case.attached(bench, 4):
        got = decode(bench.model, inputs)
    expected = want(bench, name, inputs, got.sequences)
    assert got.sequences.tolist() == expected.sequences.tolist()
    torch.testing.assert_close(torch.stack(got.logits), torch.stack(expected.logits), atol=1e-4, rtol=1e-5)


class TestVariants:
    """Architectural options that change what a decoder must do; the same oracle."""

    @pytest.mark.parametrize("name", ["icd-model-prompt", "lol-adapter-refocus", "dola-no-norm"])
    @pytest.mark.parametrize(
        ("family", "overrides"),
        [
            ("falcon", {"alibi": True}),
            ("gpt_neox", {"use_parallel_residual": False}),
            ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}),
            ("opt", {"do_layer_norm_before": False}),
            ("opt", {"word_embed_proj_dim": 32}),
            ("llama", {"tie_word_embeddings": True}),
            ("gemma2", {"final_logit_softcapping": 5.0}),
            ("gemma3_text", {"sliding_window": 4}),
        ],
    )
    def test_variant(self, family: str, overrides: dict[str, Any], name: str, tmp_path: Any) -> None:
        bench = tiny_bench(family, tmp_path, dtype=exact(family), **overrides)
        if "word_embed_proj_dim" in overrides and name == "lol-adapter-refocus":  # adapted between blocks and head
            with pytest.raises(tk.ModelError, match="which token is whose is unknown"):
                check(bench, name, "greedy", 4, "dynamic")
            return
        check(bench, name, "greedy", 4, "dynamic")
        check(bench, name, "beams", 4, "static")

    def test_amateur_of_another_depth(self, tmp_path: Any) -> None:
        """Exits of an amateur half as deep sit at the same relative depth: blocks 1 and 3 of 4 are blocks 0 and 1 of
        2."""
        bench = tiny_bench("llama", tmp_path, dtype=torch.float64)
        bench.layers = (1, 3)
        bench.other = tiny("llama", seed=1, dtype=torch.float64, num_hidden_layers=2)
        oracle = CASES["lol-model"].expected(bench)
        oracle.looks[1].layers = (0, 1)
        with CASES["lol-model"].attached(bench, 4):
            got = decode(bench.model, bench.rows(4))
        assert_same(got, decode(oracle, bench.rows(4)), bench.tolerance)

    def test_amateur_of_another_family(self, tmp_path: Any) -> None:
        """An amateur with learned positions gets those of its own rows, also beside a model that takes no position
        ids."""
        bench = tiny_bench("bloom", tmp_path)
        bench.other = tiny("gpt2")
        for name in ("icd-model", "icd-model-prompt"):
            check(bench, name, "greedy", 4, "dynamic")
            check(bench, name, "beams", 4, "none")


class TestIdentities:
    """One decoder is another where the formulas say so."""

    @pytest.fixture
    def bench(self, tmp_path: Any) -> Bench:
        return tiny_bench("llama", tmp_path)

    def test_lol_without_its_parts_is_icd_to_the_bit(self, bench: Bench) -> None:
        with tk.ICD(bench.model, bench.tokenizer, amateur=bench.adapter):
            icd = decode(bench.model, bench.rows(4))
        with tk.LOL(bench.model, bench.tokenizer, amateur=bench.adapter, lam=1, omega=0, gamma=0, refocus="be exact"):
            lol = decode(bench.model, bench.rows(4))
        assert torch.equal(torch.stack(icd.logits), torch.stack(lol.logits))

    @pytest.mark.parametrize(
        ("options", "mode"),
        [({"lam": 0, "beta": 0}, "greedy"), ({"lam": 0, "beta": 0}, "beams"), ({"beta": 1}, "greedy")],
    )
    def test_icd_that_cannot_change_the_choice_is_the_model(self, bench: Bench, options: Any, mode: str) -> None:
        """Without its amateur, or with one plausible token only."""
        plain = decode(bench.model, bench.rows(4), **MODES[mode])
        with tk.ICD(bench.model, bench.tokenizer, amateur=bench.adapter, **options):
            got = decode(bench.model, bench.rows(4), **MODES[mode])
        assert got.sequences.tolist() == plain.sequences.tolist()

    def test_cad_with_alpha_zero_is_the_model(self, bench: Bench) -> None:
        plain = decode(bench.model, bench.rows(4), **MODES["sampling"])
        with tk.CAD(bench.model, bench.tokenizer, context=bench.contexts, alpha=0):
            got = decode(bench.model, bench.rows(4), **MODES["sampling"])
        assert_same(got, plain, 1e-4)

    def test_main_rows_are_the_unmodified_model(self, bench: Bench) -> None:
        plain = decode(bench.model, bench.rows(4))
        seen = []
        with tk.ICD(bench.model, bench.tokenizer, amateur=bench.adapter, lam=0, beta=0) as decoder:
            decoder.observers.append(lambda views, _combined: seen.append(views[0].logits[:, -1]))
            decode(bench.model, bench.rows(4))
        torch.testing.assert_close(torch.stack(seen), torch.stack(plain.logits), atol=1e-4, rtol=1e-5)

    @pytest.mark.parametrize("name", [*KINDS.values(), "lol-dynamic", "cad"])
    def test_rows_do_not_depend_on_their_batch_mates(self, bench: Bench, name: str) -> None:
        """Alone and in a batch of another order (DoLa in transformers 4 chose one layer for the whole batch)."""
        case, inputs = CASES[name], bench.rows(4)
        with case.attached(bench, 4):
            together = decode(bench.model, inputs).sequences[0, -NEW:].tolist()
        with case.attached(bench, 1):
            alone = decode(bench.model, bench.rows(1)).sequences[0, -NEW:].tolist()
        assert together == alone

    def test_dola_picks_a_layer_for_each_row_and_position(self) -> None:
        model, inputs = tiny("llama"), padded_batch(8, 8, 8, 8)
        with tk.DoLa(model, layers=[0, 1, 2], beta=0) as decoder:
            chosen = []
            decoder.observers.append(
                lambda views, combined: chosen.append(
                    (views[0].logits.log_softmax(-1) - views[0].exits.log_softmax(-1) - combined)
                    .abs()
                    .amax(-1)
                    .argmin(0)
                )
            )
            model(**inputs)
        assert chosen[0].shape == (4, 8)
        assert len(chosen[0].unique()) > 1


class TestPrompts:
    """The instruction of a prompt view, at lengths that meet sliding windows and padding."""

    @pytest.mark.parametrize("family", ["mistral", "gemma3_text", "gpt2", "mpt"])
    @pytest.mark.parametrize("cache", CACHES)
    def test_instruction_longer_than_the_window(self, family: str, cache: str, tmp_path: Any) -> None:
        bench = tiny_bench(family, tmp_path, dtype=exact(family))
        case, long = CASES["icd-prompt"], LIE * 7
        oracle = case.expected(bench)
        oracle.looks[1].rewrite = bench.instructed(long)
        with tk.ICD(bench.model, bench.tokenizer, amateur_prompt=long, lam=0.7, beta=0.05):
            got = decode(bench.model, bench.rows(4), **CACHES[cache])
        oracle.prepare_likely(got.sequences, bench.rows(4)["attention_mask"])
        assert_same(got, decode(oracle, bench.rows(4)), bench.tolerance)
