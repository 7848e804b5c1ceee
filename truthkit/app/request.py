"""What the page asks for, checked for its form: JSON in, typed fields out."""

from __future__ import annotations

import base64
import binascii
import io
import reprlib
import warnings
from dataclasses import dataclass
from typing import Any

from PIL import Image

from truthkit.decoding.spec import DecoderSpec, parse_spec, spec_of
from truthkit.errors import ArgumentError, did_you_mean
from truthkit.images.reading import check_image
from truthkit.serving.aside import Aside

MAX_BODY = 32 * 2**20
"""Bytes of a request; images come as base64 inside."""
MAX_TEXT = 200_000
"""Characters of prompt, system message and passage together."""
MAX_IMAGES = 4
MAX_PIXELS = 40_000_000
"""Of one image."""
MAX_CARDS = 8
MAX_NEW_TOKENS = 4096
_MAX_OPTION = 10_000  # characters
_LARGEST = 1e30


@dataclass(frozen=True)
class Steer:
    """How a loaded vector is used: strength 0 leaves the model alone; no `layers` are those it was loaded with."""

    strength: float
    layers: str


@dataclass(frozen=True)
class Card:
    """One decoder as the page has it, not read yet.

    Attributes:
        decoder: a name, or with `options` None all of it in writing.
        options: as they were typed.
        steering: one per loaded vector, or none.
    """

    decoder: str
    options: dict[str, str] | None
    steering: tuple[Steer, ...]

    def spec(self) -> DecoderSpec:
        """The decoder that was asked for.

        Raises:
            ArgumentError: there is none of that name or with these options.
        """
        return parse_spec(self.decoder) if self.options is None else spec_of(self.decoder, self.options)


@dataclass(frozen=True)
class RunRequest:
    """A prompt for several decoders.

    Attributes:
        run: the page's own name for this run, to cancel it by.
        prompt, system, context, raw: as in `truthkit generate`; "" where there is none.
        images: image files that can be read, laid aside; decoded they would be far larger.
        settings: fields of `truthkit.generation.settings.AnswerSettings`.
        cards: the decoders.
    """

    run: str
    prompt: str
    system: str
    context: str
    raw: bool
    images: Aside
    settings: dict[str, Any]
    cards: tuple[Card, ...]


def read_request(document: Any) -> RunRequest:
    """The request in a parsed JSON document.

    Raises:
        ArgumentError: a field is missing or not of its kind, or an image cannot be read or is too large.
    """
    fields = _object(document, "the request", "run prompt system context raw images settings cards")
    settings = _object(fields.get("settings", {}), "settings", "max_new_tokens sample temperature top_p seed")
    texts = {name: _text(fields, name, MAX_TEXT) for name in ("prompt", "system", "context")}
    if (length := sum(map(len, texts.values()))) > MAX_TEXT:
        raise ArgumentError(
            f"prompt, system message and passage have {length} characters; shorten them to {MAX_TEXT} together."
        )
    images = _list(fields.get("images", []), "images", MAX_IMAGES)
    cards = _list(fields.get("cards"), "cards", MAX_CARDS)
    if not cards:
        raise ArgumentError("there is no decoder to answer; add one.")
    return RunRequest(
        run=_text(fields, "run", 100),
        prompt=texts["prompt"],
        system=texts["system"].strip(),
        context=texts["context"].strip(),
        raw=_flag(fields, "raw"),
        settings={
            "max_new_tokens": _integer(settings, "max_new_tokens", 64, 1, MAX_NEW_TOKENS),
            "sample": _flag(settings, "sample"),
            "temperature": _number(settings, "temperature"),
            "top_p": _number(settings, "top_p"),
            "seed": _integer(settings, "seed", 0, 0, 2**63 - 1),
        },
        cards=tuple(map(_card, cards)),
        images=Aside([_image(image, number) for number, image in enumerate(images, start=1)]),
    )


def _card(document: Any) -> Card:
    fields = _object(document, "a decoder", "decoder options steering")
    written = fields.get("options")
    options = None if written is None else {key: _text(written, key) for key in _object(written, "options")}
    steering = [
        _object(one, "steering", "strength layers") for one in _list(fields.get("steering", []), "steering", 16)
    ]
    uses = tuple(Steer(_number(one, "strength") or 0.0, _text(one, "layers").strip()) for one in steering)
    return Card(_text(fields, "decoder"), options, uses)


def _image(encoded: Any, number: int) -> bytes:
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


def _object(value: Any, name: str, known: str | None = None) -> dict[str, Any]:
    """A JSON object, whose fields are among `known`, words of a text."""
    if not isinstance(value, dict):
        raise ArgumentError(f"{name} is not a JSON object.")
    names = value if known is None else known.split()
    for field in value:
        if field not in names:
            meant = did_you_mean(field[:100], names)
            raise ArgumentError(f"{name} has a field {reprlib.repr(field)}{meant}; expected {', '.join(names)}.")
    return value


def _list(value: Any, name: str, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise ArgumentError(f"{name} is not a list of at most {most}.")
    return value


def _text(fields: dict[str, Any], name: str, most: int = _MAX_OPTION) -> str:
    value = fields.get(name, "")
    name = name if len(name) <= 100 else reprlib.repr(name)
    if not isinstance(value, str):
        raise ArgumentError(f"{name} is {reprlib.repr(value)}; expected text.")
    if len(value) > most:
        raise ArgumentError(f"{name} has {len(value)} characters; shorten it to {most}.")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise ArgumentError(f"{name} has half a character, a lone surrogate; expected text that UTF-8 can hold.")
    return value


def _flag(fields: dict[str, Any], name: str) -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise ArgumentError(f"{name} is {reprlib.repr(value)}; expected true or false.")
    return value


def _number(fields: dict[str, Any], name: str) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
        raise ArgumentError(f"{name} is {reprlib.repr(value)}; expected a number.")
    return float(value)


def _integer(fields: dict[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = fields.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ArgumentError(f"{name} is {reprlib.repr(value)}; expected an integer from {least} to {most}.")
    return value
