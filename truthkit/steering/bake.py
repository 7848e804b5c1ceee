"""A constant vector folded into a bias: steering at no cost at all, and exactly undone.

A decoder block's output is the residual stream plus what its last projection adds, so a vector added to that
projection's bias is added to the block's output, at every token. For attention heads the vector goes through the output
projection first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from truthkit.errors import ModelError
from truthkit.hf.sites import decoder_blocks, input_device, resolve_layers, site_module
from truthkit.hf.spread import like, refuse_fully_sharded, whole
from truthkit.hf.wrapping import plain_model
from truthkit.steering.steer import Steering

_LAST_PROJECTION = ("down_proj", "c_proj", "dense_4h_to_h", "fc2", "w2", "wo")
_CONFIG_FLAGS = {"mlp": "mlp_bias", "heads": "attention_bias"}


class Baked:
    """A vector that is part of a model's biases now; `undo` takes it out, to the last bit. Also a context manager."""

    def __init__(self, model: Any):
        self.model = model
        self._before: list[tuple[Any, nn.Parameter | None, torch.Tensor | None]] = []
        self._flag: tuple[Any, str, bool] | None = None

    def add(self, projection: Any, shift: torch.Tensor) -> None:
        """Add `shift` to the bias of `projection`, or make it the bias where there is none."""
        bias = projection.bias
        self._before.append((projection, bias, None if bias is None else bias.detach().clone()))
        weight = projection.weight
        dtype = weight.dtype if weight.dtype.is_floating_point else torch.float32
        if bias is None:
            projection.bias = nn.Parameter(like(weight, shift.to(weight.device, dtype)), requires_grad=False)
        else:
            with torch.no_grad():
                bias += like(weight, shift.to(bias.device, bias.dtype))

    def set_flag(self, config: Any, name: str) -> None:
        """Set a switch of the config, so that checkpoints are loaded with the biases."""
        self._flag = (config, name, getattr(config, name))
        setattr(config, name, True)

    def undo(self) -> None:
        """Put every bias back as it was; a second call does nothing."""
        for projection, bias, values in reversed(self._before):
            projection.bias = bias
            if bias is not None and values is not None:
                with torch.no_grad():
                    bias.copy_(values)
        self._before.clear()
        if self._flag is not None:
            setattr(*self._flag)
            self._flag = None

    def __enter__(self) -> Baked:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.undo()


def bake(
    model: Any, vectors: Mapping[int, torch.Tensor], *, site: str = "block", keep_in_memory: bool = False
) -> Baked:
    """Fold vectors into the biases of `model`, as steering with mode "add" at all positions would add them.

    The result is compared with real steering on a probe, so a block that treats its projections otherwise (a norm
    behind the MLP, as in Gemma 2 and 3) is refused and left as it was. `model.save_pretrained` then writes an ordinary
    checkpoint: where the architecture has biases by a switch of its config, the switch is set, and the other layers get
        biases of zero.

    Args:
        model: a text or image-text model.
        vectors: layer to what is to be added there, (features,).
        site: "block", "heads" or "mlp".
        keep_in_memory: bake also where a checkpoint could not hold the biases, because the architecture has none.

    Raises:
        ModelError: the vector cannot be a bias here; the message says why.
    """
    model = plain_model(model)
    blocks = decoder_blocks(model)
    layers = resolve_layers(list(vectors), len(blocks))
    if any(parameter.is_meta for parameter in blocks.parameters()):
        raise ModelError("weights of this model are offloaded, so no bias can be changed; steer the model instead.")
    refuse_fully_sharded(model, "no bias can be changed; steer the model instead.")
    baked = Baked(model)
    try:
        projections = [_projection(block, site) for block in blocks]
        if any(projections[layer].bias is None for layer in layers):
            _allow_biases(baked, model, blocks, site, keep_in_memory)
        plain = _probe(model, blocks, layers, None)
        steered = _probe(model, blocks, layers, Steering(model, vectors, site=site))
        for layer, vector in zip(layers, vectors.values(), strict=True):
            baked.add(projections[layer], _through(projections[layer], vector, site))
        _compare(plain, steered, _probe(model, blocks, layers, None), model.dtype, type(blocks[0]).__name__)
    except BaseException:
        baked.undo()
        raise
    return baked


def _projection(block: nn.Module, site: str) -> Any:
    if site == "heads":
        return site_module(block, "heads")
    mlp = site_module(block, "mlp")
    found = (
        mlp if hasattr(mlp, "weight") else next((getattr(mlp, n) for n in _LAST_PROJECTION if hasattr(mlp, n)), None)
    )
    if found is None or not hasattr(found, "bias"):
        raise ModelError(
            f"{type(block).__name__} has no single last projection whose bias could hold the vector (its MLP is "
            f"{type(mlp).__name__}); steer it instead."
        )
    return found


def _through(projection: Any, vector: torch.Tensor, site: str) -> torch.Tensor:
    if site != "heads":
        return vector
    weight = projection.weight
    if not weight.dtype.is_floating_point:
        raise ModelError("the output projection is quantised, so heads cannot be baked; steer them instead.")
    weight = whole(weight) if isinstance(projection, nn.Linear) else weight.T  # GPT-2 keeps its weights transposed
    return (weight.detach().double() @ vector.to(weight.device, torch.float64)).to(torch.float32)


def _allow_biases(baked: Baked, model: Any, blocks: nn.ModuleList, site: str, keep_in_memory: bool) -> None:
    """Make room for biases in an architecture that has none, in every layer if a switch of the config says so."""
    config = model.config.get_text_config(decoder=True)
    flag = _CONFIG_FLAGS["heads" if site == "heads" else "mlp"]
    parts: list[Any] = [getattr(block, "self_attn" if site == "heads" else "mlp", None) for block in blocks]
    if hasattr(config, flag) and None not in parts:
        baked.set_flag(config, flag)
        for part in parts:
            for linear in part.children():
                if isinstance(linear, nn.Linear) and getattr(linear, "bias", None) is None:
                    baked.add(linear, torch.zeros(linear.out_features))
    elif not keep_in_memory:
        raise ModelError(
            f"{type(model).__name__} has no biases there and no switch for them in its config, so a saved checkpoint "
            "would lose the vector; pass keep_in_memory=True to bake it into this model only."
        )


def _probe(model: Any, blocks: nn.ModuleList, layers: tuple[int, ...], steering: Steering | None) -> list[torch.Tensor]:
    from truthkit.activations.capture import Capture

    device = input_device(model)
    count = min(8, model.config.get_text_config(decoder=True).vocab_size)
    reads = Capture(model, layers)
    with torch.no_grad():
        if steering is not None:
            with steering, reads:
                model(input_ids=torch.arange(count, device=device)[None], use_cache=False)
        else:
            with reads:
                model(input_ids=torch.arange(count, device=device)[None], use_cache=False)
    return [reads[layer].double() for layer in layers]


def _compare(
    plain: list[torch.Tensor], steered: list[torch.Tensor], baked: list[torch.Tensor], dtype: torch.dtype, block: str
) -> None:
    rounding = 8 * torch.finfo(dtype).eps
    for before, wanted, found in zip(plain, steered, baked, strict=True):
        if (wanted - found).norm() > 0.01 * (wanted - before).norm() + rounding * wanted.norm():
            raise ModelError(
                f"{block} does something with its projection's output before it joins the residual stream, so the "
                "vector cannot be baked there; steer it instead."
            )
