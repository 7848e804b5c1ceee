"""Chat templates: what they write before, between and behind what people say."""

from __future__ import annotations

from typing import Any, Literal

from truthkit.errors import ArgumentError
from truthkit.text.tokens import Messages, text_tokenizer

Ending = Literal["cue", "open", "closed"]
"""How a chat ends: with the cue to answer, inside its last message, or as the template ends it."""

_MARK = "\u2063content\u2063"
_NUMBERED = "\u2063{}\u2063"
"""Texts that stand in for what people say, to find what a template writes around it."""


def template_of(processor: Any) -> Any:
    """The chat template of a tokenizer or processor, or of the tokenizer inside; None without one."""
    own = getattr(processor, "chat_template", None)
    return own or getattr(getattr(processor, "tokenizer", None), "chat_template", None)


def rendered(processor: Any, messages: Messages, ending: Ending = "cue") -> str:
    """A chat as text. Templates of image-text models are to be given messages whose content is a list of parts.

    Raises:
        ArgumentError: there is no chat template, or it does not take these messages.
    """
    return str(_applied(processor, messages, ending, tokenize=False))


def chat_tokens(processor: Any, messages: Messages, ending: Ending = "cue") -> list[int]:
    """A chat as token ids; the template writes the special tokens.

    Raises:
        ArgumentError: there is no chat template, or it does not take these messages.
    """
    return list(_applied(processor, messages, ending, tokenize=True, return_dict=False))


def _applied(processor: Any, messages: Messages, ending: Ending, **options: Any) -> Any:
    if (template := template_of(processor)) is None:
        raise ArgumentError("chat messages were given, but this tokenizer has no chat template; pass texts.")
    owner = processor
    if options["tokenize"] or not getattr(processor, "chat_template", None):
        owner = text_tokenizer(processor, "chat messages")  # processors give lists of lists
    if not getattr(owner, "chat_template", None):
        options["chat_template"] = template
    if ending != "closed":
        options |= {"add_generation_prompt": True} if ending == "cue" else {"continue_final_message": True}
    try:
        return owner.apply_chat_template(messages, **options)
    except Exception as error:  # templates refuse a role with whatever their author chose to raise
        raise ArgumentError(f"the model's chat template does not take these messages: {error}") from error


def _before_content(tokenizer: Any, messages: list[dict[str, str]]) -> str | None:
    """What the template puts before the user's words; None where these words do not come out as they went in."""
    before, mark, _ = rendered(tokenizer, [*messages, {"role": "user", "content": _MARK}], "closed").partition(_MARK)
    return before.rstrip() if mark else None


def chat_prefixes(tokenizer: Any, instruction: str) -> tuple[str, str] | None:
    """The text before the first user message, without and with the instruction; None without a usable chat template."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    if (plain := _before_content(tokenizer, [])) is None:
        return None
    try:
        instructed = _before_content(tokenizer, [{"role": "system", "content": instruction}])
    except ArgumentError:
        instructed = None
    if instructed is None or instruction.strip() not in instructed:  # refused, or left out in silence
        instructed = f"{plain}\n{instruction}\n"
    return plain, instructed


def after_content(processor: Any) -> list[int]:
    """The tokens that the chat template ends a user's turn with, the cue to answer included; [] without a template."""
    tokenizer = text_tokenizer(processor, "the chat template")
    if template_of(processor) is None:
        return []
    for content in (_MARK, [{"type": "text", "text": _MARK}]):  # image-text templates take a list of parts
        try:
            _, mark, after = rendered(processor, [{"role": "user", "content": content}]).partition(_MARK)
        except ArgumentError:
            continue
        if mark:
            return tokenizer(after, add_special_tokens=False).input_ids
    return []


def role_spans(tokenizer: Any, role: str, text: str) -> list[tuple[int, int | None]]:
    """Character ranges of a role's messages; the last one is open-ended where the text breaks off inside it."""
    header, footer = _around_role(tokenizer, role)
    spans: list[tuple[int, int | None]] = []
    at = 0
    while (found := text.find(header, at)) >= 0:
        start = found + len(header)
        end = text.find(footer, start) if footer else -1
        spans.append((start, end if end >= 0 else None))
        if end < 0:
            break
        at = end
    return spans


def _around_role(tokenizer: Any, role: str) -> tuple[str, str]:
    """What the chat template writes right before and right after every message of `role`."""
    turns = ["user", "assistant", "user", "assistant"]
    if role == "system":
        turns = ["system", *turns]
    elif role not in turns:
        raise ArgumentError(f"positions contains Role({role!r}); expected 'system', 'user' or 'assistant'.")
    messages = [{"role": turn, "content": _NUMBERED.format(i)} for i, turn in enumerate(turns)]
    rest, before = rendered(tokenizer, messages, "closed"), []
    for i in range(len(turns)):
        ahead, _, rest = rest.partition(_NUMBERED.format(i))
        before.append(ahead)
    after = [*before[1:], rest]
    mine = [i for i, turn in enumerate(turns) if turn == role]
    header = _common_start([before[i][::-1] for i in mine])[::-1]
    return header.lstrip("\n") if role != "system" else header, _common_start([after[i] for i in mine]).rstrip()


def _common_start(texts: list[str]) -> str:
    same = 0
    while same < min(map(len, texts)) and len({text[same] for text in texts}) == 1:
        same += 1
    return texts[0][:same]
