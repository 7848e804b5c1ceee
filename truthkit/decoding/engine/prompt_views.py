"""Views of the text: the same prompt with an instruction in front, or with its context taken out.

Both work on the token ids that `generate` was given, so a drop-in user need not hand over messages a second time. An
instruction is spliced in as tokens: what follows it keeps exactly the tokens it had.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from truthkit.errors import ArgumentError, ModelError
from truthkit.text.template import chat_prefixes
from truthkit.text.tokens import text_tokenizer

PromptRewrite = Callable[[list[list[int]]], list[list[int]]]
"""Maps the unpadded token ids of every row to those of the view, row by row."""

PassagesOf = Callable[[list[list[int]]], Sequence[str]]
"""Names each row's passage, given the unpadded token ids of all."""

Context = str | Sequence[str] | PassagesOf
"""One passage for all prompts, one each in their order, or what finds each row's."""


def shared_width(
    rewrites: Sequence[PromptRewrite], prompts: Sequence[Sequence[int]], lengths: Sequence[int]
) -> int | None:
    """How wide the first tokens of prompts are in the widest view, where every view can read them apart.

    Args:
        rewrites: of the views whose prompts are others.
        prompts: token ids.
        lengths: how many of each prompt's tokens are to be read first.

    Returns:
        None if a view's prompt is not its prompt of the first tokens, one at least, with the rest unchanged behind.
    """
    firsts = [list(prompt[:length]) for prompt, length in zip(prompts, lengths, strict=True)]
    width = max(lengths)
    for rewrite in rewrites:
        try:
            cut, whole = rewrite(firsts), rewrite([list(prompt) for prompt in prompts])
        except ArgumentError:  # what is to be changed does not lie in the first tokens
            return None
        rests = [list(prompt[length:]) for prompt, length in zip(prompts, lengths, strict=True)]
        if not all(cut) or whole != [first + rest for first, rest in zip(cut, rests, strict=True)]:
            return None
        width = max(width, *map(len, cut))
    return width


def _common_suffix(a: Sequence[int], b: Sequence[int]) -> list[int]:
    length = 0
    while length < min(len(a), len(b)) and a[-1 - length] == b[-1 - length]:
        length += 1
    return list(a[len(a) - length :])


def _end_of(pattern: list[int], ids: list[int]) -> int | None:
    for start in range(len(ids) - len(pattern) + 1 if pattern else 0):
        if ids[start : start + len(pattern)] == pattern:
            return start + len(pattern)
    return None


def with_instruction(processor: Any, instruction: str) -> PromptRewrite:
    """A view of each prompt under another system instruction (our reading of how an instruction is put in front).

    In a chat prompt the instruction becomes the system message, through the tokenizer's chat template, in place of the
    one that is there; templates without a system role get it at the top of the first user message. A prompt that was
    not made by the template gets it in front, after the beginning-of-sequence token, with an empty line between.
    """
    tokenizer = text_tokenizer(processor, "an instruction")
    if not instruction.strip():
        raise ArgumentError("the instruction is empty; pass a sentence, or None to do without this view.")

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    prefixes = chat_prefixes(tokenizer, instruction)
    before, after = map(encode, prefixes) if prefixes else ([], [])
    user_header = _common_suffix(before, after)
    in_front = encode(f"{instruction}\n\n")

    def rewrite_row(ids: list[int]) -> list[int]:
        if before and ids[: len(before)] == before:
            return after + ids[len(before) :]
        if (end := _end_of(user_header, ids)) is not None:
            return after + ids[end:]
        bos = ids[:1] if ids[:1] == [tokenizer.bos_token_id] else []
        return bos + in_front + ids[len(bos) :]

    return lambda rows: [rewrite_row(ids) for ids in rows]


def without_context(processor: Any, context: Context) -> PromptRewrite:
    """A view of each prompt with its passage of `context` taken out of its text.

    The prompt is decoded, the passage removed and the rest encoded again.

    Raises:
        ArgumentError: when called, a prompt does not contain its passage word for word, or the number of passages does
            not fit the number of prompts.
    """
    tokenizer = text_tokenizer(processor, "context")
    find = context if callable(context) else _in_order([context] if isinstance(context, str) else list(context))

    def cut(ids: list[int], passage: str) -> list[int]:
        text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if passage not in text:
            raise ArgumentError(
                f"context {passage[:60]!r} does not occur in the prompt {text[:120]!r}; "
                "pass it exactly as it stands in the prompt."
            )
        return tokenizer(text.replace(passage, "", 1), add_special_tokens=False).input_ids

    return lambda rows: [cut(ids, passage) for ids, passage in zip(rows, find(rows), strict=True)]


def _in_order(passages: list[str]) -> PassagesOf:
    """One passage, or one per prompt, each of which may be several rows next to each other, as its beams are."""
    if not passages or not all(isinstance(passage, str) and passage.strip() for passage in passages):
        raise ArgumentError("context is empty; pass the passage as it stands in the prompt, or one passage per prompt.")

    def find(rows: list[list[int]]) -> list[str]:
        if len(rows) % len(passages):
            raise ArgumentError(
                f"context holds {len(passages)} passages for {len(rows)} rows; pass one passage, or one per prompt."
            )
        repeats = len(rows) // len(passages)
        return [passages[row // repeats] for row in range(len(rows))]

    return find


def passages_by_row(rows: Sequence[Sequence[int]], passages: Sequence[str]) -> PassagesOf:
    """Finds each row's passage by its tokens, in whatever order rows are read, and that of what some begin with.

    Args:
        rows: token ids.
        passages: of each row its own.

    Raises:
        ArgumentError: two rows are the same but for their passages; when called, a row is none of these nor begins one,
            or begins several with different passages.
    """
    known = {tuple(row): passage for row, passage in zip(rows, passages, strict=True)}
    if any(known[tuple(row)] != passage for row, passage in zip(rows, passages, strict=True)):
        raise ArgumentError("a prompt is asked twice with different contexts; ask it in two calls.")

    def find(some: list[list[int]]) -> list[str]:
        return [known[key] if (key := tuple(row)) in known else of_beginning(key) for row in some]

    def of_beginning(key: tuple[int, ...]) -> str:
        found = {passage for row, passage in known.items() if row[: len(key)] == key}
        if len(found) != 1:
            raise ArgumentError(f"{len(found)} contexts belong to prompts with this beginning; expected one.")
        return found.pop()

    return find


_IMAGE_MARKS = re.compile(r"<(fake_token_around_image|global-img|row_\d+_col_\d+|/?img)>")
"""Tokens that some processors set around an image's placeholders, by their text."""

_MARK_IDS = ("vision_start_token_id", "vision_end_token_id", "boi_token_index", "eoi_token_index")
"""Their ids where the model's config has them."""


def without_images(model: Any, processor: Any = None) -> PromptRewrite:
    """A view of each prompt without its images: no placeholders, and no marks around them.

    Args:
        model: an image-text model.
        processor: its processor or tokenizer, for marks that the model's config doesn't know.

    Raises:
        ModelError: the model is a text-only one.
    """
    config = model.config
    if (placeholder := getattr(config, "image_token_id", None)) is None:
        raise ModelError(f"{type(model).__name__} is a text-only model: its prompts hold no images.")
    marks = {placeholder, *(getattr(config, name, None) for name in _MARK_IDS)}
    if processor is not None:
        marks |= set(getattr(processor, "image_token_ids", ()))
        vocabulary: dict[str, int] = getattr(getattr(processor, "tokenizer", processor), "get_added_vocab", dict)()
        marks |= {index for token, index in vocabulary.items() if _IMAGE_MARKS.fullmatch(token)}

    def rewrite(rows: list[list[int]]) -> list[list[int]]:
        return [[token for token in row if token not in marks] for row in rows]

    return rewrite
