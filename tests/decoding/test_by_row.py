"""Strengths of each row's own: every prompt of a batch as its own decoder answers it alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import truthkit as tk
from tests.decoding.cases import Bench, tiny_bench
from tests.decoding.image_cases import Bench as ImageBench
from tests.decoding.image_cases import image_bench
from truthkit.decoding.discovery import decoder_class, decoders
from truthkit.decoding.engine.by_row import ByRow
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.spec import parse_spec
from truthkit.text.tokens import padded

OTHER = {
    "activation_decoding": {"alpha": 2.0},
    "adacad": {"theta": 1.5},
    "agreement": {"agree": 0.5, "differ": 3.0, "threshold": 0.001},
    "apc": {"beta": 0.9},
    "avisc": {"alpha": 3.0},
    "cad": {"alpha": 3.0},
    "coiecd": {"alpha": 3.0},
    "deco": {"alpha": 3.0, "top_p": 0.5, "top_k": 7},
    "dola": {"beta": 0.0},
    "entropy_gate": {"threshold": 100.0},
    "exits_mean": {"beta": 0.9},
    "icd": {"lam": 0.2},
    "lol": {"lam": 0.2},
    "m3id": {"decay": 0.5},
    "pai": {"gamma": 3.0},
    "ritual": {"alpha": 0.3, "beta": 0.0},
    "ritual_plus": {"alpha": 0.3, "beta": 0.0},
    "sid": {"alpha": 3.0},
    "sled": {"evolution_rate": 9.0, "evolution_scale": 3, "steps": 2},
    "top_n_sigma": {"n": 0.2},
    "vcd": {"alpha": 3.0},
    "vista": {"beta": 0.9},
}
"""Of each decoder with strengths, some that are not its defaults."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench("llama", tmp_path_factory.mktemp("adapter"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageBench:
    return image_bench("llava", tmp_path_factory.mktemp("adapter"))


def scores(model: Any, decoder: Decoder, inputs: dict[str, Any]) -> list[torch.Tensor]:
    """What every step was chosen from."""
    with decoder:
        made = model.generate(
            **inputs, max_new_tokens=3, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
    return list(made.logits)


def test_all_with_strengths_are_tried() -> None:
    classes = {name: decoder_class(name) for name in decoders()}
    known = {
        name: one.strengths & decoders()[name].parameters.keys()
        for name, one in classes.items()
        if issubclass(one, Decoder)
    }
    assert {name for name, strengths in known.items() if strengths} == OTHER.keys()
    for name, options in OTHER.items():
        assert options.keys() <= classes[name].strengths


@pytest.mark.parametrize("name", OTHER)
def test_each_row_is_as_its_own_decoder_has_it(name: str, bench: Bench, images: ImageBench) -> None:
    """Against one decoder for the whole batch, whose other rows are not looked at."""
    seeing = decoder_class(name).sees_images or name in ("agreement", "m3id")
    here: Any = images if seeing else bench
    model, processor = here.model, images.tiny.processor if seeing else bench.tokenizer
    inputs = images.inputs(2) if seeing else bench.rows(2)
    supplied: dict[str, Any] = {"images": images.images(2)} if seeing else {}
    if parse_spec(name).takes("context"):
        texts = ["It was so. Why was it?", "Long ago it was otherwise. And now?"]
        ids, mask = padded([bench.tokenizer(text).input_ids for text in texts], pad=0)
        inputs, supplied = {"input_ids": ids, "attention_mask": mask}, {"context": ["It was so. ", "Long ago "]}
    built: list[Any] = [parse_spec(name).build(model, processor, **supplied | options) for options in ({}, OTHER[name])]
    usual, other = (torch.stack(scores(model, one, inputs)) for one in built)
    mixed = torch.stack(scores(model, ByRow(built), inputs))
    torch.testing.assert_close(mixed, torch.stack([usual[:, 0], other[:, 1]], dim=1))
    assert not torch.equal(usual[:, 1], other[:, 1])


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_return_sequences": 2, "num_beams": 2}])
def test_answers_in_every_mode(bench: Bench, options: dict[str, int]) -> None:
    texts = ["It was so. Why was it?", "Long ago it was otherwise. And now?", "It was so. Is it?"]
    passages = ["It was so. ", "Long ago ", "It was so. "]
    rows = [bench.tokenizer(text).input_ids for text in texts]
    alphas, expected = (0.5, 4.0, 0.5), []
    for row, passage, alpha in zip(rows, passages, alphas, strict=True):
        with tk.CAD(bench.model, bench.tokenizer, context=passage, alpha=alpha):
            made = bench.model.generate(torch.tensor([row]), max_new_tokens=8, do_sample=False, **options)
        expected += made[:, len(row) :].tolist()
    ids, mask = padded(rows, pad=0)
    built = {alpha: tk.CAD(bench.model, bench.tokenizer, context=passages, alpha=alpha) for alpha in alphas}
    with ByRow([built[alpha] for alpha in alphas]):
        made = bench.model.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False, **options)
    assert made[:, ids.shape[1] :].tolist() == expected


def test_what_is_no_strength_is_refused(bench: Bench) -> None:
    low, high = tk.DoLa(bench.model, layers="low"), tk.DoLa(bench.model, layers="high")
    for decoders_, found in (
        ([], "empty"),
        ([low, high], "no difference but in beta"),
        ([low, tk.APC(bench.model)], "one class"),
    ):
        with pytest.raises(tk.ArgumentError, match=found):
            ByRow(decoders_)
    with pytest.raises(tk.ArgumentError, match="3 rows for 2 decoders"), ByRow([low, low]):
        bench.model.generate(**bench.rows(3), max_new_tokens=2)
