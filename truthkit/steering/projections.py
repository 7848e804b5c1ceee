"""How far the states of a text's tokens lie along a vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from truthkit.activations.capture import Capture
from truthkit.hf.sites import input_device
from truthkit.hf.wrapping import plain_model
from truthkit.steering.vector import SteeringVector


def projections(
    model: Any, vector: SteeringVector, inputs: Mapping[str, torch.Tensor], layers: Sequence[int] | None = None
) -> dict[int, list[float]]:
    """For each layer one number per token: its state's component along the layer's unit direction, in one forward.

    Inside a `Steering` block the states are the steered ones.

    Args:
        model: a text or image-text model.
        vector: made for this model, or one that shares its activations' space.
        inputs: of one text, without padding: `input_ids` of shape (1, tokens), and images where it has some.
        layers: some of the vector's layers; None is all.

    Raises:
        ArgumentError: the vector has no such layer.
        ModelError: the vector is not for a model of this shape.
    """
    vector.check_model(model, allow_other_model=True)
    plain = plain_model(model)
    wanted = list(map(vector.number, vector.layers if layers is None else layers))
    units = {layer: torch.nn.functional.normalize(vector[layer].double(), dim=0) for layer in wanted}
    moved = {name: value.to(input_device(plain)) for name, value in inputs.items()}
    with Capture(model, wanted, site=vector.site) as capture, torch.no_grad():
        plain(**moved, use_cache=False)
    return {layer: (capture[layer].cpu().double() @ unit).tolist() for layer, unit in units.items()}
