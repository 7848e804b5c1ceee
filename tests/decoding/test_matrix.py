"""Every method that adds no view of its own kind, over 24 tokens in a table of modes, batches and caches.

The oracles are those of test_decoders.py and test_image_decoders.py: plain forwards and the formula, row by row. The
fast tests take one place of the table for half of the methods of a model, the slow ones all, also on the real model.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch

from tests.decoding import image_cases, test_decoders, test_image_decoders
from tests.decoding.cases import CASES, MODES, tiny_bench
from tests.decoding.image_cases import OF_TEXT, image_bench

STEPS = 24
FAMILIES = ["llama", "qwen2", "gemma2", "gpt2"]
METHODS = [
    "sled",
    "deco",
    "adacad",
    "coiecd",
    "coiecd-paper",
    "agreement-js",
    "agreement-l1",
    "top-n-sigma",
    "entropy-gate",
    "activation",
]
PLACES = list(product(("greedy", "sampling", "beams"), (1, 4), ({}, {"cache_implementation": "static"})))
"""Mode, batch size (4 rows are padded on the left) and cache."""


def check_text(bench: Any, name: str, mode: str, batch: int, cache: dict[str, Any]) -> None:
    inputs, options = bench.rows(batch), {"max_new_tokens": STEPS, **MODES[mode]}
    with CASES[name].attached(bench, batch):
        got = test_decoders.decode(bench.model, inputs, **options, **cache)
    expected = test_decoders.want(bench, name, inputs, got.sequences, **options)
    test_decoders.assert_same(got, expected, bench.tolerance)


def check_images(bench: Any, name: str, mode: str, batch: int, cache: dict[str, Any]) -> None:
    case, inputs, options = OF_TEXT[name], bench.inputs(batch), {"max_new_tokens": STEPS, **image_cases.MODES[mode]}
    with case.attached(bench, batch):
        got = test_image_decoders.decode(bench.model, inputs, **options, **cache)
    oracle = bench.oracle(case)
    oracle.prepare_likely(got.sequences, inputs["attention_mask"])
    asked = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    test_image_decoders.assert_same(got, test_image_decoders.decode(oracle, asked, **options))


@pytest.fixture(scope="module", params=FAMILIES)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    dtype = test_decoders.exact(request.param)
    return tiny_bench(request.param, tmp_path_factory.mktemp("adapter"), dtype=dtype)


@pytest.fixture(scope="module", params=["llava", "qwen2_vl"])
def images(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return image_bench(request.param, tmp_path_factory.mktemp("adapter"), dtype=torch.float64)


def turns() -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Places that take turns; beams, for which an oracle has most to do, for one row."""
    return iter([place for place in PLACES if place[:2] != ("beams", 4)] * len(METHODS))


class TestText:
    def test_a_place_each(self, bench: Any) -> None:
        half = METHODS[FAMILIES.index(bench.model.config.model_type) % 2 :: 2]
        for name, place in zip(half, turns(), strict=False):
            check_text(bench, name, *place)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", METHODS)
    def test_all_places(self, bench: Any, name: str) -> None:
        for place in PLACES:
            check_text(bench, name, *place)


class TestImages:
    def test_a_place_each(self, images: Any) -> None:
        for name, place in zip(OF_TEXT, turns(), strict=False):
            check_images(images, name, *place)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", OF_TEXT)
    def test_all_places(self, images: Any, name: str) -> None:
        for mode, batch, cache in PLACES:
            check_images(images, name, mode, min(batch, 3), cache)
