"""Contrast pairs: what they may look like, and how they become tokens."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

from truthkit.decoding.prompts import text_tokenizer
from truthkit.errors import ArgumentError, NotAvailableError

Side: TypeAlias = "str | list[dict[str, Any]]"
"""A text, or chat messages."""

_FIELDS = {"positive", "negative", "prompt", "group"}


@dataclass(frozen=True)
class Pair:
    """A positive and a negative text that differ in what the vector is to capture.

    Attributes:
        positive, negative: a text, or chat messages; with `prompt` two answers to it.
        prompt: a text or chat messages that come before both answers; None without.
        group: pairs of one group never land on both sides of a held-out split. None makes the pair (with a prompt: all
            pairs with that prompt) a group of its own.
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
    """A line of a pairs file that could not be used."""

    number: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.number}: {self.reason}"


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
            raise ArgumentError(f"{name} holds {message!r}; expected messages with 'role' and 'content'.")
        if isinstance(message["content"], str) and not message["content"].strip():
            raise ArgumentError(f"{name} has a {message['role']} message that is empty.")


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
        return Pair(value["positive"], value["negative"], value.get("prompt"), None if group is None else str(group))
    if isinstance(value, tuple | list) and len(value) == 2:
        return Pair(*value)
    raise ArgumentError(f"a pair is {value!r:.80}; expected (positive, negative) or a dict with these fields.")


def read_pairs(path: str | PathLike[str]) -> PairFile:
    """Pairs from a JSON Lines file; bad lines are reported by number and do no harm to the others.

    A line is an object with "positive" and "negative" (texts, or lists of chat messages), and optionally "prompt" (then
    these are its answers) and "group"; or a list of the two.

    Raises:
        NotAvailableError: there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise NotAvailableError(f"pairs={str(path)!r}: there is no such file.")
    pairs: list[Pair] = []
    bad: list[BadLine] = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                pairs.append(as_pair(json.loads(line.decode("utf-8"))))
            except UnicodeDecodeError:
                bad.append(BadLine(number, "not UTF-8."))
            except json.JSONDecodeError as error:
                bad.append(BadLine(number, f"not JSON ({error.msg} at column {error.colno})."))
            except ArgumentError as error:
                bad.append(BadLine(number, str(error)))
    return PairFile(pairs, bad)


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


@dataclass
class EncodedPairs:
    """Token ids of all texts: text 2·i is the positive side of pair i, text 2·i + 1 its negative side.

    Attributes:
        ids: token ids of every text.
        prompts: how many tokens of every text are prompt.
        groups: the group of every pair, as an index.
    """

    ids: list[list[int]] = field(default_factory=list)
    prompts: list[int] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)

    def digest(self) -> str:
        """SHA-256 of all token ids, prompt lengths and groups."""
        return hashlib.sha256(json.dumps([self.ids, self.prompts, self.groups]).encode()).hexdigest()


def encode_pairs(pairs: Sequence[Pair], processor: Any, limit: int | None = None) -> EncodedPairs:
    """Tokenise every text once.

    Chat messages go through the chat template: a text that ends in an assistant message ends with the last token of its
    content, one that ends in another message with the header of the answer to come.

    Raises:
        ArgumentError: messages without a chat template, or a text longer than `limit` tokens.
    """
    tokenizer = text_tokenizer(processor, "pairs")
    encoded = EncodedPairs()
    group_numbers: dict[str, int] = {}
    for number, pair in enumerate(pairs):
        for name in ("positive", "negative"):
            try:
                ids, prompt = _encode(tokenizer, getattr(pair, name), pair.prompt)
                if limit is not None and len(ids) > limit:
                    raise ArgumentError(f"it has {len(ids)} tokens, but the model has room for {limit}.")
                if not ids:
                    raise ArgumentError("it has no tokens.")
            except ArgumentError as error:
                raise ArgumentError(f"pairs[{number}], {name}: {error}") from None
            encoded.ids.append(ids)
            encoded.prompts.append(prompt)
        key = pair.group if pair.group is not None else json.dumps(pair.prompt if pair.prompt is not None else number)
        encoded.groups.append(group_numbers.setdefault(key, len(group_numbers)))
    return encoded


def _encode(tokenizer: Any, side: Side, prompt: Side | None) -> tuple[list[int], int]:
    if prompt is None and isinstance(side, str):
        ids = list(tokenizer(side).input_ids)
        return ids, len(ids)
    if isinstance(prompt, str):
        assert isinstance(side, str)
        ids = list(tokenizer(prompt + side).input_ids)
        return ids, min(len(tokenizer(prompt).input_ids), len(ids))
    if not getattr(tokenizer, "chat_template", None):
        raise ArgumentError("chat messages were given, but this tokenizer has no chat template; give texts.")
    messages = [*(prompt or []), {"role": "assistant", "content": side}] if isinstance(side, str) else side
    if messages[-1]["role"] != "assistant":
        ids = _rendered(tokenizer, messages, add_generation_prompt=True)
        return ids, len(ids)
    before = _rendered(tokenizer, messages[:-1], add_generation_prompt=True) if len(messages) > 1 else []
    ids = _rendered(tokenizer, messages, continue_final_message=True)
    return ids, min(len(before), len(ids))


def _rendered(tokenizer: Any, messages: Sequence[Any], **options: Any) -> list[int]:
    ids = tokenizer.apply_chat_template(list(messages), tokenize=True, return_dict=False, **options)
    return list(ids)
