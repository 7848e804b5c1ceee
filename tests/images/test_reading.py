"""Every kind of image becomes upright RGB, and every broken file a clear error."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.each import each
from tests.images.test_operations import picture
from truthkit.errors import ArgumentError
from truthkit.images.reading import read_image, rgb
from truthkit.images.transforms import TRANSFORMS, content_seed, transformed


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def test_path_bytes_and_image_are_the_same(tmp_path: Path) -> None:
    image = picture(9, 5)
    path = tmp_path / "a picture.png"
    image.save(path)
    opened = Image.open(path)
    for source in (path, str(path), path.read_bytes(), bytearray(path.read_bytes()), image, opened):
        assert read_image(source) == image
    assert read_image(image) is not image
    opened.close()


@each("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    """The table of the EXIF standard, over arrays."""
    image = picture(9, 5)
    stored = np.asarray(image)
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.swapaxes(0, 1),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(stored, 1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(image, "PNG", exif=exif)
    found = read_image(file)
    assert np.array_equal(found, upright)
    assert np.array_equal(read_image(found), upright)
    with Image.open(io.BytesIO(file)) as opened:
        assert np.array_equal(rgb(opened), upright)
        assert content_seed(opened, "x") == content_seed(found, "x")
        flipped, _ = transformed(opened, "horizontal_flip", seed=0)
    assert np.array_equal(read_image(flipped), upright[:, ::-1])


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_does_not_cost_the_picture() -> None:
    image = picture(9, 5)
    for block in (b"Exif\0\0nonsense", b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x12\0\x03\0\0", b"x" * 30):
        assert read_image(encoded(image, "PNG", exif=block)) == image
        assert read_image(encoded(image, "JPEG", exif=block)).size == (9, 5)


def test_transparency_lies_on_white() -> None:
    pixels = np.zeros((1, 4, 4), dtype=np.uint8)
    pixels[0, :, 0] = 200
    pixels[0, :, 3] = [0, 51, 255, 128]
    found = np.asarray(read_image(encoded(Image.fromarray(pixels), "PNG"))).astype(float)
    alpha = pixels[..., 3:] / 255
    assert np.abs(found - (alpha * pixels[..., :3] + (1 - alpha) * 255)).max() <= 1
    assert read_image(Image.new("LA", (1, 1), (40, 0))).getpixel((0, 0)) == (255, 255, 255)
    assert read_image(Image.new("La", (1, 1), (40, 255))).getpixel((0, 0)) == (40, 40, 40)
    assert read_image(Image.new("RGBa", (1, 1), (0, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)


def test_palettes() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putpixel((1, 0), 1)
    assert list(read_image(encoded(image, "PNG")).get_flattened_data()) == [(10, 20, 30), (200, 100, 0)]
    for transparent in (1, b"\xff\x00"):
        found = read_image(encoded(image, "PNG", transparency=transparent))
        assert list(found.get_flattened_data()) == [(10, 20, 30), (255, 255, 255)]


def test_a_transparent_colour() -> None:
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (9, 9, 9))
    found = read_image(encoded(image, "PNG", transparency=(1, 2, 3)))
    assert list(found.get_flattened_data()) == [(255, 255, 255), (9, 9, 9)]


def test_grey_black_and_white_and_print_colours() -> None:
    grey = Image.fromarray(np.array([[0, 7, 255]], dtype=np.uint8))
    assert list(read_image(encoded(grey, "PNG")).get_flattened_data()) == [(0,) * 3, (7,) * 3, (255,) * 3]
    assert list(read_image(grey.convert("1")).get_flattened_data()) == [(0,) * 3, (0,) * 3, (255,) * 3]
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert np.abs(np.asarray(read_image(encoded(cmyk, "JPEG"))).astype(int) - [255, 0, 0]).max() <= 2


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_sixteen_bits(file_format: str) -> None:
    values = np.array([[0, 128, 129, 257 * 200 + 128, 65535]], dtype=np.uint16)
    image = Image.fromarray(values)
    assert image.mode.startswith("I;16")
    found = np.asarray(read_image(encoded(image, file_format)))
    assert found[0].tolist() == [[level] * 3 for level in (0, 0, 1, 200, 255)]
    assert np.array_equal(read_image(image), found)


def test_the_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    file = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read_image(file).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_values_without_a_range(mode: str) -> None:
    with pytest.raises(ArgumentError, match=f"has mode '{mode}', whose values have no fixed range"):
        read_image(Image.new(mode, (2, 2)))


def test_one_pixel_and_none() -> None:
    pixel = Image.new("RGB", (1, 1), (200, 100, 50))
    assert read_image(encoded(pixel, "PNG")) == pixel
    with pytest.raises(ArgumentError, match="is 0 x 3 pixels; expected at least one pixel"):
        read_image(Image.new("RGB", (0, 3)))
    with pytest.raises(ArgumentError, match="at least one pixel"):
        transformed(Image.new("RGB", (3, 0)), seed=0)


def test_eight_thousand_pixels() -> None:
    """64 million pixels, below Pillow's warning."""
    file = encoded(Image.new("L", (8000, 8000), 77), "PNG", compress_level=1)
    image = read_image(file)
    assert image.size == (8000, 8000)
    assert transformed(image, "horizontal_flip", seed=0)[0].getpixel((7999, 7999)) == (77, 77, 77)
    strip = image.crop((0, 0, 8000, 40))
    for name in TRANSFORMS:
        found = transformed(strip, name, seed=0, size=(336, 336))[0]
        assert found.size == ((336, 336) if name == "crop" else (8000, 40))


def promise(width: int, height: int) -> bytes:
    """A PNG that promises this size and holds nothing."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b"")]
    file = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        file += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return file


def test_an_absurd_size_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(promise(60_000, 60_000))
    with pytest.raises(ArgumentError, match=r"bomb.png' is too large: .*3600000000 pixels.* raise PIL.Image.MAX_IMAGE"):
        read_image(path)


def test_pillows_own_limit_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above it Pillow warns, and above twice the limit it raises; both are refused, and a warning is nobody's."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    within, between, above = (encoded(picture(width, 10), "PNG") for width in (10, 15, 21))
    assert read_image(within).size == (10, 10)
    with pytest.raises(ArgumentError, match="is too large: 150 pixels, where 100 are allowed"):
        read_image(between)
    with pytest.raises(ArgumentError, match="is too large"):
        read_image(above)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert read_image(above).size == (21, 10)


def test_a_small_file_of_many_pixels_costs_no_memory() -> None:
    """20 kB that are 169 million pixels: refused by what the header says."""
    with pytest.raises(ArgumentError, match="is too large: 169000000 pixels"):
        read_image(promise(13_000, 13_000))


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null"])
def test_only_regular_files_are_read(path: str) -> None:
    with pytest.raises(ArgumentError, match=f"'{path}' is a folder, a device or a pipe; expected an image file."):
        read_image(path)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"there is no image file '.*none.jpg'\."):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(ArgumentError, match=r"there is no image file 'https://x.org/a.jpg'; download it first"):
        read_image("https://x.org/a.jpg")
    with pytest.raises(ArgumentError, match=r"cannot be read: File name too long") as failure:
        read_image("A" * 100_000)
    assert len(str(failure.value)) < 400
    with pytest.raises(ArgumentError, match="is a folder, a device or a pipe"):
        read_image(tmp_path)
    with pytest.raises(ArgumentError, match=r"cannot be read: .*null"):
        read_image("a\0b")


def test_what_is_not_an_image(tmp_path: Path) -> None:
    path = tmp_path / "notes.jpg"
    path.write_text("no image")
    with pytest.raises(ArgumentError, match=r"the image file '.*notes.jpg' is no image that Pillow .* knows"):
        read_image(path)
    path.write_bytes(b"")
    with pytest.raises(ArgumentError, match=r"notes.jpg' is empty"):
        read_image(path)
    with pytest.raises(ArgumentError, match="the image of 3 bytes is no image"):
        read_image(b"abc")
    bad: Any = np.zeros((4, 4, 3))
    with pytest.raises(ArgumentError, match="an image is a ndarray; expected a path, bytes or a Pillow image"):
        read_image(bad)


@each("file_format", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
def test_files_cut_short(file_format: str, tmp_path: Path) -> None:
    file = encoded(picture(60, 50), file_format)
    path = tmp_path / "cut"
    path.write_bytes(file[: len(file) // 2])
    with pytest.raises(ArgumentError, match=r"cut' is (damaged|no image)"):
        read_image(path)


@each("file_format", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
def test_damage_is_an_image_or_an_argument_error(file_format: str) -> None:
    file, rng = encoded(picture(40, 30), file_format), random.Random(0)
    errors = 0
    for _ in range(60):
        damaged = bytearray(file[: rng.randrange(len(file))] if rng.random() < 0.3 else file)
        for _ in range(rng.randrange(1, 8)):
            if damaged:
                damaged[min(rng.randrange(len(damaged)), rng.randrange(len(damaged)))] = rng.randrange(256)
        try:
            assert read_image(bytes(damaged)).mode == "RGB"
        except ArgumentError:
            errors += 1
    assert errors > 5
