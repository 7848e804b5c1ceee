"""Vector files and steering texts that cannot be: one line each. What is quantised is read as gguf dequantises it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import truthkit as tk
from truthkit.files.tensors import tensors_sha256
from truthkit.steering.formats import read_vector
from truthkit.steering.spec import parse_layers, parse_positions, parse_steer

NINES = "9" * 5000


def test_texts_that_name_no_layer_position_or_strength() -> None:
    cases = (
        (parse_positions, ("-:5", "5:-", NINES, f"{NINES}:3", "-", ":-")),
        (parse_layers, ("0-99999999999", NINES, f"0-{NINES}", "5-3", "")),
        (parse_steer, ("v.safetensors:nan", "v.safetensors:inf", f"v.npz:1,layers={NINES}", "v.npz:1,positions=-:5")),
    )
    for read, texts in cases:
        for text in texts:
            with pytest.raises(tk.ArgumentError) as error:
                read(text)
            assert "\n" not in str(error.value), text


def own_file(path: Path, header: dict[str, Any], **tensors: torch.Tensor) -> Path:
    """A vector's file with a checksum that is right."""
    named = {name.replace("_", "."): tensor for name, tensor in tensors.items()}
    header = {"format": 1, "site": "block", "layer_count": 3, "provenance": {}} | header
    save_file(named, path, {"truthkit": json.dumps({**header, "sha256": tensors_sha256(named, header)})})
    return path


def test_own_files(tmp_path: Path) -> None:
    one = torch.ones(4)
    assert len(read_vector(own_file(tmp_path / "v.safetensors", {}, block_1=one))) == 1
    cases: tuple[tuple[dict[str, Any], dict[str, torch.Tensor], str], ...] = (
        ({"layer_count": "3"}, {"block_1": one}, "'layer_count' of the header .* is '3'; expected an integer"),
        ({"provenance": []}, {"block_1": one}, "'provenance' of the header .* is \\[\\]; expected an object"),
        ({"provenance": {"model": "x"}}, {"block_1": one}, "'model' of 'provenance' .* expected an object"),
        ({"provenance": {"selection": {"strength": "2"}}}, {"block_1": one}, "'strength' .* expected a finite number"),
        ({"provenance": {"scores": {"x": {"auc": 1}}}}, {"block_1": one}, "scores of layer 'x'"),
        ({}, {"block_x": one}, "holds 'block.x'; expected names that end in one layer's number"),
        ({}, {"block_1": one, "mlp_1": one}, "holds 'mlp.1' again"),
        ({}, {"block_1": one.to(torch.int8)}, "torch.int8 of shape .4,.; expected a vector of real numbers"),
        ({}, {"block_1": torch.ones(2, 2)}, "not a vector of finite numbers"),
    )
    for header, tensors, message in cases:
        tensors = {name: tensor.clone() for name, tensor in tensors.items()}
        with pytest.raises(tk.ArgumentError, match=message):
            read_vector(own_file(tmp_path / "v.safetensors", header, **tensors))


def test_npz_that_claims_too_much(tmp_path: Path) -> None:
    """Arrays whose headers promise more than there is, and a small file that unpacks to 400 MB."""
    about = json.dumps({"site": "block", "layer_count": 3, "provenance": {}}).encode()
    for name, compression in (("huge", zipfile.ZIP_STORED), ("bomb", zipfile.ZIP_DEFLATED)):
        path = tmp_path / f"{name}.npz"
        np.savez(path, about=np.frombuffer(about, dtype=np.uint8))
        with zipfile.ZipFile(path, "a", compression) as archive, archive.open("layer_1.npy", "w") as file:
            shape = (10**13,) if name == "huge" else (10**8,)
            np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": "<f4"})
            for _ in range(0 if name == "huge" else 400):
                file.write(bytes(10**6))
        with pytest.raises(tk.ArgumentError, match="is not a vector written by to_numpy"):
            read_vector(path)


def gguf_file(path: Path, name: str, data: Any, kind: Any = None) -> Path:
    writer = gguf.GGUFWriter(str(path), "controlvector")
    writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_gguf(tmp_path: Path) -> None:
    values = np.linspace(-1, 1, 64, dtype=np.float32)
    for kind in (gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.BF16):
        data = gguf.quantize(values, kind)
        found = read_vector(gguf_file(tmp_path / f"{kind.name}.gguf", "direction.2", data, kind))
        assert found[2].tolist() == gguf.dequantize(data, kind).tolist()
    for name in ("direction.x", "direction.", f"direction.{NINES[:20]}"):
        with pytest.raises(tk.ArgumentError, match="expected names that end in one layer's number"):
            read_vector(gguf_file(tmp_path / "x.gguf", name, values))
    with pytest.raises(tk.ArgumentError, match="holds no direction"):
        read_vector(gguf_file(tmp_path / "none.gguf", "other.1", values))


def test_lm_eval(tmp_path: Path) -> None:
    entry = {"action": "add", "steering_vector": torch.ones(4), "steering_coefficient": 1.0}
    cases: tuple[tuple[Any, str], ...] = (
        ([1], "expected an object with fields"),
        ({"layers.1": None}, "'layers.1' of the steering file .* is None"),
        ({"layers.1": {"action": "add"}}, "has no 'steering_vector'"),
        ({"layers.1": {**entry, "steering_coefficient": float("nan")}}, "is nan; expected a finite number"),
        ({"layers.1": {**entry, "action": ["add"]}}, "'action' .* expected a text"),
        ({"layers.x": entry}, "expected names that end in one layer's number"),
        (
            {"layers.1": {**entry, "steering_vector": torch.ones(1).expand(1 << 40)}},
            "expected a vector of real numbers",
        ),
        ({"layers.1": {**entry, "steering_vector": torch.ones(4).to_sparse()}}, "expected a vector of real numbers"),
        ({}, "holds no direction"),
    )
    for entries, message in cases:
        torch.save(entries, tmp_path / "v.pt")
        with pytest.raises(tk.ArgumentError, match=message):
            read_vector(tmp_path / "v.pt")
