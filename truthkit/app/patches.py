"""How alike the states of an answer's tokens and of the image's patches are, in one layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from truthkit.activations.capture import Capture
from truthkit.decoding.engine.image_inputs import placeholders
from truthkit.errors import ArgumentError
from truthkit.hf.sites import input_device
from truthkit.hf.wrapping import plain_model


@dataclass(frozen=True)
class PatchCosines:
    """Cosines between tokens and patches.

    Attributes:
        rows, columns: of the patches in the image.
        values: shape (tokens, rows · columns), a row of patches after another.
    """

    rows: int
    columns: int
    values: torch.Tensor


def patch_cosines(model: Any, inputs: Mapping[str, torch.Tensor], length: int, layer: int) -> PatchCosines:
    """Read prompt and answer once, and compare what block `layer` puts out at each token and each patch.

        cos(h_t, h_p) = h_t · h_p / (|h_t| |h_p|)

    Inside a `Steering` block the states are the steered ones.

    Args:
        model: an image-text model whose image tokens stand among those of the text.
        inputs: of one text, without padding: `input_ids` of shape (1, tokens), and one image.
        length: tokens of the prompt; those behind are the answer's.
        layer: a layer number.

    Raises:
        ArgumentError: the image's tokens do not stand in the prompt, or not in one grid; or there is no such layer.
    """
    plain = plain_model(model)
    moved = {name: value.to(input_device(plain)) for name, value in inputs.items()}
    seen = placeholders(plain, moved["input_ids"])[0, :length]
    rows, columns = _grid(plain, moved, int(seen.sum()))
    with Capture(model, [layer]) as capture, torch.no_grad():
        plain(**moved, use_cache=False)
    states = torch.nn.functional.normalize(capture[layer].double(), dim=1)
    return PatchCosines(rows, columns, (states[length:] @ states[:length][seen.to(states.device)].T).cpu())


def _grid(model: Any, inputs: Mapping[str, torch.Tensor], count: int) -> tuple[int, int]:
    """Rows and columns of an image's tokens."""
    if not count:
        raise ArgumentError("this model has no image tokens among those of its prompt, so there is nothing to compare.")
    if (grids := inputs.get("image_grid_thw")) is not None:
        frames, height, width = grids[0].tolist()
        merged = math.isqrt(frames * height * width // count)
        if len(grids) == 1 and frames == 1 and merged and (height // merged) * (width // merged) == count:
            return height // merged, width // merged
    pixels = inputs.get("pixel_values")
    whole = grids is None and pixels is not None and pixels.dim() == 4 and len(pixels) == 1
    if whole and not hasattr(model.config, "qformer_config"):
        assert pixels is not None
        height, width = pixels.shape[-2:]
        rows = round(math.sqrt(count * height / width))
        if rows and count % rows == 0 and rows * width == count // rows * height:
            return rows, count // rows
    raise ArgumentError(
        f"the {count} image tokens of this prompt do not lie in one grid, as those of one whole image do; a map needs "
        "a prompt with one image, and a model that neither cuts it into tiles nor sums it up."
    )
