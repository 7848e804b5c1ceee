"""Prompts as model inputs: through the chat template where there is one, with images where the model takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from truthkit.errors import ArgumentError
from truthkit.text.dialogue import answered_ids, prompt_ids
from truthkit.text.template import around_answer, rendered
from truthkit.text.tokens import ChatOrText, Messages, begins_itself, text_ids, text_tokenizer

if TYPE_CHECKING:
    import torch


def passage_in_front(context: str) -> str:
    """`context` as it stands in front of a question; it is this whole text that CAD is to leave out."""
    return f"{context.strip()}\n\n"


def encode_prompt(
    processor: Any,
    text: str,
    *,
    system: str | None = None,
    raw: bool = False,
    images: Sequence[Any] = (),
    earlier: Messages | None = None,
) -> dict[str, torch.Tensor]:
    """Model inputs for one prompt; see `encode_prompts`.

    `earlier` is the conversation so far, messages of user and assistant whose contents are texts; the images then stand
    in its first message.

    Raises:
        ArgumentError: as there; or a conversation, and no chat template for it.
    """
    if not earlier:
        return encode_prompts(processor, [text], [images], system=system, raw=raw)
    _check_text(text)
    owner = _owner(processor, seeing=bool(images))
    if raw or not getattr(owner, "chat_template", None):
        reason = "raw is set" if raw else "the tokenizer has none"
        raise ArgumentError(f"a conversation needs a chat template, and {reason}; ask without what was said before.")
    messages = _messages(text, len(images), system=system, parts=bool(images), earlier=earlier)
    return encode_rendered(processor, [rendered(owner, messages)], [images], templated=True)


def encode_prompts(
    processor: Any,
    texts: Sequence[str],
    images: Sequence[Sequence[Any]] = (),
    *,
    system: str | None = None,
    raw: bool = False,
) -> dict[str, torch.Tensor]:
    """Model inputs for prompts, each a chat's user message where there is a chat template and `raw` is false.

    Args:
        processor: the model's processor or tokenizer, which pads on the left.
        texts: the prompts.
        images: for each prompt the Pillow images that stand in front of its text, for an image-text model.
        system: the system message of the chats.
        raw: continue the texts as they are.

    Raises:
        ArgumentError: a prompt is empty or no valid text, the template has no place for `system`, or the model takes no
            images.
    """
    rows = list(images) or [() for _ in texts]
    prompts = written_prompts(processor, texts, list(map(len, rows)), system=system, raw=raw)
    return encode_rendered(processor, prompts, rows, templated=not raw and has_template(processor))


def has_template(processor: Any) -> bool:
    """Whether prompts of text go through a chat template."""
    return bool(getattr(text_tokenizer(processor, "a prompt"), "chat_template", None))


def encode_rendered(
    processor: Any, texts: Sequence[str], images: Sequence[Sequence[Any]], *, templated: bool
) -> dict[str, torch.Tensor]:
    """Model inputs for texts that hold all that stands around the prompts, and the beginnings of answers behind them.

    Args:
        processor: the model's processor or tokenizer.
        texts: as `written_prompts` gives them, with a mark for every image.
        images: for each text its images.
        templated: whether a chat template wrote the special tokens.
    """
    tokenizer, texts = text_tokenizer(processor, "a prompt"), list(texts)
    begun = [begins_itself(tokenizer, text) for text in texts]
    if any(begun) and not all(begun):
        texts = [text.removeprefix(tokenizer.bos_token) for text in texts]
    options: dict[str, Any] = {
        "return_tensors": "pt",
        "padding": len(texts) > 1,
        "add_special_tokens": not all(begun),
    }
    if not any(images):
        if templated:
            options["add_special_tokens"] = False
        return dict(tokenizer(texts, **options))
    return dict(processor(images=[list(row) for row in images], text=texts, **options))


def answer_lead(processor: Any, *, seeing: bool, raw: bool = False) -> str:
    """What stands between the cue to answer and the answer, by the chat template; a space without one, "" if `raw`."""
    owner = _owner(processor, seeing=seeing)
    if raw or not getattr(owner, "chat_template", None):
        return "" if raw else " "
    messages = _messages("?", 0, system=None, parts=seeing)
    cue, before = rendered(owner, messages), around_answer(owner, messages, "open")[0]
    return before.removeprefix(cue) if before.startswith(cue) else ""


def written_prompts(
    processor: Any, texts: Sequence[str], images: Sequence[int], *, system: str | None = None, raw: bool = False
) -> list[str]:
    """The prompts of `encode_prompts` as texts, with one mark for every image; `images` says how many each has.

    Raises:
        ArgumentError: as there.
    """
    seeing = any(images)
    owner, prompts = _owner(processor, seeing=seeing), []
    for text, count in zip(texts, images, strict=True):
        _check_text(text)
        if raw or not getattr(owner, "chat_template", None):
            if system is not None:
                reason = "raw is set" if raw else "the tokenizer has none"
                raise ArgumentError(f"a system message needs a chat template, and {reason}; put it into the prompt.")
            mark = str(getattr(processor, "image_token", "<image>"))
            prompts.append(text if not count or mark in text else f"{mark * count}\n{text}")
        else:
            prompts.append(rendered(owner, _messages(text, count, system=system, parts=seeing)))
    return prompts


def _owner(processor: Any, *, seeing: bool) -> Any:
    """Whose chat template writes the prompts: the processor's where there are images and it has one."""
    if seeing and not hasattr(processor, "image_processor"):
        raise ArgumentError("this is a text-only model: it takes no images. Use an image-text model.")
    return processor if seeing and getattr(processor, "chat_template", None) else text_tokenizer(processor, "a prompt")


def encode_dialogue(processor: Any, prompt: ChatOrText, answer: str | None = None) -> list[int]:
    """Tokens of a prompt up to where the answer begins, or with the beginning of an answer.

    Raises:
        ArgumentError: the prompt is empty, or the chat template does not take it.
        ModelError: the template writes a finished conversation otherwise than one that is to be answered.
    """
    if answer is None:
        return prompt_ids(processor, prompt)
    if isinstance(prompt, str) and prompt:
        return text_ids(text_tokenizer(processor, "a prompt"), prompt + answer)
    return answered_ids(processor, prompt, answer).ids


def _check_text(text: str) -> None:
    if not text.strip():
        raise ArgumentError("the prompt is empty; pass a question or the beginning of a text.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ArgumentError(f"the prompt {text[:60]!r} is not valid UTF-8.") from None


def _messages(text: str, images: int, *, system: str | None, parts: bool, earlier: Messages | None = None) -> Messages:
    """A chat that ends with the user's `text`; templates of image-text models take a message as a list of parts."""

    def content(words: str, pictures: int = 0) -> Any:
        return [{"type": "image"}] * pictures + [{"type": "text", "text": words}] if parts else words

    said = [*(earlier or []), {"role": "user", "content": text}]
    messages: Messages = [
        {"role": one["role"], "content": content(one["content"], 0 if number else images)}
        for number, one in enumerate(said)
    ]
    if system is not None:
        messages.insert(0, {"role": "system", "content": content(system)})
    return messages
