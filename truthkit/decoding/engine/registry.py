"""The decoding methods by name."""

from __future__ import annotations

from typing import TypeVar

from truthkit.errors import ArgumentError

_Class = TypeVar("_Class", bound=type)

DECODERS: dict[str, type] = {}
"""Every method that has a name, as command lines and records write it."""

PROMPT_ONLY = "prompt"
"""What the option `amateur` says for the model itself under an instruction."""

FROM_PROMPT = frozenset({"context", "images", "vectors"})
"""Options that are parts of the prompt, or made from it: whoever builds it passes them, and no spec writes them."""


def register(cls: _Class) -> _Class:
    """Let a method be found by its `name`; a new definition of the same class takes the place of the old one.

    Raises:
        ArgumentError: another class has that name.
    """
    name: str = vars(cls)["name"]
    other = DECODERS.get(name)
    if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ArgumentError(
            f"decoder name {name!r} of {cls.__module__}.{cls.__qualname__} is taken by {other.__module__}."
            f"{other.__qualname__}; give it another name."
        )
    DECODERS[name] = cls
    return cls
