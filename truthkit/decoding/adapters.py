"""A LoRA adapter that is on for some rows of the batch and off for the others.

Its low-rank update is added by a hook on each adapted layer, to the amateur's rows alone. The base model's weights, modules
and PEFT state stay as they are, so the base rows are the unmodified model to the last bit.
"""

from __future__ import annotations

import json
import math
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from truthkit.errors import ModelError, NotAvailableError

_LORA_KEY = re.compile(r"^(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])(?:\.[^.]+)?\.weight$")
_WAY_OUT = "Load it as a model of its own, amateur=tk.load(..., adapter=...), which costs a second forward."


class LowRank(NamedTuple):
    """One layer's update `x @ down.T @ up.T * scaling`; `down` (r, in), `up` (out, r)."""

    module: nn.Module
    down: torch.Tensor
    up: torch.Tensor
    scaling: float


class AdapterRows:
    """The updates of one LoRA adapter, applied to the rows `self.rows` of every forward while attached.

    Args:
        model: the plain `PreTrainedModel` (what PEFT wrapped, where it is wrapped).
        adapter: the name of an adapter loaded in `model`, a PEFT folder, or a hub id.

    Raises:
        NotAvailableError: no such adapter.
        ModelError: the adapter is not plain LoRA on linear layers of this model.
    """

    def __init__(self, model: Any, adapter: str):
        self.rows = slice(0, 0)
        self._loaded = loaded_adapter_layers(model, adapter)
        self._name = adapter
        self._updates = _updates_in_model(self._loaded, adapter) if self._loaded else _updates_on_disk(model, adapter)

    def attach(self, stack: ExitStack) -> None:
        """Put the hooks on; `stack` takes them off. An adapter that is active in the model is off meanwhile."""
        for layer in self._loaded:
            if self._name in (active := list(layer.active_adapters)):
                before = layer._active_adapter
                layer._active_adapter = [name for name in active if name != self._name]
                stack.callback(setattr, layer, "_active_adapter", before)
        for update in self._updates:
            stack.callback(update.module.register_forward_hook(self._add(update)).remove)

    def _add(self, update: LowRank) -> Any:
        def hook(_module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            if self.rows.stop == 0:
                return output
            x = args[0][self.rows]
            low = nn.functional.linear(nn.functional.linear(x.to(update.down.dtype), update.down), update.up)
            output[self.rows] += (low if update.scaling == 1.0 else low * update.scaling).to(output.dtype)
            return output

        return hook


def loaded_adapter_layers(model: Any, name: str) -> list[Any]:
    """The PEFT tuner layers of `model` that hold an adapter called `name`."""
    return [module for module in model.modules() if name in getattr(module, "lora_A", {})]


def _updates_in_model(layers: list[Any], name: str) -> list[LowRank]:
    updates = []
    for layer in layers:
        if layer.merged:
            raise ModelError(f"adapter {name!r} is merged into the weights; call unmerge_adapter() first.")
        if name in getattr(layer, "lora_variant", {}) or getattr(layer, "use_dora", {}).get(name):
            raise ModelError(f"adapter {name!r} is a LoRA variant such as DoRA, which has no row-wise form. {_WAY_OUT}")
        if not isinstance(layer.lora_A[name], nn.Linear):
            raise ModelError(f"adapter {name!r} adapts a layer that is not linear: {layer}. {_WAY_OUT}")
        updates.append(LowRank(layer, layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]))
    return updates


def _adapter_folder(adapter: str) -> Path:
    if (Path(adapter) / "adapter_config.json").is_file():
        return Path(adapter)
    if Path(adapter).exists():
        raise NotAvailableError(f"amateur={adapter!r} is no PEFT adapter: it has no adapter_config.json.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(adapter, allow_patterns=["adapter_config.json", "adapter_model.safetensors"]))
    except (OSError, HFValidationError, ValueError) as error:
        raise NotAvailableError(
            f"amateur={adapter!r} is neither an adapter loaded in this model, nor a PEFT folder, nor a hub id that can be "
            f"reached ({type(error).__name__}). Pass a folder with adapter_config.json and adapter_model.safetensors, or "
            "leave amateur out for the prompt-only amateur."
        ) from error


def _matching(pattern_table: dict[str, Any], module: str, default: Any) -> Any:
    for pattern, value in pattern_table.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def _updates_on_disk(model: Any, adapter: str) -> list[LowRank]:
    from safetensors.torch import load_file

    folder = _adapter_folder(adapter)
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    if config.get("peft_type") != "LORA" or config.get("use_dora") or config.get("bias", "none") != "none":
        raise ModelError(
            f"adapter {adapter!r} is {config.get('peft_type')} with use_dora={config.get('use_dora')}, "
            f"bias={config.get('bias')}; only plain LoRA can be switched per row. {_WAY_OUT}"
        )
    if not (folder / "adapter_model.safetensors").is_file():
        raise NotAvailableError(f"adapter {adapter!r} has no adapter_model.safetensors; save it again with safetensors.")
    sides: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in load_file(folder / "adapter_model.safetensors").items():
        if not (match := _LORA_KEY.match(key)):
            raise ModelError(f"adapter {adapter!r} trains {key!r}, which is not a LoRA weight. {_WAY_OUT}")
        sides.setdefault(match["module"], {})[match["side"]] = tensor

    modules = dict(model.named_modules())
    updates = []
    for name, pair in sides.items():
        module = modules.get(name)
        if module is None or pair.keys() != {"A", "B"}:
            raise ModelError(f"adapter {adapter!r} adapts {name!r}, which {type(model).__name__} does not have.")
        if pair["A"].dim() != 2 or isinstance(module, nn.Embedding):
            raise ModelError(f"adapter {adapter!r} adapts {name!r}, which is not a linear layer. {_WAY_OUT}")
        rank = pair["A"].shape[0]
        alpha = _matching(config.get("alpha_pattern") or {}, name, config["lora_alpha"])
        scaling = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        updates.append(_placed(LowRank(module, pair["A"], pair["B"], scaling), name, adapter, model.dtype))
    return updates


def _placed(update: LowRank, name: str, adapter: str, model_dtype: torch.dtype) -> LowRank:
    module = update.module
    sizes = (getattr(module, "in_features", getattr(module, "nx", None)), getattr(module, "out_features", getattr(module, "nf", None)))
    found = (update.down.shape[1], update.up.shape[0])
    if None not in sizes and sizes != found:
        raise ModelError(
            f"adapter {adapter!r} was trained for another model: {name!r} maps {found[0]} to {found[1]} features there, "
            f"{sizes[0]} to {sizes[1]} here."
        )
    weight = next(module.parameters())
    dtype = weight.dtype if weight.dtype.is_floating_point else model_dtype
    return update._replace(down=update.down.to(weight.device, dtype), up=update.up.to(weight.device, dtype))
