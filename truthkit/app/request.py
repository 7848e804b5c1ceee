"""What the page asks for, checked for its form: JSON in, typed fields out."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from typing import Any

from truthkit.decoding.spec import DecoderSpec, parse_spec, spec_of
from truthkit.errors import ArgumentError
from truthkit.serving.aside import Aside
from truthkit.serving.fields import flag_of, integer_of, list_of, number_of, object_of, text_of
from truthkit.serving.uploads import uploaded

MAX_BODY = 32 * 2**20
"""Bytes of a request; images come as base64 inside."""
MAX_TEXT = 200_000
"""Characters of prompt, system message, passage and what was said before, together."""
MAX_MESSAGES = 64
"""Of the conversation before the prompt."""
MAX_IMAGES = 4
MAX_CARDS = 8
MAX_NEW_TOKENS = 4096


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
        messages: what was said before the prompt, by the user and the model in turn.
        images: image files that can be read, laid aside; decoded they would be far larger.
        settings: fields of `truthkit.generation.settings.AnswerSettings`.
        cards: the decoders.
    """

    run: str
    prompt: str
    system: str
    context: str
    raw: bool
    messages: list[dict[str, str]]
    images: Aside
    settings: dict[str, Any]
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class MapRequest:
    """An answer whose tokens are to be compared with the image's patches.

    Attributes:
        asked: what it answers, with the one decoder that did.
        answer: its tokens.
        layer: a layer number.
    """

    asked: RunRequest
    answer: list[int]
    layer: int


def read_map_request(document: Any) -> MapRequest:
    """The request in a parsed JSON document.

    Raises:
        ArgumentError: as `read_request`; or there is not one decoder, or the answer's tokens are none.
    """
    fields = dict(object_of(document, "the request"))
    answer, layer = fields.pop("answer", None), integer_of(fields, "layer", 0, 0, 10_000)
    fields.pop("layer", None)
    tokens = list_of(answer, "answer", MAX_NEW_TOKENS)
    asked = read_request(fields)
    if len(asked.cards) != 1 or not tokens:
        raise ArgumentError("a map is of one decoder's answer; expected one in cards, and its tokens in answer.")
    return MapRequest(asked, [integer_of({"token": one}, "token", 0, 0, 2**31) for one in tokens], layer)


def read_request(document: Any) -> RunRequest:
    """The request in a parsed JSON document.

    Raises:
        ArgumentError: a field is missing or not of its kind, or an image cannot be read or is too large.
    """
    fields = object_of(document, "the request", "run prompt system context raw messages images settings cards")
    settings = object_of(fields.get("settings", {}), "settings", "max_new_tokens sample temperature top_p seed")
    texts = {name: text_of(fields, name, MAX_TEXT) for name in ("prompt", "system", "context")}
    messages = _messages(fields.get("messages", []))
    if (length := sum(map(len, (*texts.values(), *(one["content"] for one in messages))))) > MAX_TEXT:
        what = "prompt, system message and passage" + ", with what was said before," * bool(messages)
        raise ArgumentError(f"{what} have {length} characters; shorten them to {MAX_TEXT} together.")
    images = list_of(fields.get("images", []), "images", MAX_IMAGES)
    cards = list_of(fields.get("cards"), "cards", MAX_CARDS)
    if not cards:
        raise ArgumentError("there is no decoder to answer; add one.")
    return RunRequest(
        run=text_of(fields, "run", 100),
        prompt=texts["prompt"],
        system=texts["system"].strip(),
        context=texts["context"].strip(),
        raw=flag_of(fields, "raw"),
        messages=messages,
        settings={
            "max_new_tokens": integer_of(settings, "max_new_tokens", 64, 1, MAX_NEW_TOKENS),
            "sample": flag_of(settings, "sample"),
            "temperature": number_of(settings, "temperature"),
            "top_p": number_of(settings, "top_p"),
            "seed": integer_of(settings, "seed", 0, 0, 2**63 - 1),
        },
        cards=tuple(map(_card, cards)),
        images=Aside([uploaded(image, number) for number, image in enumerate(images, start=1)]),
    )


def _messages(value: Any) -> list[dict[str, str]]:
    """What was said before: the user begins, and the model has the last word."""
    read = []
    for number, entry in enumerate(list_of(value, "messages", MAX_MESSAGES), start=1):
        name, expected = f"message {number}", "user" if number % 2 else "assistant"
        fields = object_of(entry, name, "role content")
        if fields.get("role") != expected:
            raise ArgumentError(f"{name} has the role {reprlib.repr(fields.get('role'))}; expected {expected!r}.")
        if not (content := text_of(fields, "content", MAX_TEXT)).strip():
            raise ArgumentError(f"{name} is empty; expected what was said.")
        read.append({"role": expected, "content": content})
    if len(read) % 2:
        raise ArgumentError("messages end with the user's; the prompt comes behind an answer.")
    return read


def _card(document: Any) -> Card:
    fields = object_of(document, "a decoder", "decoder options steering")
    written = fields.get("options")
    options = None if written is None else {key: text_of(written, key) for key in object_of(written, "options")}
    steering = [
        object_of(one, "steering", "strength layers") for one in list_of(fields.get("steering", []), "steering", 16)
    ]
    uses = tuple(Steer(number_of(one, "strength") or 0.0, text_of(one, "layers").strip()) for one in steering)
    return Card(text_of(fields, "decoder"), options, uses)
