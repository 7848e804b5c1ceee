"""Steering and positions as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.each import each
from tests.tiny import padded_batch, tiny
from truthkit.activations.positions import Role, Text
from truthkit.steering.conditions import Cosine, Entropy
from truthkit.steering.spec import parse_layers, parse_positions, parse_steer
from truthkit.steering.vector import SteeringVector


@each(
    ("text", "expected"),
    [("10", [10]), ("10+12+-1", [10, 12, -1]), ("2-4", [2, 3, 4]), ("0-1+7", [0, 1, 7])],
)
def test_layers(text: str, expected: list[int]) -> None:
    assert parse_layers(text) == expected


@each("text", ["", "a", "1,2", "4-2", "1.5", "0-99999999999", "9" * 5000])
def test_bad_layers(text: str) -> None:
    with pytest.raises(tk.ArgumentError, match="layers is"):
        parse_layers(text)


@each(
    ("text", "expected"),
    [
        ("last", "last"),
        ("-2", -2),
        ("3:10", slice(3, 10)),
        (":-1", slice(None, -1)),
        ("role:user", Role("user")),
        ("text:1 + 1: two", Text("1 + 1: two")),
        ("last+0+role:system", ("last", 0, Role("system"))),
        ("last+text:a+b", ("last", Text("a+b"))),
    ],
)
def test_positions(text: str, expected: Any) -> None:
    assert parse_positions(text) == expected


@each("text", ["", "lats", "last+nope", "1.5"])
def test_bad_positions(text: str) -> None:
    with pytest.raises(tk.ArgumentError, match="positions"):
        parse_positions(text)


def test_steer() -> None:
    plain = parse_steer("dir/v.safetensors")
    assert (plain.path, plain.strength, plain.options) == ("dir/v.safetensors", None, {})
    assert parse_steer("v.gguf:-1.5").strength == -1.5
    full = parse_steer("C:/v.safetensors:2,layers=1+2,positions=last+generated,mode=add,keep_norm=true")
    assert (full.path, full.strength) == ("C:/v.safetensors", 2.0)
    assert full.options == {"layers": [1, 2], "positions": ("last", "generated"), "mode": "add", "keep_norm": True}
    assert parse_steer("v.safetensors:layers=3").options == {"layers": [3]}


@each(
    ("text", "message"),
    [
        ("v.safetensors:much", "strength 'much'"),
        ("v.safetensors:1,layer=3", "the options are layers, positions"),
        ("v.safetensors:1,keep_norm=yes", "keep_norm=yes"),
        ("v.safetensors:1,mode=ad", "mode is 'ad'"),
        ("v.safetensors:1,where=cosine", "where is 'cosine'; expected for example cosine>0.1"),
        ("v.safetensors:1,where=sine>0.1", "the conditions are cosine, last, mean, entropy"),
        ("v.safetensors:1,where=entropy@3>0.1", "where is 'entropy@3>0.1'"),
        ("v.safetensors:1,where=cosine>", "where is"),
        ("v.safetensors:1,where=cosine>high", "where is"),
    ],
)
def test_bad_steer(text: str, message: str) -> None:
    with pytest.raises(tk.ArgumentError, match=message):
        parse_steer(text)


def test_a_spec_steers_as_the_vector_does(tmp_path: Path) -> None:
    model, batch = tiny("llama"), padded_batch(6)
    vector = SteeringVector(
        {1: 3 * torch.randn(48), 2: torch.randn(48)}, 4, provenance={"selection": {"strength": 2.0}}
    )
    vector.save(tmp_path / "v.safetensors")

    def tokens(steering: Any) -> list[list[int]]:
        with steering:
            return model.generate(**batch, max_new_tokens=6, do_sample=False).tolist()

    path = str(tmp_path / "v.safetensors")
    assert tokens(parse_steer(path).build(model)) == tokens(vector.steer(model, strength=2.0))
    assert tokens(parse_steer(f"{path}:1,layers=1").build(model)) == tokens(vector.steer(model, layers=1))
    written = parse_steer(f"{path}:1,layers=all,where=cosine>-0.05+mean({path})@1<0.2+entropy>1e-1")
    where = (Cosine(vector, above=-0.05), Cosine(vector, below=0.2, of="mean", layer=1), Entropy(above=0.1))
    assert tokens(written.build(model)) == tokens(vector.steer(model, layers="all", where=where))
    turned = parse_steer(f"{path}:1.2,layers=1,mode=angle")
    assert tokens(turned.build(model)) == tokens(vector.steer(model, layers=1, mode="angle", strength=1.2))
    with pytest.raises(tk.ArgumentError, match=r"above is 2.0 in Cosine"):
        parse_steer(f"{path}:1,where=cosine>2").build(model)
    with pytest.raises(tk.NotAvailableError):
        parse_steer("none.safetensors").build(model)
