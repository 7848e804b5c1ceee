"""Every decoder on every image-text family.

The oracle (`image_cases.py`): one plain forward per view and row, alone, from what the family's own processor makes of
the row's text and of the view's images; Hugging Face's own `generate` decodes from the combined logits.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch

from tests.decoding.image_cases import CASES, MODES, Bench, image_bench
from tests.tiny_vlm import FAMILIES

NEW = 4


def decode(model: Any, inputs: dict[str, torch.Tensor], **options: Any) -> Any:
    torch.manual_seed(0)
    return model.generate(
        **inputs, **{"max_new_tokens": NEW, "return_dict_in_generate": True, "output_logits": True, **options}
    )


def want(bench: Bench, name: str, batch: int, likely: torch.Tensor, **options: Any) -> Any:
    """What the oracle decodes. The `likely` sequences cost one forward each, all others one per token."""
    inputs = bench.inputs(batch)
    oracle, width = bench.oracle(CASES[name]), inputs["input_ids"].shape[1]
    copies = len(likely) // batch
    for i, sequence in enumerate(likely):
        kept = inputs["attention_mask"][i // copies].bool()
        oracle.prepare(sequence[:width][kept].tolist(), sequence[width:].tolist())
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
_TURNS = [(1, "beams"), (3, "sampling"), (3, "beams"), (1, "sampling"), (1, "greedy")]


@pytest.mark.parametrize("name", CASES)
class TestEveryFamily:
    """Same tokens and same combined logits as the oracle."""

    def test_padded_batch(self, bench: Bench, name: str) -> None:
        check(bench, name, "greedy", 3)

    def test_other_modes(self, bench: Bench, name: str) -> None:
        """They take turns; `test_all_modes` has all."""
        turn = 3 * FAMILIES.index(bench.tiny.family) + list(CASES).index(name)
        batch, mode = _TURNS[turn % 5]
        check(bench, name, mode, batch, **list(CACHES.values())[turn % 3])

    @pytest.mark.slow
    def test_all_modes(self, bench: Bench, name: str) -> None:
        """The caches take turns."""
        for turn, (mode, batch) in enumerate(product(MODES, (1, 3)), start=list(CASES).index(name)):
            check(bench, name, mode, batch, **list(CACHES.values())[turn % 3])
