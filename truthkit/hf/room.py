"""How many tokens a model has room for."""

from __future__ import annotations

from typing import Any

from truthkit.errors import ArgumentError


def context_length(model: Any) -> int | None:
    """The longest text that the model's text decoder is made for, in tokens; None where nothing says so."""
    room = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None) or 0
    return room if room > 0 else None  # XLNet's is -1


def check_room(model: Any, tokens: int, what: str, way_out: str) -> None:
    """Raise unless so many tokens fit.

    Args:
        model: the model.
        tokens: how many are needed.
        what: what needs them, as the subject of a sentence.
        way_out: what to do about it, as an imperative.

    Raises:
        ArgumentError: they are too many.
    """
    room = context_length(model)
    if room is not None and tokens > room:
        raise ArgumentError(
            f"{what} has {tokens} tokens, but the model has room for {room} (max_position_embeddings); {way_out}."
        )
