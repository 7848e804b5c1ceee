"""Which model answered: its name and commit, and checksums of what it holds now, wherever it was loaded from."""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Iterable
from typing import Any

import torch

from truthkit.hf.spread import here, whole
from truthkit.hf.wrapping import plain_model
from truthkit.models.checkpoint import adapter_source

_SAMPLE = 64

_IDENTITIES: weakref.WeakKeyDictionary[Any, tuple[Any, dict[str, Any]]] = weakref.WeakKeyDictionary()
"""What was found of a model, and the state of its weights then."""


def identity(model: Any, processor: Any = None) -> dict[str, Any]:
    """What tells `model` apart from others, for the records of runs, vectors and trainings; JSON values only.

    The weights are hashed as they are in memory: a checksum over all bits of every tensor and some of its values.
    Two copies of the same weights agree, whatever folder they came from; other numbers, another dtype or a merged
    adapter do not. It takes about as long as one forward of a token.

    Args:
        model: from `tk.load` or `from_pretrained`; a `PeftModel` too.
        processor: its tokenizer or processor.

    Returns:
        `id` (hub id, folder or bundled name), `commit` (None for what is not from the hub), `config_sha256`,
        `weights_sha256` (without adapters), `adapters` (by name: `id`, `commit`, `sha256`, `active`), and with a
        processor `tokenizer_sha256` and `template_sha256` (None without a template).
    """
    plain = plain_model(model)
    adapters = _adapters(model, plain)
    of_adapters = {name for names in adapters.values() for name in names}
    parameters = [(name, _in_memory(plain, name, tensor)) for name, tensor in plain.named_parameters()]
    found: dict[str, Any] = {
        "id": str(getattr(plain.config, "_name_or_path", "") or ""),
        "commit": getattr(plain.config, "_commit_hash", None),
        "config_sha256": _text_sha256(_settings(plain.config)),
        "weights_sha256": _sha256(
            (name.replace(".base_layer.", ".").replace(".original_module.", "."), tensor)
            for name, tensor in parameters
            if name not in of_adapters
        ),
        "adapters": {
            name: _adapter(model, name, [(key, tensor) for key, tensor in parameters if key in keys])
            for name, keys in adapters.items()
        },
    }
    if processor is not None:
        tokenizer = getattr(processor, "tokenizer", processor)
        template = getattr(processor, "chat_template", None) or getattr(tokenizer, "chat_template", None)
        found["tokenizer_sha256"] = _text_sha256(_vocabulary(tokenizer))
        found["template_sha256"] = _text_sha256(template) if template else None
    return found


def known_identity(model: Any) -> dict[str, Any]:
    """`identity`, found anew only where a weight was changed or exchanged since; `active` may be of earlier."""
    plain = plain_model(model)
    weights = [here(weight) for weight in plain.parameters()]
    state = [(weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in weights]
    if (known := _IDENTITIES.get(plain)) is None or known[0] != state:
        known = _IDENTITIES[plain] = (state, identity(model))
    return known[1]


def adapter_sha256(adapter: str) -> str:
    """Of what decides what an adapter in a folder or on the hub does: its settings and its weights.

    Raises:
        NotAvailableError, ArgumentError: as `truthkit.models.checkpoint.adapter_source`.
    """
    folder = adapter_source(adapter).path
    digest = hashlib.sha256()
    for file in sorted([folder / "adapter_config.json", *folder.glob("adapter_model.*")]):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _adapters(model: Any, plain: Any) -> dict[str, set[str]]:
    """The names of each adapter's own parameters in the plain model."""
    found: dict[str, set[str]] = {name: set() for name in sorted(getattr(model, "peft_config", None) or {})}
    if not found:
        return {}
    layers = {
        name: set(module.adapter_layer_names)
        for name, module in plain.named_modules()
        if hasattr(module, "adapter_layer_names")
    }
    for key, _ in plain.named_parameters():
        parts = key.split(".")
        for end in range(1, len(parts) - 1):
            if parts[end] in layers.get(".".join(parts[:end]), ()) and parts[end + 1] in found:
                found[parts[end + 1]].add(key)
    return found


def _adapter(model: Any, name: str, parameters: list[tuple[str, torch.Tensor]]) -> dict[str, Any]:
    settings = model.peft_config[name]
    source = getattr(settings, "truthkit_source", None)
    scale = {key: getattr(settings, key, None) for key in ("lora_alpha", "r", "use_rslora", "use_dora")}
    active = getattr(model, "active_adapters", ())
    return {
        "id": source.name if source else None,
        "commit": source.commit if source else None,
        "sha256": _text_sha256([_sha256((key.replace(f".{name}.", "."), value) for key, value in parameters), scale]),
        "active": name in (active() if callable(active) else active),
    }


def _in_memory(plain: Any, name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A parameter, also one that accelerate keeps in main memory or on the disk until it is needed."""
    if tensor.device.type != "meta":
        return tensor
    parent, _, child = name.rpartition(".")
    kept = getattr(getattr(plain.get_submodule(parent), "_hf_hook", None), "weights_map", None)
    value: torch.Tensor = tensor if kept is None else kept[child]
    return value


def _settings(config: Any) -> dict[str, Any]:
    """A configuration without what changes with the place, the processes, the dtype in use or the library."""
    apart = ("transformers_version", "dtype", "torch_dtype", "_attn_implementation_autoset", "distributed_config")
    return {name: value for name, value in config.to_dict().items() if name not in ("_name_or_path", *apart)}


def _vocabulary(tokenizer: Any) -> Any:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        content = json.loads(backend.to_str())
        return {name: value for name, value in content.items() if name not in ("padding", "truncation")}
    return sorted(tokenizer.get_vocab().items()) if hasattr(tokenizer, "get_vocab") else type(tokenizer).__name__


def _sha256(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        if tensor.device.type != "meta":
            digest.update(_bits(whole(tensor.detach())))
    return digest.hexdigest()


@torch.no_grad()
def _bits(tensor: torch.Tensor) -> bytes:
    """The sum of all bits as integers of 64, which no order of adding changes, and the first values."""
    raw = tensor.contiguous().view(-1).view(torch.uint8) if tensor.dim() else tensor.reshape(1).view(torch.uint8)
    whole = raw.numel() // 8 * 8
    words = raw[:whole].view(torch.int64) if raw.storage_offset() % 8 == 0 else raw[:whole].clone().view(torch.int64)
    ends = torch.cat([raw[: _SAMPLE * 4], raw[whole:]])
    return int(words.sum()).to_bytes(8, "little", signed=True) + ends.cpu().numpy().tobytes()


def _text_sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode("utf-8", "surrogatepass")).hexdigest()
