"""Contrast pairs: what they may look like, and where they come from."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

from truthkit.errors import ArgumentError, NotAvailableError
from truthkit.files.json_text import NotJson, shown
from truthkit.files.reading import Entry, read_entries
from truthkit.files.tables import ENDINGS
from truthkit.images.reading import read_image

Side: TypeAlias = "str | list[dict[str, Any]]"
"""A text, or chat messages; their content is a text, or a list of parts such as {"type": "text", "text": ...} and
{"type": "image", "path": ...} ("image" in place of "path" for an opened one)."""

_FIELDS = {"positive", "negative", "prompt", "group"}


@dataclass(frozen=True)
class Pair:
    """A positive and a negative text that differ in what the vector is to capture.

    Attributes:
        positive, negative: a text, or chat messages; with `prompt` two answers to it.
        prompt: a text or chat messages that come before both answers; None without.
        group: pairs of one group never land on both sides of a held-out split. None makes the pair and its copies (with
            a prompt: all pairs with that prompt) a group of its own; copies differ in case and punctuation only.
    """

    positive: Side
    negative: Side
    prompt: Side | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        for name in ("positive", "negative"):
            side = getattr(self, name)
            if side is None:
                raise ArgumentError(f"the pair has no {name} side; give both.")
            _check_side(name, side)
        if self.prompt is not None:
            _check_side("prompt", self.prompt)
            if not (isinstance(self.positive, str) and isinstance(self.negative, str)):
                raise ArgumentError("with a prompt, positive and negative are its answers: give them as plain texts.")


@dataclass(frozen=True)
class BadLine:
    """A line of a pairs file that could not be used, or a record of an array or row of a sheet, as `kind` says."""

    number: int
    reason: str
    kind: str = "line"

    def __str__(self) -> str:
        return f"{self.kind} {self.number}: {self.reason}"


@dataclass(frozen=True)
class PairFile:
    """The usable pairs of a file, and the lines that were not."""

    pairs: list[Pair]
    bad: list[BadLine]


def _check_side(name: str, side: Any) -> None:
    if isinstance(side, str):
        if not side.strip():
            raise ArgumentError(f"{name} is empty.")
        return
    if not isinstance(side, list) or not side:
        raise ArgumentError(f"{name} is {type(side).__name__}; expected a text or a list of chat messages.")
    for message in side:
        if not isinstance(message, dict) or not {"role", "content"} <= set(message):
            raise ArgumentError(f"{name} holds {shown(message)}; expected messages with 'role' and 'content'.")
        if not isinstance(message["role"], str):
            raise ArgumentError(f"{name} has a message whose role is {shown(message['role'])}; expected a text.")
        _check_content(name, message["role"], message["content"])


def _check_content(name: str, role: str, content: Any) -> None:
    if isinstance(content, str):
        if not content.strip():
            raise ArgumentError(f"{name} has a {role} message that is empty.")
        return
    if not isinstance(content, list) or not content:
        raise ArgumentError(f"{name} has a {role} message with content {shown(content)}; expected a text or parts.")
    for part in content:
        text = isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
        if not text and image_source(part) is None:
            raise ArgumentError(
                f"{name} has a {role} message with the part {shown(part)}; expected {{'type': 'text', 'text': ...}} or "
                "{'type': 'image', 'path': ...}."
            )


def image_source(part: Any) -> Any:
    """The path or the opened image of a part of a message; None if the part is no image."""
    if not isinstance(part, dict) or part.get("type") != "image":
        return None
    return next((part[name] for name in ("image", "path", "url") if part.get(name) is not None), None)


def image_sources(message: dict[str, Any]) -> list[Any]:
    """All images of a message."""
    content = message["content"]
    found = map(image_source, content) if isinstance(content, list) else ()
    return [source for source in found if source is not None]


def as_pair(value: Any) -> Pair:
    """A `Pair` from a pair, a (positive, negative) tuple or list, or a dict with the fields of `Pair`.

    Raises:
        ArgumentError: it is something else, or a side is missing or empty.
    """
    if isinstance(value, Pair):
        return value
    if isinstance(value, dict):
        if unknown := sorted(set(value) - _FIELDS):
            raise ArgumentError(f"unknown fields {unknown}; expected {sorted(_FIELDS)}.")
        if missing := [name for name in ("positive", "negative") if value.get(name) is None]:
            raise ArgumentError(f"the pair has no {' and no '.join(missing)} side; give both.")
        group = value.get("group")
        if not isinstance(group, str | int | float | None):
            raise ArgumentError(f"group is {shown(group)}; expected a text or a number.")
        return Pair(value["positive"], value["negative"], value.get("prompt"), None if group is None else str(group))
    if isinstance(value, tuple | list) and len(value) == 2:
        return Pair(*value)
    raise ArgumentError(f"a pair is {shown(value)}; expected (positive, negative) or a dict with these fields.")


def read_pairs(path: str | PathLike[str]) -> PairFile:
    """Pairs from JSON lines, a JSON array, or a .csv, .tsv or .xlsx; bad ones are listed and do the others no harm.

    A pair is an object with "positive" and "negative" (texts, or lists of chat messages), and optionally "prompt" (then
    these are its answers) and "group"; or a list of the two. Paths of images are relative to the file's folder. Other
    columns of a table are left aside.

    Raises:
        NotAvailableError: there is no such file.
        ArgumentError, MissingExtraError: a table cannot be read as a whole.
    """
    path = Path(path)
    if not path.is_file():
        if path.is_dir():
            raise ArgumentError(f"pairs={str(path)!r} is a folder; expected a file.")
        raise NotAvailableError(f"pairs={str(path)!r}: there is no such file.")
    pairs: list[Pair] = []
    bad: list[BadLine] = []
    entries = list(read_entries(path))
    if len(entries) == 2 and all(isinstance(value, str) for _, value in entries):  # one line, a list of two
        entries = [Entry(f"{path.name}, line 1", [value for _, value in entries])]
    table = path.suffix.lower() in ENDINGS
    for place, value in entries:
        kind, _, number = place.rpartition(", ")[2].partition(" ")
        try:
            if isinstance(value, NotJson):
                raise ArgumentError(f"{value}.")
            fields = {name: cell for name, cell in value.items() if name in _FIELDS and cell} if table else value
            pairs.append(_located(as_pair(fields), path.parent))
        except (ArgumentError, NotAvailableError) as error:
            bad.append(BadLine(int(number), str(error), kind))
    return PairFile(pairs, bad)


def _located(pair: Pair, folder: Path) -> Pair:
    """`pair` with its images' paths seen from here, all of which can be read."""

    def located(side: Side | None) -> Any:
        if not isinstance(side, list) or not any(map(image_sources, side)):
            return side
        return [{**message, "content": [part_of(part) for part in parts(message["content"])]} for message in side]

    def part_of(part: dict[str, Any]) -> dict[str, Any]:
        if (source := image_source(part)) is None:
            return part
        if not isinstance(source, str):
            raise ArgumentError(f"an image is {shown(source)}; expected the path of a file.")
        image_path = source if source.startswith(("http://", "https://")) else str(folder / source)
        read_image(image_path)
        return {"type": "image", "path": image_path}

    return replace(pair, **{name: located(getattr(pair, name)) for name in ("prompt", "positive", "negative")})


def parts(content: Any) -> list[dict[str, Any]]:
    """A message's content as a list of parts."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def checked_pairs(pairs: Iterable[Any]) -> list[Pair]:
    """All `pairs` as `Pair`.

    Raises:
        ArgumentError: one of them is no pair (the message says which), or there is none.
    """
    checked = []
    for i, value in enumerate(pairs):
        try:
            checked.append(as_pair(value))
        except ArgumentError as error:
            raise ArgumentError(f"pairs[{i}]: {error}") from None
    if not checked:
        raise ArgumentError("pairs is empty; give at least one (positive, negative) pair.")
    return checked


def all_pairs(pairs: str | PathLike[str] | Iterable[Any]) -> list[Pair]:
    """The pairs as they were given, or those of a file, whose bad lines are skipped with a warning.

    Raises:
        ArgumentError, NotAvailableError: as `read_pairs` and `checked_pairs`.
    """
    if isinstance(pairs, str | PathLike):
        file = read_pairs(pairs)
        if file.bad:
            shown = " ".join(map(str, file.bad[:5])) + (" ..." if len(file.bad) > 5 else "")
            warnings.warn(f"{len(file.bad)} bad lines of {Path(pairs).name} were skipped: {shown}", stacklevel=3)
        pairs = file.pairs
    return checked_pairs(pairs)


def pairs_from_template(template: str, positives: Sequence[str], negatives: Sequence[str]) -> list[Pair]:
    """Pairs from `template` with its `{}` filled by each positive and the negative beside it.

    Raises:
        ArgumentError: the template has no `{}`, or the lists differ in length.
    """
    if template.count("{}") != 1 or len(positives) != len(negatives):
        raise ArgumentError(
            f"template {template!r} must hold {{}} once, and there must be as many negatives ({len(negatives)}) as "
            f"positives ({len(positives)})."
        )
    before, _, after = template.partition("{}")
    return [Pair(before + a + after, before + b + after) for a, b in zip(positives, negatives, strict=True)]


def pairs_from_labels(texts: Sequence[str], labels: Sequence[bool | int], *, seed: int = 0) -> list[Pair]:
    """Pairs from a labelled dataset: each text with label 1 beside one drawn at random, without repeats, with label 0.

    Raises:
        ArgumentError: the lists differ in length, or one class is missing.
    """
    if len(texts) != len(labels):
        raise ArgumentError(f"there are {len(labels)} labels for {len(texts)} texts; give one per text.")
    positives = [text for text, label in zip(texts, labels, strict=True) if label]
    negatives = [text for text, label in zip(texts, labels, strict=True) if not label]
    if not positives or not negatives:
        raise ArgumentError("labels hold one class only; both 1 and 0 are needed.")
    draw = random.Random(seed)
    draw.shuffle(positives)
    draw.shuffle(negatives)
    return [Pair(a, b) for a, b in zip(positives, negatives, strict=False)]
