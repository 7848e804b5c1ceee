"""Any image as upright RGB, or an error that names the file and what is wrong with it."""

from __future__ import annotations

import io
import os
import stat
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError, __version__

from truthkit.errors import ArgumentError
from truthkit.images.regions import overlaps, split_region

ImageSource = str | os.PathLike[str] | bytes | Image.Image

_WAY_OUT = "Shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS."
_GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")


def read_image(source: ImageSource) -> Image.Image:
    """A new RGB image, 8 bits per channel, upright as its EXIF orientation says.

    Transparent pixels lie on white; 16-bit grey is scaled by 255/65535; of several frames the first is read. What a
    file says of its size is believed before a pixel is decoded: above `PIL.Image.MAX_IMAGE_PIXELS` (89 million), which
    may be raised, it is refused.

    Args:
        source: a path, with a part of the image behind it perhaps (`truthkit.images.regions`), the bytes of a file, or
            a Pillow image, which stays as it is.

    Raises:
        ArgumentError: no such file, no regular file (a folder, a device, a pipe), not an image, damaged or cut short,
            too large, empty, or of a mode without a fixed range (32-bit integers, floats); or the part lies outside.
    """
    if isinstance(source, Image.Image):
        return _upright_rgb(source, "the Pillow image")
    if isinstance(source, bytes | bytearray | memoryview):
        return _decoded(bytes(source), f"the image of {len(source)} bytes")
    if not isinstance(source, str | os.PathLike):
        raise ArgumentError(f"an image is a {type(source).__name__}; expected a path, bytes or a Pillow image.")
    path, box = split_region(os.fspath(source)) if isinstance(os.fspath(source), str) else (source, None)
    if box is not None:
        whole = read_image(path)
        if not overlaps(box, whole.size):
            raise ArgumentError(f"{str(source)!r} is a part that lies outside of the image, {whole.size} pixels.")
        return whole.crop(box)
    name = repr(os.fspath(source))
    name = name if len(name) < 300 else f"{name[:300]}..."
    try:
        regular = stat.S_ISREG(Path(source).stat().st_mode)
        content = Path(source).read_bytes() if regular else b""
    except FileNotFoundError:
        web = str(source).startswith(("http://", "https://"))
        hint = "; download it first, addresses are not fetched" if web else ""
        raise ArgumentError(f"there is no image file {name}{hint}.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ArgumentError(f"the image file {name} cannot be read: {reason}.") from None
    if not regular:
        raise ArgumentError(f"{name} is a folder, a device or a pipe; expected an image file.")
    return _decoded(content, f"the image file {name}")


def check_image(content: bytes) -> None:
    """Raise what `read_image` would raise; a JPEG file is decoded at an eighth of its size for it, in little memory."""
    _decoded(content, f"the image of {len(content)} bytes", only_check=True)


def as_it_lies(source: ImageSource) -> Image.Image:
    """What an image processor of transformers makes of an opened image: RGB, whatever its EXIF orientation says.

    Args:
        source: what `read_image` has read without an error.
    """
    return _without_notes(_opened(source))


def as_transformers_loads(source: ImageSource) -> Image.Image:
    """What transformers makes of a path or of an image in a chat: upright RGB, transparency dropped; as above."""
    return _without_notes(ImageOps.exif_transpose(_opened(source)))


def _without_notes(image: Image.Image) -> Image.Image:
    found = image.convert("RGB")
    found.info.clear()
    return found


def _opened(source: ImageSource) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    return Image.open(io.BytesIO(source) if isinstance(source, bytes | bytearray | memoryview) else source)


def rgb(image: Image.Image) -> Image.Image:
    """`image` itself if it is plain RGB with at least one pixel, else what `read_image` makes of it.

    Raises:
        ArgumentError: as in `read_image`.
    """
    loaded = type(image) is Image.Image and image.mode == "RGB" and min(image.size) > 0
    plain = loaded and "transparency" not in image.info and _orientation(image) == 1
    return image if plain else read_image(image)


def _decoded(content: bytes, name: str, *, only_check: bool = False) -> Image.Image:
    """The image in a file's bytes, or with `only_check` one pixel of it; `name` starts every error."""
    if not content:
        raise ArgumentError(f"{name} is empty.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused below
            image = Image.open(io.BytesIO(content))
    except UnidentifiedImageError:
        raise ArgumentError(
            f"{name} is no image that Pillow {__version__} knows: another format, or a damaged header."
        ) from None
    except Image.DecompressionBombError as error:
        raise ArgumentError(f"{name} is too large: {error} {_WAY_OUT}") from None
    except Exception as error:  # a damaged header makes Pillow's plugins raise almost anything
        raise ArgumentError(f"{name} is damaged: {_said(error)}.") from error
    limit, pixels = Image.MAX_IMAGE_PIXELS, image.width * image.height
    if limit is not None and pixels > limit:
        raise ArgumentError(f"{name} is too large: {pixels} pixels, where {limit} are allowed. {_WAY_OUT}")
    with image:
        if only_check:
            image.draft(None, (image.width // 8, image.height // 8))
        return _upright_rgb(image, name, one_pixel=only_check)


def _upright_rgb(image: Image.Image, name: str, *, one_pixel: bool = False) -> Image.Image:
    if min(image.size) < 1:
        width, height = image.size
        raise ArgumentError(f"{name} is {width} x {height} pixels; expected at least one pixel.")
    try:
        image.load()
        whole = image.crop((0, 0, 1, 1)) if one_pixel else image
        upright = ImageOps.exif_transpose(whole) if _orientation(image) in range(2, 9) else whole
    except Image.DecompressionBombError as error:
        raise ArgumentError(f"{name} is too large: {error}") from None
    except Exception as error:  # as above: whatever a decoder stumbles over means that the file is damaged
        raise ArgumentError(f"{name} is damaged or cut short: {_said(error)}.") from error
    found = _as_rgb(upright, name, sixteen_bits=image.mode == "I" and image.format == "PNG")
    found.info.clear()
    return found


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1, upright, where there is none or the EXIF block is damaged."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged block makes Pillow raise almost anything, and the pixels can still be sound
        return 1


def _as_rgb(image: Image.Image, name: str, *, sixteen_bits: bool) -> Image.Image:
    """A new RGB image; `sixteen_bits` says that mode "I" holds 0 to 65535, as older Pillows read such a PNG."""
    if image.mode in _GREY_16 or sixteen_bits:
        return _grey_16_to_rgb(image)
    if image.mode in ("I", "F"):
        raise ArgumentError(
            f"{name} has mode {image.mode!r}, whose values have no fixed range; expected 8 or 16 bits per channel. "
            "Scale it to 0-255 and convert it to 'L' first."
        )
    try:
        if "transparency" in image.info or image.mode.lower().endswith("a"):
            return _on_white(image)
        return image.convert("RGB")
    except ValueError as error:
        raise ArgumentError(f"{name} has mode {image.mode!r}, which cannot become RGB: {_said(error)}.") from None


def _grey_16_to_rgb(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float32)
    return Image.fromarray(np.clip(np.rint(values / 257), 0, 255).astype(np.uint8)).convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _said(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__
