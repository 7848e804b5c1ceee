"""The values in a table of a study's file, each checked, with errors that name its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from truthkit.errors import ArgumentError, did_you_mean
from truthkit.files.json_text import shown
from truthkit.study.entries import Names

SETTINGS: dict[str, tuple[Any, Callable[[Any], bool], str]] = {
    "seed": (0, lambda value: type(value) is int and value >= 0, "an integer of at least 0"),
    "seeds": (
        [0],
        lambda value: (
            isinstance(value, list)
            and bool(value)
            and all(type(one) is int for one in value)
            and len(set(value)) == len(value)
        ),
        "a list of different integers",
    ),
    "alpha": (0.05, lambda value: isinstance(value, float) and 0 < value < 0.5, "a number between 0 and 0.5"),
    "level": (0.95, lambda value: isinstance(value, float) and 0 < value < 1, "a number between 0 and 1, as 0.95"),
    "resamples": (10_000, lambda value: type(value) is int and value >= 100, "an integer of at least 100"),
}
"""Settings of a study: default, check, and what is expected."""


@dataclass(frozen=True)
class Fields:
    """A table of the file, and where it stands, for messages."""

    place: str
    fields: Mapping[str, Any]

    def known(self, names: Sequence[str]) -> None:
        """See that it has no key but these."""
        for name in self.fields:
            if name not in names:
                raise ArgumentError(
                    f"{self.place} has no key {name!r}{did_you_mean(name, names)}; its keys are {', '.join(names)}."
                )

    def entries(self, kind: str) -> list[Fields]:
        """The tables `[[kind]]`."""
        found = self.fields.get(kind, [])
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise ArgumentError(f"{self.place}: {kind!r} is {shown(found)}; write [[{kind}]] above each.")
        return [Fields(f"{self.place}, [[{kind}]] number {n}", one) for n, one in enumerate(found, 1)]

    def setting(self, key: str) -> Any:
        default, fits, expected = SETTINGS[key]
        value = self.fields.get(key, default)
        if not fits(value):
            raise ArgumentError(f"{self.place}: {key} is {shown(value)}; expected {expected}.")
        return value

    def text(self, key: str, default: str | None = None, *, needed: bool = False) -> str | None:
        value = self.fields.get(key, default)
        if (value is None and needed) or not (value is None or (isinstance(value, str) and value.strip())):
            found = "missing" if value is None else shown(value)
            raise ArgumentError(f"{self.place}: {key} is {found}; expected a text.")
        return value

    def number(self, key: str, default: Any, low: float, high: float = float("inf"), *, whole: bool = False) -> Any:
        value = self.fields.get(key, default)
        kinds = (int,) if whole else (int, float)
        if value is not default and (type(value) not in kinds or not low <= value <= high):
            expected = f"{'an integer' if whole else 'a number'} of at least {low:g}"
            expected += f" and at most {high:g}" if high < float("inf") else ""
            raise ArgumentError(f"{self.place}: {key} is {shown(value)}; expected {expected}.")
        return value

    def names(self, key: str) -> Names:
        value = self.fields.get(key, [])
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise ArgumentError(f"{self.place}: {key} is {shown(value)}; expected a list of names.")
        return tuple(value)

    def table(self, key: str) -> dict[str, Any]:
        value = self.fields.get(key, {})
        if not isinstance(value, dict):
            raise ArgumentError(f"{self.place}: {key} is {shown(value)}; expected a table, as {{ name = value }}.")
        return value
