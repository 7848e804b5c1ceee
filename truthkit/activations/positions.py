"""Which tokens: one vocabulary for reading activations and for steering.

A *text* is what the model is given at once: prompt and answer when activations are read, the prompt when `generate`
starts. Its first `prompt` tokens are the prompt. Padding is never selected, on whichever side it stands.

| position | selects |
| --- | --- |
| `"all"` | every token |
| `"prompt"` | the prompt's tokens |
| `"generated"` (or `"answer"`) | the tokens after the prompt: a given answer's, or those that `generate` adds |
| `"last"` | the last token of the text that was given |
| `"image"` | image placeholder tokens |
| an integer | that token of the text, counted from 0, or from the end if negative: -1 is `"last"` |
| a `slice` | such a range of tokens |
| `Text("…")`, `Characters(a, b)` | the tokens that hold a passage or a range of characters of the text |
| `Role("user")` | the content of the chat messages of one role |
| a callable | what it returns: a boolean mask for the `Tokens` given |
| a tuple of these | all that any of them selects |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from truthkit.errors import ArgumentError

if TYPE_CHECKING:
    import torch


@dataclass
class Tokens:
    """The tokens of one forward.

    Attributes:
        number: each token's number in its row's text, from 0; (rows, width), int64. Anything for padding.
        real: False at padding; (rows, width), bool.
        prompt: how many tokens of the row are prompt; (rows, 1), int64.
        given: how many tokens the row's text has; (rows, 1), int64.
        ids: token ids (rows, width), or None where the model was given embeddings only.
        text: the text's token ids so far, one list per row, for positions that look at characters; None outside a
            text's first forward.
        processor: tokenizer or processor, or None.
        image_token: id of the image placeholder, or None.
        memory: results that a position wants to keep until the next text begins.
    """

    number: torch.Tensor
    real: torch.Tensor
    prompt: torch.Tensor
    given: torch.Tensor
    ids: torch.Tensor | None = None
    text: list[list[int]] | None = None
    processor: Any = None
    image_token: int | None = None
    memory: dict[Any, Any] | None = None


@dataclass(frozen=True)
class Text:
    """The tokens that hold `passage` where it first occurs in a row's text."""

    passage: str


@dataclass(frozen=True)
class Characters:
    """The tokens that hold characters `start` to `stop` (exclusive) of the text, special tokens not counted."""

    start: int
    stop: int


@dataclass(frozen=True)
class Role:
    """The content of all chat messages of one role ("system", "user", "assistant"), by the chat template."""

    name: str


Position: TypeAlias = "str | int | slice | Text | Characters | Role | Callable[[Tokens], torch.Tensor]"
Positions: TypeAlias = "Position | tuple[Position, ...]"

_NAMES = ("all", "prompt", "generated", "answer", "last", "image")


def check_positions(positions: Positions, processor: Any = None) -> Positions:
    """`positions` if they make sense.

    Raises:
        ArgumentError: they don't, or they need a tokenizer and there is none.
    """
    for position in positions if isinstance(positions, tuple) else (positions,):
        known = (
            position in _NAMES if isinstance(position, str) else isinstance(position, slice | Text | Characters | Role)
        )
        if not known and not callable(position) and (isinstance(position, bool) or not isinstance(position, int)):
            raise ArgumentError(
                f"positions contains {position!r}; expected one of {', '.join(map(repr, _NAMES))}, an integer, "
                "a slice, Text, Characters, Role, a callable, or a tuple of these."
            )
        if isinstance(position, Text | Characters | Role) and processor is None:
            raise ArgumentError(f"positions contains {position!r}, which needs the tokenizer; pass processor=.")
        if isinstance(position, Role) and not getattr(_tokenizer(processor), "chat_template", None):
            raise ArgumentError(f"positions contains {position!r}, but this tokenizer has no chat template.")
    return positions


def describe_positions(positions: Positions) -> str:
    """One line for a file's provenance."""
    if isinstance(positions, tuple):
        return " + ".join(map(describe_positions, positions))
    if isinstance(positions, slice):
        return f"{positions.start}:{positions.stop}:{positions.step}"
    return getattr(positions, "__qualname__", None) or str(positions)


def selected(positions: Positions, tokens: Tokens) -> torch.Tensor:
    """Which tokens of a forward `positions` selects; (rows, width), bool.

    Raises:
        ArgumentError: a passage does not occur in a row's text, or image positions are asked of embeddings.
    """
    if isinstance(positions, tuple):
        chosen = tokens.real.new_zeros(tokens.real.shape)
        for position in positions:
            chosen = chosen | _selected(position, tokens)
    else:
        chosen = _selected(positions, tokens)
    return chosen & tokens.real


def _selected(position: Position, tokens: Tokens) -> torch.Tensor:
    number, given = tokens.number, tokens.given
    match position:
        case "all":
            return tokens.real
        case "prompt":
            return number < tokens.prompt
        case "generated" | "answer":
            return number >= tokens.prompt
        case "last":
            return number == given - 1
        case "image":
            if tokens.ids is None or tokens.image_token is None:
                raise ArgumentError('positions="image" needs input_ids and a model with an image token.')
            return tokens.ids == tokens.image_token
        case int():
            return number == (position if position >= 0 else given + position)
        case slice():
            return _in_slice(position, number, given)
        case Text() | Characters() | Role():
            return _in_ranges(position, tokens)
    return position(tokens)  # type: ignore[operator]


def _in_slice(wanted: slice, number: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    start, stop = wanted.start or 0, wanted.stop
    first = start if start >= 0 else (given + start).clamp_min(0)
    chosen = (number >= first) & (number < given)
    if stop is not None:
        chosen &= number < (stop if stop >= 0 else given + stop)
    if (step := wanted.step or 1) < 1:
        raise ArgumentError(f"positions has a slice with step {step}; expected a positive step.")
    return chosen & ((number - first) % step == 0)


def _in_ranges(position: Text | Characters | Role, tokens: Tokens) -> torch.Tensor:
    """Token ranges are found once per text, at its first forward, and remembered for its later forwards."""
    memory = tokens.memory if tokens.memory is not None else {}
    if tokens.text is not None:
        memory[position] = [_token_ranges(position, row, tokens.processor) for row in tokens.text]
    if position not in memory:
        raise ArgumentError(f"positions contains {position!r}, which needs input_ids from the text's first token on.")
    chosen = tokens.real.new_zeros(tokens.real.shape)
    for row, ranges in enumerate(memory[position]):
        for first, stop in ranges:
            number = tokens.number[row]
            chosen[row] |= (number >= first) & ((number < stop) if stop is not None else (number >= 0))
    return chosen


def _tokenizer(processor: Any) -> Any:
    return getattr(processor, "tokenizer", processor)


def _token_ranges(position: Text | Characters | Role, ids: list[int], processor: Any) -> list[tuple[int, int | None]]:
    tokenizer = _tokenizer(processor)
    special = isinstance(position, Role)

    def decoded(count: int) -> str:
        return tokenizer.decode(ids[:count], skip_special_tokens=not special, clean_up_tokenization_spaces=False)

    text = decoded(len(ids))
    if isinstance(position, Text):
        if (start := text.find(position.passage)) < 0 or not position.passage:
            raise ArgumentError(f"positions has {position!r}, but the text is {text[:120]!r}; pass a passage of it.")
        spans: list[tuple[int, int | None]] = [(start, start + len(position.passage))]
    elif isinstance(position, Characters):
        if not 0 <= position.start < position.stop <= len(text):
            raise ArgumentError(f"positions has {position!r}, but the text has {len(text)} characters: {text[:120]!r}.")
        spans = [(position.start, position.stop)]
    else:
        from truthkit.text.template import role_spans

        spans = role_spans(tokenizer, position.name, text)
    ends = [len(decoded(count)) for count in range(1, len(ids) + 1)] if spans else []
    starts = [0, *ends[:-1]]

    def tokens_of(start: int, stop: int | None) -> tuple[int, int | None]:
        first = next((i for i, end in enumerate(ends) if end > start), len(ids))
        if stop is None:
            return first, None
        return first, next((i for i, begin in enumerate(starts) if begin >= stop and i > first), len(ids))

    return [tokens_of(*span) for span in spans]
