"""Other tools' files: written, read back, and refused where they are not what they should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

import truthkit as tk
from tests.tiny import tiny
from truthkit.steering.formats import (
    from_gguf,
    from_lm_eval,
    from_numpy,
    read_vector,
    to_gguf,
    to_lm_eval,
    to_numpy,
)
from truthkit.steering.vector import SteeringVector


@pytest.fixture
def vector() -> SteeringVector:
    return SteeringVector({i: torch.randn(48) for i in (1, 3)}, 4, provenance={"model": {"type": "llama"}})


def same(a: SteeringVector, b: SteeringVector) -> bool:
    return a.layers == b.layers and all(torch.equal(a[layer], b[layer]) for layer in a)


def test_gguf(vector: SteeringVector, tmp_path: Path) -> None:
    """Oracle: the fields that llama.cpp's loader reads."""
    path = tmp_path / "v.gguf"
    to_gguf(vector, path)
    reader = gguf.GGUFReader(str(path))
    assert reader.get_field("general.architecture").contents() == "controlvector"
    assert reader.get_field("controlvector.model_hint").contents() == "llama"
    assert reader.get_field("controlvector.layer_count").contents() == 2
    named = {tensor.name: torch.tensor(tensor.data) for tensor in reader.tensors}
    assert set(named) == {"direction.1", "direction.3"}
    assert torch.equal(named["direction.3"], vector[3])
    again = from_gguf(path, layer_count=4)
    assert same(vector, again)
    assert again.layer_count == 4
    assert same(vector, read_vector(path))


def test_gguf_has_no_layer_0(tmp_path: Path) -> None:
    v = SteeringVector({0: torch.ones(3), 1: torch.ones(3)}, 4)
    with pytest.warns(UserWarning, match="no layer 0"):
        to_gguf(v, tmp_path / "v.gguf")
    assert from_gguf(tmp_path / "v.gguf").layers == (1,)
    with pytest.raises(tk.ArgumentError, match="layer 0 only"), pytest.warns(UserWarning, match="no layer 0"):
        to_gguf(v.at(0), tmp_path / "w.gguf")


def test_numpy(vector: SteeringVector, tmp_path: Path) -> None:
    to_numpy(vector, tmp_path / "v.npz")
    with np.load(tmp_path / "v.npz", allow_pickle=False) as arrays:
        assert set(arrays.files) == {"about", "layer_1", "layer_3"}
    again = read_vector(tmp_path / "v.npz")
    assert same(vector, again)
    assert again.provenance == vector.provenance


def test_lm_eval(vector: SteeringVector, tmp_path: Path) -> None:
    """Oracle: the harness' own rule, written out: find the module by name and add coefficient times vector to its
    output."""
    model, path = tiny("gpt2"), tmp_path / "v.pt"
    to_lm_eval(vector.at(3), path, model, strength=1.5)
    entries = torch.load(path, weights_only=True)
    ((name, entry),) = entries.items()
    assert (entry["action"], entry["bias"]) == ("add", None)
    module = dict(model.base_model.named_modules())[name]
    ids = torch.arange(2, 9)[None]

    def add(_module: Any, _args: Any, output: Any) -> Any:
        return output + entry["steering_coefficient"] * entry["steering_vector"]

    handle = module.register_forward_hook(add)
    with torch.no_grad():
        expected = model(input_ids=ids).logits
    handle.remove()
    with vector.steer(model, layers=3, strength=1.5), torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, expected)
    torch.testing.assert_close(from_lm_eval(path)[3], 1.5 * vector[3])
    with pytest.raises(tk.ArgumentError, match="choose a layer"):
        to_lm_eval(vector, path, model)


def test_only_block_vectors_leave(tmp_path: Path) -> None:
    v = SteeringVector({1: torch.ones(48)}, 4, "mlp")
    with pytest.raises(tk.ArgumentError, match="site 'mlp'"):
        to_gguf(v, tmp_path / "v.gguf")
    with pytest.raises(tk.ArgumentError, match="site 'mlp'"):
        to_lm_eval(v, tmp_path / "v.pt", tiny("llama"))


@pytest.mark.parametrize("name", ["v.gguf", "v.npz", "v.pt", "v.safetensors"])
def test_broken_files(name: str, tmp_path: Path) -> None:
    with pytest.raises(tk.NotAvailableError):
        read_vector(tmp_path / name)
    (tmp_path / name).write_bytes(b"not what it says")
    with pytest.raises(tk.ArgumentError, match=name):
        read_vector(tmp_path / name)


def test_unknown_endings(tmp_path: Path) -> None:
    with pytest.raises(tk.ArgumentError, match=r"ends in '\.txt'"):
        read_vector(tmp_path / "v.txt")


def test_pickles_are_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"layers.1": Evil()}, tmp_path / "v.pt")
    with pytest.raises(tk.ArgumentError, match="not a steering file"):
        from_lm_eval(tmp_path / "v.pt")
    np.savez(tmp_path / "v.npz", about=np.array([Evil()], dtype=object))
    with pytest.raises(tk.ArgumentError, match="not a vector"):
        from_numpy(tmp_path / "v.npz")
    assert not (tmp_path / "ran").exists()
