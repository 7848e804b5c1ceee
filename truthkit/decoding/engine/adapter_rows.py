"""A LoRA adapter that is on for some rows of the batch and off for the others.

Its low-rank update is added by a hook on each adapted layer, to the amateur's rows alone. The base model's weights,
modules and PEFT state stay as they are, so the base rows are the unmodified model to the last bit.
"""

from __future__ import annotations

import math
import re
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import nn

from truthkit.errors import ModelError, NotAvailableError
from truthkit.models.adapter import adapter_settings, adapter_tensors
from truthkit.models.checkpoint import adapter_source

_LORA_KEY = re.compile(r"^(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])(?:\.[^.]+)?\.weight$")
_WAY_OUT = "Load it as a model of its own, amateur=tk.load(..., adapter=...), which costs a second forward."


class LowRank(NamedTuple):
    """One layer's update `x @ down.T @ up.T * scaling`; `down` (r, in), `up` (out, r)."""

    module: nn.Module
    down: torch.Tensor
    up: torch.Tensor
    scaling: float


class AdapterRows:
    """The updates of one LoRA adapter, applied to some rows of every forward while attached.

    Args:
        model: the plain `PreTrainedModel` (what PEFT wrapped, where it is wrapped).
        adapter: the name of an adapter loaded in `model`, a PEFT folder, or a hub id.

    Raises:
        NotAvailableError: no such adapter.
        ModelError: the adapter is not plain LoRA on linear layers of this model.
    """

    def __init__(self, model: Any, adapter: str):
        self.name = adapter
        self._rows, self._batch, self._width = slice(0, 0), 0, 0
        self._loaded = _layers_holding(model, adapter)
        if adapter in (loaded := getattr(model, "peft_config", {})):
            _check_plain_lora(loaded[adapter].to_dict(), adapter)
        self._updates = _updates_in_model(self._loaded, adapter) if self._loaded else _updates_on_disk(model, adapter)

    @property
    def active(self) -> bool:
        """Whether the adapter is on in the model's own forward, outside of `attach`."""
        return any(not layer.disable_adapters and self.name in layer.active_adapters for layer in self._loaded)

    @property
    def modules(self) -> set[nn.Module]:
        """The layers it adapts."""
        return {update.module for update in self._updates}

    def aim(self, rows: slice, batch: int, width: int) -> None:
        """Act on `rows` of the next forward's `batch` rows, each of `width` tokens; an empty slice for none."""
        self._rows, self._batch, self._width = rows, batch, width

    def attach(self, stack: ExitStack) -> None:
        """Put the hooks on; `stack` takes them off. An adapter that is active in the model is off meanwhile."""
        for layer in self._loaded:
            if self.name in (active := list(layer.active_adapters)):
                before = layer._active_adapter
                layer._active_adapter = [name for name in active if name != self.name]
                stack.callback(setattr, layer, "_active_adapter", before)
        for update in self._updates:
            stack.callback(update.module.register_forward_hook(self._add(update)).remove)

    def _add(self, update: LowRank) -> Any:
        def hook(_module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            if self._rows.start == self._rows.stop:
                return output
            x = self._by_row(args[0], update)[self._rows]
            low = nn.functional.linear(nn.functional.linear(x.to(update.down.dtype), update.down), update.up)
            self._by_row(output, update)[self._rows].add_(low.to(output.dtype), alpha=update.scaling)
            return output

        return hook

    def _by_row(self, states: torch.Tensor, update: LowRank) -> torch.Tensor:
        """`states` with the batch in front, also where a layer sees all tokens in one line (OPT, shared experts)."""
        shape = tuple(states.shape) if isinstance(states, torch.Tensor) else ()
        if len(shape) > 2 and shape[0] == self._batch:
            return states
        if len(shape) == 2 and shape[0] == self._batch * self._width:
            return states.view(self._batch, self._width, -1)
        raise ModelError(
            f"adapter {self.name!r} adapts a layer that handles {shape or type(states).__name__} in a batch of "
            f"{self._batch} rows of "
            f"{self._width} tokens, so which token is whose is unknown (a mixture's expert or router?): "
            f"{update.module}. "
            f"{_WAY_OUT}"
        )


def _layers_holding(model: Any, name: str) -> list[Any]:
    """The PEFT tuner layers of `model` that hold an adapter called `name`."""
    return [
        module
        for module in model.modules()
        if name in getattr(module, "lora_A", {}) or name in getattr(module, "lora_embedding_A", {})
    ]


_BEYOND_LORA = (
    "use_dora",
    "use_qalora",
    "alora_invocation_tokens",
    "arrow_config",
    "lora_bias",
    "modules_to_save",
    "trainable_token_indices",
    "layer_replication",
)
_CHANGES_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


def _check_plain_lora(config: dict[str, Any], adapter: str) -> None:
    """Raise unless a PEFT configuration says no more than `W x + B A x * scaling`."""
    found = [f"peft_type={config.get('peft_type')!s}"] if config.get("peft_type") != "LORA" else []
    found += [f"{name}={config[name]}" for name in _BEYOND_LORA if config.get(name)]
    found += [f"bias={config['bias']}"] if config.get("bias", "none") != "none" else []
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_THE_BASE):
        found.append(f"init_lora_weights={start}, which changes the base weights")
    if found:
        raise ModelError(
            f"adapter {adapter!r} has {', '.join(found)}; only plain LoRA can be switched per row. {_WAY_OUT}"
        )


def _updates_in_model(layers: list[Any], name: str) -> list[LowRank]:
    updates = []
    for layer in layers:
        if layer.merged:
            raise ModelError(f"adapter {name!r} is merged into the weights; call unmerge_adapter() first.")
        if name in getattr(layer, "lora_variant", {}):
            raise ModelError(f"adapter {name!r} is a LoRA variant ({layer.lora_variant[name]}). {_WAY_OUT}")
        if name not in layer.lora_A or _features(layer.get_base_layer()) is None:
            raise ModelError(
                f"adapter {name!r} adapts a layer that is not linear: {layer.get_base_layer()}. {_WAY_OUT}"
            )
        updates.append(LowRank(layer, layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]))
    return updates


def _features(module: nn.Module) -> tuple[int, int] | None:
    """Input and output features of a linear layer (a quantised one or GPT-2's `Conv1D` too); None for all else."""
    for names in (("in_features", "out_features"), ("nx", "nf")):
        if all(isinstance(getattr(module, name, None), int) for name in names):
            return getattr(module, names[0]), getattr(module, names[1])
    return None


def _matching(pattern_table: dict[str, Any], module: str, default: Any) -> Any:
    for pattern, value in pattern_table.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def _updates_on_disk(model: Any, adapter: str) -> list[LowRank]:
    source = adapter_source(adapter, "amateur")
    folder, config = source.path, adapter_settings(source)
    _check_plain_lora(config, adapter)
    if not (folder / "adapter_model.safetensors").is_file():
        raise NotAvailableError(
            f"adapter {adapter!r} has no adapter_model.safetensors; save it again with safetensors."
        )
    sides: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in adapter_tensors(source).items():
        if not (match := _LORA_KEY.match(key)):
            raise ModelError(f"adapter {adapter!r} trains {key!r}, which is not a LoRA weight. {_WAY_OUT}")
        sides.setdefault(match["module"], {})[match["side"]] = tensor

    modules = dict(model.named_modules())
    updates = []
    for name, pair in sides.items():
        module = modules.get(name.removesuffix(".base_layer"))
        if module is None or pair.keys() != {"A", "B"}:
            raise ModelError(f"adapter {adapter!r} adapts {name!r}, which {type(model).__name__} does not have.")
        if pair["A"].dim() != 2 or (features := _features(module)) is None:
            raise ModelError(f"adapter {adapter!r} adapts {name!r}, which is not a linear layer. {_WAY_OUT}")
        if (found := (pair["A"].shape[1], pair["B"].shape[0])) != features:
            raise ModelError(
                f"adapter {adapter!r} was trained for another model: {name!r} maps {found[0]} to {found[1]} features "
                "there, "
                f"{features[0]} to {features[1]} here."
            )
        rank = pair["A"].shape[0]
        alpha = _matching(config.get("alpha_pattern") or {}, name, config["lora_alpha"])
        scaling = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        weight = next(module.parameters())
        dtype = weight.dtype if weight.dtype.is_floating_point else model.dtype
        down, up = (pair[side].to(weight.device, dtype) for side in "AB")
        updates.append(LowRank(module, down, up, scaling))
    return updates
