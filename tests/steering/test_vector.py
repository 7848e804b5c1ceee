"""Arithmetic, the file, and the match with a model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import truthkit as tk
from tests.tiny import tiny
from truthkit.steering.fit import model_id
from truthkit.steering.stacked import stacked
from truthkit.steering.vector import SteeringVector


def vector(*layers: int, seed: int = 0, **options: Any) -> SteeringVector:
    generator = torch.Generator().manual_seed(seed)
    return SteeringVector({layer: torch.randn(48, generator=generator) for layer in layers}, 4, **options)


def test_access() -> None:
    v = vector(3, 0)
    assert v.layers == (0, 3)
    assert list(v) == [0, 3]
    assert len(v) == 2
    assert v[0].shape == (48,)
    assert v[0].dtype == torch.float32
    assert torch.equal(v[-1], v[3])
    assert v.at(-1).layers == (3,)
    assert v.at([0]).layers == (0,)
    assert repr(v) == "SteeringVector(2 layers (0-3 of 4), 48 features, 'block')"
    for layer in (1, -2, 4, -5):
        with pytest.raises(tk.ArgumentError, match="it has \\[0, 3\\]"):
            _ = v[layer]


def test_arithmetic() -> None:
    v, w = vector(0, 1), vector(1, 2, seed=1)
    total = v + w
    assert total.layers == (0, 1, 2)
    assert torch.equal(total[1], v[1] + w[1])
    assert torch.equal((v - w)[2], -w[2])
    assert torch.equal((2 * v)[0], (v * 2)[0])
    assert torch.allclose((v / 4)[0], v[0] / 4)
    assert v.norms()[0] == pytest.approx(float(v[0].norm()))
    assert v.normalised()[1].norm() == pytest.approx(1.0)
    assert total.provenance["history"] == ["sum with another vector"]
    assert v.provenance == {}


def test_random_directions_are_as_long() -> None:
    v = vector(0, 3)
    one, again, other = v.random_like(0), v.random_like(0), v.random_like(1)
    assert one.norms() == pytest.approx(v.norms(), rel=1e-5)
    assert torch.equal(one[3], again[3])
    assert abs(one.cosine(other)[0]) < 0.99


def test_angles_and_orthogonalisation() -> None:
    v, w = vector(0, 1), vector(1, 2, seed=1)
    cosine = float(v[1] @ w[1] / v[1].norm() / w[1].norm())
    assert v.cosine(w) == pytest.approx({1: cosine}, rel=1e-5)
    assert v.leakage(w) == pytest.approx({1: cosine**2}, rel=1e-5)
    rest = v.orthogonalise(w)
    assert abs(rest.cosine(w)[1]) < 1e-6
    assert torch.equal(rest[0], v[0])
    torch.testing.assert_close(rest[1] + v.project(w)[1], v[1])


def test_what_cannot_be_combined() -> None:
    v = vector(0)
    with pytest.raises(tk.ArgumentError, match="different spaces"):
        _ = v + SteeringVector({0: torch.ones(47)}, 4)
    with pytest.raises(tk.ArgumentError, match="different spaces"):
        _ = v + vector(0, site="mlp")
    with pytest.raises(tk.ArgumentError, match="share no layer"):
        v.cosine(vector(1))
    with pytest.raises(tk.ArgumentError, match="different spaces"):
        stacked([v, None, vector(0, site="mlp")])
    with pytest.raises(tk.ArgumentError, match="no vector was given"):
        stacked([None])


@pytest.mark.parametrize(
    ("directions", "message"),
    [
        ({}, "at least one layer"),
        ({4: torch.ones(3)}, "layer 4 does not exist"),
        ({0: torch.ones(3), 1: torch.ones(2)}, "differ in shape"),
        ({0: torch.tensor([1.0, math.nan])}, "finite"),
        ({0: torch.ones(2, 2)}, "finite"),
    ],
)
def test_bad_directions(directions: Any, message: str) -> None:
    with pytest.raises(tk.ArgumentError, match=message):
        SteeringVector(directions, 4)


def test_the_file_keeps_everything(tmp_path: Path) -> None:
    v = vector(1, 3, site="mlp", provenance={"model": {"id": "a/b"}, "scores": {"1": {"auc": 0.75}}})
    v.save(tmp_path / "v.safetensors")
    again = tk.SteeringVector.load(tmp_path / "v.safetensors")
    assert (again.layers, again.layer_count, again.site) == ((1, 3), 4, "mlp")
    assert again.provenance == v.provenance
    assert all(torch.equal(again[layer], v[layer]) for layer in v)
    assert again.best_layer() == 1
    assert [file.name for file in tmp_path.iterdir()] == ["v.safetensors"]
    assert set(load_file(tmp_path / "v.safetensors")) == {"mlp.1", "mlp.3"}


def test_truncated_tampered_and_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    vector(1, provenance={"method": "mean"}).save(path)
    whole = path.read_bytes()
    with pytest.raises(tk.NotAvailableError, match="no such file"):
        SteeringVector.load(tmp_path / "other.safetensors")
    for broken in (whole[:-7], whole[:20], b""):
        path.write_bytes(broken)
        with pytest.raises(tk.ArgumentError, match="cut short"):
            SteeringVector.load(path)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(tk.ArgumentError, match="changed after it was written"):
        SteeringVector.load(path)
    path.write_bytes(whole.replace(b"mean", b"mood"))
    with pytest.raises(tk.ArgumentError, match="changed after it was written"):
        SteeringVector.load(path)
    save_file({"x": torch.ones(2)}, path)
    with pytest.raises(tk.ArgumentError, match="not a steering vector"):
        SteeringVector.load(path)
    save_file({"x": torch.ones(2)}, path, metadata={"truthkit": json.dumps({"format": 2, "site": "block"})})
    with pytest.raises(tk.ArgumentError, match="not a steering vector"):
        SteeringVector.load(path)


def test_a_vector_for_another_model(tmp_path: Path) -> None:
    model = tiny("llama")
    v = vector(1, provenance={"model": {"id": "org/trained"}})
    v.save(tmp_path / "v.safetensors")
    assert SteeringVector.load(tmp_path / "v.safetensors", model=model)[1].shape == (48,)
    model.config._name_or_path = "org/other"
    with pytest.raises(tk.ModelError, match=r"'org/trained', but this model is 'org/other'.*allow_other_model=True"):
        SteeringVector.load(tmp_path / "v.safetensors", model=model)
    with pytest.raises(tk.ModelError, match="allow_other_model"):
        v.steer(model)
    with v.steer(model, allow_other_model=True):
        pass
    for other in (tiny("llama", num_hidden_layers=3), tiny("llama", hidden_size=24)):
        with pytest.raises(tk.ModelError, match="4 decoder blocks with 48 features"):
            v.steer(other, allow_other_model=True)


def test_model_ids_hold_no_path() -> None:
    model = tiny("llama")
    for name, expected in [("org/name", "org/name"), ("/home/me/models/name", "name"), ("./name/", "name"), ("", "")]:
        model.config._name_or_path = name
        assert model_id(model) == expected


def test_best_layer_needs_scores() -> None:
    with pytest.raises(tk.ArgumentError, match="no held-out scores"):
        vector(1).best_layer()
