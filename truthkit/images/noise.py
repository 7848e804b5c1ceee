"""The diffusion noise that VCD (arXiv 2311.16922) puts on an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from truthkit.errors import ArgumentError

STEPS = 1000
"""Length of the published schedule."""


def signal_and_noise(step: int) -> tuple[float, float]:
    """`sqrt(ᾱ_t)` and `sqrt(1 − ᾱ_t)` of VCD's schedule in float32, as `vcd_utils/vcd_add_noise.py` computes them.

    `β = sigmoid(linspace(-6, 6, 1000)) · (0.5e-2 − 1e-5) + 1e-5`, `ᾱ_t = Π_{s ≤ t} (1 − β_s)`.

    Args:
        step: `t`, 0 to 999. Step 0 is the first of the 1000, not "no noise": its noise has the weight 0.005.

    Raises:
        ArgumentError: `step` is no whole number from 0 to 999.
    """
    if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < STEPS:
        raise ArgumentError(
            f"step is {step!r}; expected a whole number from 0 to {STEPS - 1}, where 0 is the faintest noise."
        )
    betas = torch.sigmoid(torch.linspace(-6, 6, STEPS, dtype=torch.float32)) * (0.5e-2 - 1e-5) + 1e-5
    kept = torch.cumprod(1 - betas, dim=0)[step]
    return float(kept.sqrt()), float((1 - kept).sqrt())


def diffusion_noise(pixel_values: Tensor, *, step: int = 500, seeds: Sequence[int]) -> Tensor:
    """`sqrt(ᾱ_t)·x + sqrt(1 − ᾱ_t)·ε` with `ε` from N(0, 1): the noisy view of VCD, on processed pixels.

    Each row's noise is drawn on the CPU in float32 from that row's seed alone, so it is the same on every device, in
    every dtype and in every batch. The sum is taken in float32 (float64 stays float64) and then rounded to the dtype.

    Args:
        pixel_values: (rows, ...), floating point. A row is what one seed belongs to: an image of (channels, height,
            width), the tiles of one image, or, for models that pack the patches of all images into one matrix, the
            patches of one image, `patches[None]`.
        step: `t` of the schedule, 0 (faint) to 999; VCD's is 500. See `signal_and_noise`.
        seeds: one whole number per row; `content_seed` makes them.

    Returns:
        A new tensor of the same shape, dtype and device.

    Raises:
        ArgumentError: `step` is out of range, `seeds` does not fit the rows, or the values are not floating point.
    """
    signal, amount = signal_and_noise(step)
    if not pixel_values.is_floating_point():
        raise ArgumentError(f"pixel_values are {pixel_values.dtype}; expected the processor's floating-point pixels.")
    if pixel_values.dim() == 0 or len(seeds) != pixel_values.shape[0]:
        raise ArgumentError(
            f"there are {len(seeds)} seeds for pixel_values of shape {tuple(pixel_values.shape)}; expected one per row."
        )
    rows = [_noise(tuple(pixel_values.shape[1:]), int(seed)) for seed in seeds]
    if not rows:
        return pixel_values.clone()
    dtype = torch.promote_types(pixel_values.dtype, torch.float32)
    noise = torch.stack(rows).to(pixel_values.device, dtype)
    return (signal * pixel_values.to(dtype) + amount * noise).to(pixel_values.dtype)


def _noise(shape: tuple[int, ...], seed: int) -> Tensor:
    generator = torch.Generator(device="cpu").manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
