"""Other tools' files: llama.cpp and repeng (GGUF), lm-evaluation-harness, numpy.

Layer numbers mean the same in all of them: the 0-based decoder block whose output the vector is added to.
"""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from truthkit.errors import ArgumentError, MissingExtraError, NotAvailableError
from truthkit.files.json_text import parse
from truthkit.files.shapes import ANYTHING, FINITE, TEXT, check
from truthkit.files.writing import replacing, writing
from truthkit.hf.sites import decoder_blocks
from truthkit.hf.wrapping import plain_model
from truthkit.steering.checked import by_layer, check_about
from truthkit.steering.names import FORMATS
from truthkit.steering.vector import SteeringVector

_LARGEST = 1 << 28  # bytes; the largest models' vectors have a thirtieth


def read_vector(path: str | PathLike[str], *, layer_count: int | None = None) -> SteeringVector:
    """A vector from any format that truthkit reads, told by the file's ending.

    Raises:
        ArgumentError: another ending, or the content does not fit it.
        NotAvailableError: there is no such file.
    """
    path = Path(path)
    match FORMATS.get(path.suffix):
        case "truthkit":
            return SteeringVector.load(path)
        case "gguf":
            return from_gguf(path, layer_count=layer_count)
        case "numpy":
            return from_numpy(path)
        case "lm-eval":
            return from_lm_eval(path, layer_count=layer_count)
    raise ArgumentError(f"{str(path)!r} ends in {path.suffix!r}; expected one of {', '.join(FORMATS)}.")


def to_gguf(vector: SteeringVector, path: str | PathLike[str], *, model_type: str | None = None) -> None:
    """Write a llama.cpp control vector, as repeng writes them.

    llama.cpp has no direction for block 0 and adds the vectors to block outputs, so only site "block" fits, without
    layer 0.

    Args:
        vector: what to write.
        path: the `.gguf` file.
        model_type: the architecture's name in llama.cpp, for its records. None takes it from the provenance.
    """
    _need_gguf()
    import gguf

    _only_block(vector, "a GGUF control vector")
    layers = [layer for layer in vector if layer > 0]
    if len(layers) < len(vector):
        warnings.warn("llama.cpp's control vectors have no layer 0: it is left out.", stacklevel=2)
    if not layers:
        raise ArgumentError("the vector has layer 0 only, which llama.cpp's control vectors cannot hold.")
    hint = model_type or vector.provenance.get("model", {}).get("type") or ""
    with writing(Path(path)), replacing(Path(path)) as part:
        writer = gguf.GGUFWriter(str(part), "controlvector")
        writer.add_string("controlvector.model_hint", hint)
        writer.add_uint32("controlvector.layer_count", len(layers))
        for layer in layers:
            writer.add_tensor(f"direction.{layer}", vector[layer].numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def from_gguf(path: str | PathLike[str], *, layer_count: int | None = None) -> SteeringVector:
    """Read a control vector made by repeng, llama.cpp or `to_gguf`.

    Args:
        path: the `.gguf` file.
        layer_count: how many decoder blocks the model has. The file does not say; with None any model will do that has
            the vector's layers.

    Raises:
        ArgumentError: it is no control vector, or its numbers are of a quantisation that cannot be undone.
    """
    _need_gguf()
    import gguf

    path = _existing(path)
    try:
        reader = gguf.GGUFReader(str(path))
        said = [reader.get_field(name) for name in ("general.architecture", "controlvector.model_hint")]
        architecture, hint = (field.contents() if field else "" for field in said)
        named = [
            (tensor.name, torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy()))
            for tensor in reader.tensors
            if tensor.name.startswith("direction.")
        ]
    except Exception as error:  # gguf raises whatever the bytes make it raise
        raise _unreadable(path, "readable GGUF file", error) from error
    if architecture != "controlvector":
        raise ArgumentError(f"{str(path)!r} is a GGUF file, but not a control vector.")
    source = {"imported_from": "gguf", "model": {"type": hint if isinstance(hint, str) else ""}}
    return _imported(by_layer(named, repr(str(path))), layer_count, source)


def to_lm_eval(vector: SteeringVector, path: str | PathLike[str], model: Any, *, strength: float = 1.0) -> None:
    """Write the `.pt` file that lm-evaluation-harness' `--model steered` takes as `steer_path`.

    The harness reads it with `weights_only=True`. As of release 0.4.12 its "add" applies the last listed vector at
    every layer (a closure over the loop variable), so a vector of several layers is refused here.

    Args:
        vector: what to write.
        path: the `.pt` file.
        model: the model that will be steered; its module names go into the file.
        strength: the coefficient.
    """
    _only_block(vector, "an lm-evaluation-harness file")
    if len(vector) != 1:
        raise ArgumentError(
            f"the vector has {len(vector)} layers, but lm-evaluation-harness would add one of them at all; choose a "
            "layer, for example vector.at(vector.best_layer())."
        )
    vector.check_model(model)
    plain = plain_model(model)
    (layer,) = vector.layers
    block = decoder_blocks(plain)[layer]
    name = next(name for name, module in plain.base_model.named_modules() if module is block)
    entry = {"action": "add", "steering_vector": vector[layer], "steering_coefficient": float(strength), "bias": None}
    content = io.BytesIO()
    torch.save({name: entry}, content)
    with writing(Path(path)), replacing(Path(path)) as part:
        part.write_bytes(content.getvalue())


def from_lm_eval(path: str | PathLike[str], *, layer_count: int | None = None) -> SteeringVector:
    """Read such a file; coefficients are multiplied into the directions."""
    path = _existing(path)
    try:
        entries = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch's unpickler raises whatever the bytes make it raise
        raise _unreadable(path, "steering file of lm-evaluation-harness", error) from error
    about = f"the steering file {str(path)!r}"
    check(entries, {"*": {"steering_vector!": ANYTHING, "steering_coefficient!": FINITE, "action!": TEXT}}, about)
    if other := [entry["action"] for entry in entries.values() if entry["action"] != "add"]:
        raise ArgumentError(f"{str(path)!r} has the action {other[0]!r}; only 'add' is a vector.")
    vectors = by_layer(((name, entry["steering_vector"]) for name, entry in entries.items()), repr(str(path)))
    coefficients = (float(entry["steering_coefficient"]) for entry in entries.values())
    directions = {
        layer: vector.detach().flatten() * factor
        for (layer, vector), factor in zip(vectors.items(), coefficients, strict=True)
    }
    return _imported(directions, layer_count, {"imported_from": "lm-evaluation-harness"})


def to_numpy(vector: SteeringVector, path: str | PathLike[str]) -> None:
    """Write an `.npz`: one float32 array per layer, and the rest as JSON in an array of bytes; no pickle."""
    import numpy as np

    about = {"site": vector.site, "layer_count": vector.layer_count, "provenance": vector.provenance}
    arrays = {f"layer_{layer}": direction.numpy() for layer, direction in vector.directions.items()}
    with writing(Path(path)), replacing(Path(path)) as part, part.open("wb") as file:
        np.savez(file, about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8), **arrays)  # type: ignore[arg-type]


def from_numpy(path: str | PathLike[str]) -> SteeringVector:
    """Read what `to_numpy` wrote."""
    import numpy as np

    path = _existing(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _LARGEST:
                raise ArgumentError(f"it unpacks to more than {_LARGEST >> 20} MB")
        with np.load(path, allow_pickle=False) as arrays:
            said = parse(arrays["about"].tobytes().decode())
            named = [(name, torch.from_numpy(arrays[name].copy())) for name in arrays.files if name != "about"]
    except Exception as error:  # numpy and zipfile raise whatever the bytes make them raise
        raise _unreadable(path, "vector written by to_numpy", error) from error
    about = check_about(said, repr(str(path)))
    directions = by_layer(named, repr(str(path)))
    return SteeringVector(directions, about["layer_count"], about["site"], about["provenance"])


def _unreadable(path: Path, what: str, error: Exception) -> ArgumentError:
    said = "" if isinstance(error, UnpicklingError) else f": {str(error).strip():.200}"  # its advice is to trust
    return ArgumentError(f"{str(path)!r} is not a {what} ({type(error).__name__}{said}).")


def _imported(directions: dict[int, torch.Tensor], layer_count: int | None, source: dict[str, Any]) -> SteeringVector:
    if not directions:
        raise ArgumentError("the file holds no direction.")
    return SteeringVector(directions, layer_count, "block", source)


def _existing(path: str | PathLike[str]) -> Path:
    path = Path(path)
    if not path.is_file():
        raise NotAvailableError(f"{str(path)!r}: there is no such file.")
    return path


def _only_block(vector: SteeringVector, target: str) -> None:
    if vector.site != "block":
        raise ArgumentError(f"{target} holds block outputs, but this vector is for site {vector.site!r}.")


def _need_gguf() -> None:
    if find_spec("gguf") is None:
        raise MissingExtraError("GGUF control vectors need the package gguf: `pip install 'truthkit[gguf]'`.")
