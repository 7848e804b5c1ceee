"""A decoder as an entry of `logits_processor=[...]`, for prompts with images.

The oracle is that of test_image_decoders.py; its scores are normalised, as the processor's are.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch

from tests.decoding.image_cases import CASES, MODES, Bench, image_bench
from tests.decoding.test_image_decoders import CACHES, decode, want
from tests.tiny_vlm import FAMILIES

_TURNS = [(1, "greedy"), (3, "beams"), (1, "sampling"), (3, "greedy"), (1, "beams"), (3, "sampling")]
_FAMILIES = [family for family in FAMILIES if family != "instructblip"]
_OTHERS = ("ritual-list", "ritual-plus", "vcd-strong", "ritual+vcd", "ritual+m3id", "dola", "cad")
_TWO_FAMILIES = [(_FAMILIES[(3 * i + 5 * j) % len(_FAMILIES)], name) for i, name in enumerate(_OTHERS) for j in (0, 1)]


@pytest.fixture(scope="module", params=_FAMILIES)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return image_bench(request.param, tmp_path_factory.mktemp("adapter"))


def check(bench: Bench, name: str, mode: str, batch: int, **options: Any) -> None:
    processor = CASES[name].processor(bench, batch)
    options = {"output_scores": True, **options}
    got = decode(bench.model, bench.inputs(batch), logits_processor=[processor], **MODES[mode], **options)
    expected = want(bench, name, batch, got.sequences, output_scores=True, **MODES[mode])
    assert got.sequences.tolist() == expected.sequences.tolist()
    if mode == "greedy":
        scores = torch.stack(expected.scores).log_softmax(dim=-1)
        torch.testing.assert_close(torch.stack(got.scores), scores, atol=1e-4, rtol=1e-4)
    elif mode == "beams":
        torch.testing.assert_close(got.sequences_scores, expected.sequences_scores, atol=1e-4, rtol=1e-4)


class TestEveryFamily:
    """Same tokens as the oracle, and the same scores."""

    def check(self, bench: Bench, name: str) -> None:
        """Modes and batches take turns, so that each meets every kind of view; `test_all_modes` has all."""
        turn = FAMILIES.index(bench.tiny.family) + list(CASES).index(name)
        batch, mode = _TURNS[turn % 6]
        check(bench, name, mode, batch, **list(CACHES.values())[turn % 3])

    @pytest.mark.parametrize("name", ["ritual", "vcd", "m3id", "icd-prompt", "icd-adapter"])
    def test_every_kind_of_view(self, bench: Bench, name: str) -> None:
        self.check(bench, name)

    @pytest.mark.parametrize(("bench", "name"), _TWO_FAMILIES, indirect=["bench"])
    def test_every_method(self, bench: Bench, name: str) -> None:
        self.check(bench, name)

    @pytest.mark.slow
    def test_all_modes(self, bench: Bench) -> None:
        for name, mode, batch in product(CASES, MODES, (1, 3)):
            check(bench, name, mode, batch)


@pytest.mark.parametrize("given", [False, True])
def test_m3id_on_instructblip(given: bool, tmp_path: Any) -> None:
    """Its view has no image, so the Q-Former is not needed. Padding stands between image and text."""
    bench = image_bench("instructblip", tmp_path)
    mask = bench.inputs(3)["attention_mask"] if given else None
    processor = CASES["m3id"].processor(bench, 3, mask)
    got = decode(bench.model, bench.inputs(3), logits_processor=[processor])
    assert got.sequences.tolist() == want(bench, "m3id", 3, got.sequences).sequences.tolist()
