"""A LoRA adapter as what it adds to the layers of a model: found in the model, in a PEFT folder or on the hub."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from truthkit.errors import ModelError, NotAvailableError
from truthkit.hf.sites import execution_device
from truthkit.hf.spread import here, split_of
from truthkit.models.adapter import adapter_settings, adapter_tensors
from truthkit.models.checkpoint import adapter_source

_MERGED = "adapter {!r} is merged into the weights; call unmerge_adapter() first."
_LORA_KEY = re.compile(r"^(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])(?:\.[^.]+)?\.weight$")
WAY_OUT = "Load it as a model of its own, amateur=tk.load(..., adapter=...), which costs a second forward."


class LowRank(NamedTuple):
    """One layer's update `x @ down.T @ up.T * scaling`; `down` (r, in), `up` (out, r)."""

    module: nn.Module
    down: torch.Tensor
    up: torch.Tensor
    scaling: float
    offloaded: tuple[nn.Module, nn.Module] | None = None
    """The layers that hold `down` and `up`, where those are brought, or parts of them, only while the layers run."""

    def of(self, x: torch.Tensor, features: int) -> torch.Tensor:
        """The update of inputs (..., in) before scaling, (..., out).

        Of a layer that several processes hold, `x` may be a part of the inputs, and `features` those of the outputs
        that are here.
        """
        x = x.to(self.down.dtype)
        if self.offloaded is not None:
            down, up = self.offloaded
            return up(down(x))
        if (split := split_of(self.module)) is None:
            return nn.functional.linear(nn.functional.linear(x, self.down), self.up)
        if x.shape[-1] < self.down.shape[1]:
            low = split.summed(nn.functional.linear(x, split.part(self.down)))
        else:
            low = nn.functional.linear(x, self.down)
        return nn.functional.linear(low, split.part(self.up, 0) if features < len(self.up) else self.up)


class Adapter:
    """The updates of one LoRA adapter for one model.

    Args:
        model: the plain `PreTrainedModel` (what PEFT wrapped, where it is wrapped).
        adapter: the name of an adapter loaded in `model`, a PEFT folder, or a hub id.

    Raises:
        NotAvailableError: no such adapter.
        ModelError: the adapter is not plain LoRA on linear layers of this model.
    """

    def __init__(self, model: Any, adapter: str):
        self.name, self.model = adapter, model
        self.holders = tuple(_layers_holding(model, adapter))
        """The PEFT layers that hold it, where it is loaded in the model."""
        if adapter in (loaded := getattr(model, "peft_config", {})):
            _check_plain_lora(loaded[adapter].to_dict(), adapter)
        found = _updates_in_model(self.holders, adapter) if self.holders else _updates_on_disk(model, adapter)
        self.updates = tuple(found)

    def now(self) -> Adapter:
        """The adapter as it is in the model now, which may have merged, rescaled, moved or lost it since.

        Raises:
            NotAvailableError, ModelError: as on construction.
        """
        if self.holders:
            return Adapter(self.model, self.name)
        self.updates = tuple(_moved(update, self.model) for update in self.updates)
        return self

    @property
    def active(self) -> bool:
        """Whether the adapter is on in the model's own forward, outside of a decoder."""
        return any(not layer.disable_adapters and self.name in layer.active_adapters for layer in self.holders)

    def check_not_merged(self) -> None:
        """Raises:
        ModelError: it is part of the weights now, or another one of its layers is.
        """
        if self.holders and self.holders[0].merged:
            raise ModelError(_MERGED.format(self.name))

    @property
    def modules(self) -> set[nn.Module]:
        """The layers it adapts."""
        return {update.module for update in self.updates}


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
            f"adapter {adapter!r} has {', '.join(found)}; only plain LoRA can be switched per row. {WAY_OUT}"
        )


def _updates_in_model(layers: Sequence[Any], name: str) -> list[LowRank]:
    updates = []
    for layer in layers:
        if layer.merged:
            raise ModelError(_MERGED.format(name))
        if name in getattr(layer, "lora_variant", {}):
            raise ModelError(f"adapter {name!r} is a LoRA variant ({layer.lora_variant[name]}). {WAY_OUT}")
        if name not in layer.lora_A or _features(layer.get_base_layer()) is None:
            raise ModelError(f"adapter {name!r} adapts a layer that is not linear: {layer.get_base_layer()}. {WAY_OUT}")
        down, up = layer.lora_A[name], layer.lora_B[name]
        elsewhere = any(one.weight.is_meta or one.weight is not here(one.weight) for one in (down, up))
        offloaded = (down, up) if elsewhere else None
        updates.append(LowRank(layer, down.weight, up.weight, layer.scaling[name], offloaded))
    return updates


def _moved(update: LowRank, model: Any) -> LowRank:
    """`update` where its layer runs, in the dtype of its weights."""
    weight = next(update.module.parameters())
    device, dtype = execution_device(update.module), weight.dtype if weight.dtype.is_floating_point else model.dtype
    return update._replace(down=update.down.to(device, dtype), up=update.up.to(device, dtype))


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
    try:
        source = adapter_source(adapter, "amateur")
    except NotAvailableError as error:
        raise NotAvailableError(
            f'{error} Nor is it an adapter loaded in this model. Pass amateur="prompt" for the prompt-only amateur.'
        ) from error
    folder, config = source.path, adapter_settings(source)
    _check_plain_lora(config, adapter)
    if not (folder / "adapter_model.safetensors").is_file():
        raise NotAvailableError(
            f"adapter {adapter!r} has no adapter_model.safetensors; save it again with safetensors."
        )
    sides: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in adapter_tensors(source).items():
        if not (match := _LORA_KEY.match(key)):
            raise ModelError(f"adapter {adapter!r} trains {key!r}, which is not a LoRA weight. {WAY_OUT}")
        sides.setdefault(match["module"], {})[match["side"]] = tensor

    modules = dict(model.named_modules())
    updates = []
    for name, pair in sides.items():
        module = modules.get(name.removesuffix(".base_layer"))
        if module is None or pair.keys() != {"A", "B"}:
            raise ModelError(f"adapter {adapter!r} adapts {name!r}, which {type(model).__name__} does not have.")
        if pair["A"].dim() != 2 or (features := _features(module)) is None:
            raise ModelError(f"adapter {adapter!r} adapts {name!r}, which is not a linear layer. {WAY_OUT}")
        if (found := (pair["A"].shape[1], pair["B"].shape[0])) != features:
            raise ModelError(
                f"adapter {adapter!r} was trained for another model: {name!r} maps {found[0]} to {found[1]} features "
                f"there, {features[0]} to {features[1]} here."
            )
        rank = pair["A"].shape[0]
        alpha = _matching(config.get("alpha_pattern") or {}, name, config["lora_alpha"])
        scaling = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        updates.append(_moved(LowRank(module, pair["A"], pair["B"], scaling), model))
    return updates
