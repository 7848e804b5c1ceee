"""What an image processor made of an image, as a picture again."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image


def pictured(pixels: torch.Tensor, image_processor: Any) -> Image.Image | None:
    """The picture that processed pixels show, without their normalization; what lies beyond black and white is cut off.

    Args:
        pixels: (channels, height, width), or (tiles, channels, height, width), of which the first is shown.
        image_processor: what made them; its mean and deviation are those that it divided by.

    Returns:
        RGB; None for pixels that are packed otherwise, as Qwen2-VL's in patches.
    """
    pixels = pixels[0] if pixels.dim() == 4 else pixels
    if pixels.dim() != 3 or pixels.shape[0] != 3:
        return None
    pixels = pixels.detach().float().cpu()
    if getattr(image_processor, "do_normalize", False):
        mean, deviation = (torch.tensor(getattr(image_processor, name)) for name in ("image_mean", "image_std"))
        pixels = pixels * deviation[:, None, None] + mean[:, None, None]
    shown = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(shown.permute(1, 2, 0).numpy())
