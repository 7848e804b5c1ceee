"""Images that a request brings as base64, checked before they wait."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from typing import Any

from PIL import Image

from truthkit.errors import ArgumentError
from truthkit.images.reading import check_image

MAX_PIXELS = 40_000_000
"""Of one image."""


def uploaded(encoded: Any, number: int) -> bytes:
    """The file of image `number`, which can be read, from its base64.

    Raises:
        ArgumentError: it is not base64, no image, damaged or too large.
    """
    try:
        content = base64.b64decode(encoded, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise ArgumentError(f"image {number} is not base64.") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is a stricter one
        pixels = _pixels(content)
    if pixels > MAX_PIXELS:
        limit = MAX_PIXELS // 1_000_000
        raise ArgumentError(f"image {number} has {pixels / 1e6:.0f} million pixels; shrink it to {limit} million.")
    check_image(content)
    return content


def _pixels(content: bytes) -> int:
    """How many an image has by its header; 0 for what `check_image` will say more about."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.width * image.height
    except Exception:  # a damaged header makes Pillow's plugins raise almost anything
        return 0
