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


def rendered(processor: Any, messages: Messages, ending: Ending = "cue", *, fold: bool = True) -> str:
    """A chat as text. Templates of image-text models are to be given messages whose content is a list of parts.

    Args:
        processor: tokenizer or processor.
        messages: the chat.
        ending: how it ends.
        fold: put a system message in front of the user's first one, where the template refuses it or leaves it out.

    Raises:
        ArgumentError: there is no chat template, or it does not take these messages.
    """
    return str(_applied(processor, messages, ending, fold=fold, tokenize=False))


def chat_tokens(processor: Any, messages: Messages, ending: Ending = "cue") -> list[int]:
    """A chat as token ids; the template writes the special tokens.

    Raises:
        ArgumentError: there is no chat template, or it does not take these messages.
    """
    return list(_applied(processor, messages, ending, tokenize=True, return_dict=False))


def around_answer(processor: Any, messages: Messages, ending: Ending) -> tuple[str, str]:
    """What the template writes before and after an answer to `messages`.

    Raises:
        ArgumentError: there is no chat template, or it does not take these messages and an answer.
    """
    like = messages[-1]["content"]
    mark: Any = _MARK if isinstance(like, str) else [{"type": "text", "text": _MARK}]
    before, _, after = rendered(processor, [*messages, {"role": "assistant", "content": mark}], ending).partition(_MARK)
    return before, after


def apply(owner: Any, messages: Messages, *, fold: bool = True, **options: Any) -> Any:
    """The owner's `apply_chat_template`; see `rendered` for `fold`.

    Raises:
        ArgumentError: the template does not take these messages.
    """
    refusal: Exception | None = None
    try:
        made = owner.apply_chat_template(messages, **options)
        if not fold or not _leaves_out(owner, messages, options):
            return made
    except Exception as error:  # templates refuse a role with whatever their author chose to raise
        refusal = error
    if fold and (folded := _folded(messages)) is not None:
        try:
            return owner.apply_chat_template(folded, **options)
        except Exception as error:
            refusal = refusal or error
    if refusal is None:
        return made
    reason = " ".join(str(refusal).split()) or type(refusal).__name__
    raise ArgumentError(f"the model's chat template does not take these messages: {reason}") from refusal


def _leaves_out(owner: Any, messages: Messages, options: dict[str, Any]) -> bool:
    """Whether the template passes over the system message in silence."""
    said = messages[0]["content"] if messages and messages[0]["role"] == "system" else None
    if not isinstance(said, str):
        return False
    return said.strip() not in owner.apply_chat_template(messages, **options | {"tokenize": False})


def _folded(messages: Messages) -> Messages | None:
    """The messages with the system's words in front of the user's; None where there are not both."""
    if len(messages) < 2 or [message["role"] for message in messages[:2]] != ["system", "user"]:
        return None
    system, user = (message["content"] for message in messages[:2])
    if isinstance(system, str) and isinstance(user, str):
        both: Any = f"{system}\n\n{user}"
    else:
        both = [
            part
            for content, end in ((system, "\n\n"), (user, ""))
            for part in ([{"type": "text", "text": content + end}] if isinstance(content, str) else content)
        ]
    return [{**messages[1], "content": both}, *messages[2:]]


def _applied(processor: Any, messages: Messages, ending: Ending, *, fold: bool = True, **options: Any) -> Any:
    if (template := template_of(processor)) is None:
        raise ArgumentError("chat messages were given, but this tokenizer has no chat template; pass texts.")
    owner = processor
    if options["tokenize"] or not getattr(processor, "chat_template", None):
        owner = text_tokenizer(processor, "chat messages")  # processors give lists of lists
    if not getattr(owner, "chat_template", None):
        options["chat_template"] = template
    if ending != "closed":
        options |= {"add_generation_prompt": True} if ending == "cue" else {"continue_final_message": True}
    return apply(owner, messages, fold=fold, **options)


def _before_content(tokenizer: Any, messages: list[dict[str, str]]) -> str | None:
    """What the template puts before the user's words; None where these words do not come out as they went in."""
    whole = rendered(tokenizer, [*messages, {"role": "user", "content": _MARK}], "closed", fold=False)
    before, mark, _ = whole.partition(_MARK)
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
    rest, before = rendered(tokenizer, messages, "closed", fold=False), []
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
