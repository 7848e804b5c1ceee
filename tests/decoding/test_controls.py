"""The controls of every method; the values are worked out from its formula by hand."""

from __future__ import annotations

from typing import Any

import pytest

import truthkit as tk
from tests.tiny_vlm import picture, tiny_vlm
from truthkit.decoding.discovery import decoder_class
from truthkit.decoding.engine.controls import Control, combined
from truthkit.decoding.spec import parse_spec

GREEDY, SAMPLING = Control("greedy", "greedy"), Control("sampling", "greedy", sample=True)


def cooler(by: float) -> Control:
    return Control("sampling-cooler", "greedy", sample=True, cooler=by)


def constraint(beta: float) -> Control:
    return Control("constraint-alone", f"apc:beta={beta}", sample=True)


@pytest.mark.parametrize(
    ("spec", "more"),
    [
        ("icd", [constraint(0.1)]),
        ("icd:beta=0", []),
        ("icd:lam=3,beta=0.25", [constraint(0.25)]),
        ("lol", [constraint(0.1)]),
        ("dola:beta=0.00001", [constraint(0.00001)]),
        ("cad", [cooler(1.5)]),
        ("cad:alpha=1,beta=0.2", [cooler(2.0), constraint(0.2)]),
        ("cad:alpha=0", []),
        ("adacad:theta=1", [cooler(2.0)]),
        ("coiecd:alpha=0.5", [cooler(1.5)]),
        ("sled", []),
        ("activation_decoding", [constraint(0.1)]),
        ("activation_decoding:alpha=1,beta=0", []),
        ("deco", [cooler(1.6)]),
        ("exits_mean", []),
        ("exits_mean:beta=0.1", [constraint(0.1)]),
        ("agreement", [cooler(5.0), constraint(0.1)]),
        ("top_n_sigma", []),
        ("entropy_gate", []),
        ("apc", []),
        ("apc:beta=0.5", []),
        ("ritual", [cooler(4.0), constraint(0.1)]),
        ("ritual:alpha=-0.5", [constraint(0.1)]),
        ("ritual_plus:alpha=1,beta=0", [cooler(2.0)]),
        ("vcd", [cooler(2.0), constraint(0.1)]),
        ("m3id", [constraint(0.1)]),
        ("pai", [cooler(1.1), constraint(0.1)]),
        ("sid", [cooler(2.0), constraint(0.1)]),
        ("avisc:alpha=0.5,beta=0", [cooler(1.5)]),
        ("contrastive_search", []),
        ("contrastive_search:top_k=8", []),
        ("opera:threshold=25", []),
    ],
)
def test_of_one(spec: str, more: list[Control]) -> None:
    known = parse_spec(spec)
    decoder: Any = decoder_class(known.name)
    assert decoder.controls(**known.options) == (GREEDY, SAMPLING, *more)
    for control in decoder.controls(**known.options):
        parse_spec(control.decoder)


def test_of_a_sum() -> None:
    """l + 1 · l(T) + 2 · (l − l(noise)) is 4 · l where no view changes anything: (2 − 1) + (3 − 1) + 1."""
    tiny = tiny_vlm("llava")
    ritual = tk.RITUAL(tiny.model, tiny.processor, images=picture(20, 20, 1), alpha=1, beta=0.3)
    vcd = tk.VCD(tiny.model, alpha=2, beta=0.5)
    both: Any = ritual + vcd
    expected = (GREEDY, SAMPLING, cooler(4.0), constraint(0.5))
    assert tk.Together.controls(decoders=both.decoders) == expected
    assert combined([tk.VCD.controls(alpha=2, beta=0.5), tk.RITUAL.controls(alpha=1, beta=0.3)]) == expected
    assert combined([tk.ICD.controls(beta=0), tk.DoLa.controls(beta=0)]) == (GREEDY, SAMPLING)


def test_others_are_kept() -> None:
    """A method of one's own may name more."""
    mine = Control("my-prompt", "icd:lam=0")
    assert combined([(*tk.APC.controls(), mine), tk.DoLa.controls()]) == (GREEDY, SAMPLING, constraint(0.1), mine)
