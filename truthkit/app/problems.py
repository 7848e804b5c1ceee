"""What is wrong with a request before it stands in the line, and which field of the page says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from truthkit.app.request import Card
from truthkit.decoding.spec import parse_spec, spec_of
from truthkit.errors import ArgumentError, TruthkitError
from truthkit.generation.settings import AnswerSettings

DECODER = "decoder"
"""The field of a card that chooses or writes out the decoder."""


@dataclass(frozen=True)
class Problem:
    """One thing to mend.

    Attributes:
        card: number of the card; None for what holds for all.
        field: a decoder's option, `DECODER`, "strength" or "layers" of a vector with its number behind, as in
            "layers 0"; without a card a field of the request or of its settings.
        message: one line.
    """

    card: int | None
    field: str
    message: str


class FieldError(ArgumentError):
    """An error that is known to be of one field, of a card or of the request."""

    def __init__(self, field: str, message: str):
        super().__init__(message)
        self.field = field


def card_problems(index: int, card: Card, attempt: Callable[[Card], Any]) -> Iterator[Problem]:
    """What is wrong with a card's decoder.

    Every option is read by itself, so all that cannot be read is told. Where each can, `attempt` says whether they do
    together; what it refuses is put down to the option without which it would not.

    Args:
        index: its number.
        card: the card.
        attempt: makes the decoder for the model, or raises why not.
    """
    try:
        if card.options is None:
            parse_spec(card.decoder)
        else:
            spec_of(card.decoder, {})
    except ArgumentError as error:
        yield Problem(index, DECODER, str(error))
        return
    unread = False
    for name, value in (card.options or {}).items():
        try:
            spec_of(card.decoder, {name: value})
        except ArgumentError as error:
            unread = True
            yield Problem(index, name, str(error))
    if unread:
        return
    if (refusal := _error_of(attempt, card)) is not None:
        of_request = isinstance(refusal, FieldError) and refusal.field in ("context", "images")
        yield Problem(None if of_request else index, _field(card, refusal, attempt), str(refusal))


def settings_problems(settings: dict[str, Any]) -> Iterator[Problem]:
    """What is wrong with the settings, each by itself."""
    for name, value in settings.items():
        try:
            AnswerSettings(**{name: value})
        except ArgumentError as error:
            yield Problem(None, name, str(error))


def _error_of(attempt: Callable[[Card], Any], card: Card) -> TruthkitError | None:
    try:
        attempt(card)
    except TruthkitError as error:
        return error
    return None


def _field(card: Card, error: TruthkitError, attempt: Callable[[Card], Any]) -> str:
    if isinstance(error, FieldError):
        return error.field
    options = card.options or {}
    for name in options:
        without = {key: value for key, value in options.items() if key != name}
        if _error_of(attempt, replace(card, options=without)) is None:
            return name
    return DECODER
