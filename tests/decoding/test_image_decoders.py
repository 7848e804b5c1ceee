"""Every kind of view on every image-text family, every decoder on some.

The oracle (`image_cases.py`): one plain forward per view and row, alone, from what the family's own processor makes of
the row's text and of the view's images; Hugging Face's own `generate` decodes from the combined logits.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch

from tests.decoding.image_cases import CASES, KINDS, MODES, Bench, image_bench
from tests.tiny_vlm import FAMILIES

NEW = 4


def decode(model: Any, inputs: dict[str, torch.Tensor], **options: Any) -> Any:
    torch.manual_seed(0)
    return model.generate(
        **inputs, **{"max_new_tokens": NEW, "return_dict_in_generate": True, "output_logits": True, **options}
    )


def want(bench: Bench, name: str, batch: int, likely: torch.Tensor, **options: Any) -> Any:
    """What the oracle decodes; `likely` are the sequences that it may well choose."""
    inputs, oracle = bench.inputs(batch), bench.oracle(CASES[name])
    oracle.prepare_likely(likely, inputs["attention_mask"])
    return decode(oracle, {key: inputs[key] for key in ("input_ids", "attention_mask")}, **options)


def assert_same(got: Any, expected: Any) -> None:
    """The same tokens, and combined logits within 1e-4 that are ruled out alike."""
    assert got.sequences.tolist() == expected.sequences.tolist()
    torch.testing.assert_close(torch.stack(got.logits), torch.stack(expected.logits), atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module", params=FAMILIES)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return image_bench(request.param, tmp_path_factory.mktemp("adapter"))


def check(bench: Bench, name: str, mode: str, batch: int, **options: Any) -> None:
    with CASES[name].attached(bench, batch) as decoder:
        got = decode(bench.model, bench.inputs(batch), **MODES[mode], **options)
        if name == "ritual-plus":
            assert decoder.replies == [bench.reply(row) for row in bench.rows[:batch]]
    assert_same(got, want(bench, name, batch, got.sequences, **MODES[mode]))


CACHES: dict[str, dict[str, Any]] = {
    "dynamic": {},
    "static": {"cache_implementation": "static"},
    "none": {"use_cache": False},
}
_TURNS = [(1, "beams"), (3, "sampling"), (3, "greedy"), (3, "beams"), (1, "sampling"), (1, "greedy")]
_WHOLE = ("llava", "qwen2_vl", "gemma3")
"""Families that meet every kind of view as a padded batch by greedy search, and otherwise."""


_OTHERS = [name for name in CASES if name not in KINDS]
_THREE_FAMILIES = [
    (FAMILIES[(2 * i + 4 * j) % len(FAMILIES)], name) for i, name in enumerate(_OTHERS) for j in range(3)
]


class TestEveryFamily:
    """Same tokens and same combined logits as the oracle."""

    def check(self, bench: Bench, name: str) -> None:
        """Modes, batches and caches take turns; `test_all_modes` has all."""
        if bench.tiny.family in _WHOLE:
            check(bench, name, "greedy", 3)
        turn = FAMILIES.index(bench.tiny.family) + list(CASES).index(name)
        batch, mode = _TURNS[turn % 6]
        check(bench, name, mode, batch, **list(CACHES.values())[turn // 2 % 3])

    @pytest.mark.parametrize("name", KINDS)
    def test_every_kind_of_view(self, bench: Bench, name: str) -> None:
        self.check(bench, name)

    @pytest.mark.parametrize(("bench", "name"), _THREE_FAMILIES, indirect=["bench"])
    def test_every_method(self, bench: Bench, name: str) -> None:
        self.check(bench, name)

    @pytest.mark.slow
    def test_all_modes(self, bench: Bench) -> None:
        """The caches take turns."""
        for turn, (name, mode, batch) in enumerate(product(CASES, MODES, (1, 3))):
            check(bench, name, mode, batch, **list(CACHES.values())[turn % 3])
