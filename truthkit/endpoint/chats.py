"""Messages of a request as messages for a chat template, with their images beside them."""

from __future__ import annotations

import reprlib
from typing import Any

from truthkit.errors import ArgumentError
from truthkit.serving.fields import list_of, object_of, text_of
from truthkit.serving.uploads import uploaded
from truthkit.text.encode import passage_in_front
from truthkit.text.tokens import Messages

MAX_MESSAGES = 1000
MAX_TEXT = 200_000
"""Characters of a prompt."""
MAX_IMAGES = 16
"""Of a prompt."""

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def read_chat(value: Any, image_mark: str | None) -> tuple[Messages, list[bytes]]:
    """The messages, each with its content as a list of parts, and the files of their images.

    Args:
        value: of the request's field `messages`.
        image_mark: the text that stands for an image in prompts; None where the model takes none.

    Raises:
        ArgumentError: they are not what OpenAI's API has there, or more than this server answers.
    """
    messages: Messages = []
    images: list[bytes] = []
    for number, entry in enumerate(list_of(value, "messages", MAX_MESSAGES), start=1):
        messages.append(_message(entry, f"message {number}", image_mark, images))
    if not messages:
        raise ArgumentError("messages is empty; expected at least one, as {'role': 'user', 'content': 'Hello'}.")
    if not any(part["text"].strip() for one in messages for part in one["content"] if "text" in part):
        raise ArgumentError("messages hold no text; write a question.")
    size = sum(len(part.get("text", "")) for one in messages for part in one["content"])
    if size > MAX_TEXT:
        raise ArgumentError(f"messages have {size} characters; shorten them to {MAX_TEXT}.")
    return messages, images


def _message(entry: Any, name: str, image_mark: str | None, images: list[bytes]) -> dict[str, Any]:
    fields = {key: value for key, value in object_of(entry, name).items() if value is not None}
    if fields.get("tool_calls") or "tool_call_id" in fields or "function_call" in fields:
        raise ArgumentError(f"{name} calls a tool; this server has none.")
    object_of(fields, name, "role content name refusal tool_calls annotations audio")
    role = text_of(fields, "role")
    if role not in _ROLES:
        raise ArgumentError(f"{name} has the role {reprlib.repr(role)}; expected {', '.join(_ROLES)}.")
    if "content" not in fields:
        raise ArgumentError(f"{name} has no content; expected text, or a list of parts.")
    content = fields["content"]
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    parts = [_part(part, name, image_mark, images) for part in list_of(content, f"the content of {name}", 1000)]
    return {"role": _ROLES[role], "content": parts}


def _part(value: Any, name: str, image_mark: str | None, images: list[bytes]) -> dict[str, str]:
    fields = object_of(value, f"a part of {name}", "type text image_url refusal")
    kind = text_of(fields, "type")
    if kind == "text":
        text = text_of(fields, "text", MAX_TEXT)
        if image_mark and image_mark in text:
            raise ArgumentError(f"{name} has {image_mark!r} in its text, which stands for an image; leave it out.")
        return {"type": "text", "text": text}
    if kind != "image_url":
        raise ArgumentError(f"a part of {name} is of type {reprlib.repr(kind)}; expected 'text' or 'image_url'.")
    if image_mark is None:
        raise ArgumentError(
            "this is a text-only model: it takes no images. Leave them out, or serve an image-text one."
        )
    if len(images) == MAX_IMAGES:
        raise ArgumentError(f"the messages have more than {MAX_IMAGES} images; leave some out.")
    image = fields.get("image_url")
    image = {"url": image} if isinstance(image, str) else image
    url = object_of(image, f"image_url in {name}", "url detail").get("url")
    if not isinstance(url, str) or not url.startswith("data:"):
        raise ArgumentError(
            f"image_url in {name} is {reprlib.repr(url)}; expected the image itself, as data:image/png;base64,..., for "
            "addresses are not fetched."
        )
    head, _, encoded = url.partition(",")
    if not head.endswith(";base64"):
        raise ArgumentError(f"image_url in {name} begins with {head[:60]!r}; expected data:image/...;base64,...")
    images.append(uploaded(encoded, len(images) + 1))
    return {"type": "image"}


def with_context(messages: Messages, context: str) -> str:
    """Put a passage in front of the last thing the user said, unless it is in there; what decoders are to leave out.

    Raises:
        ArgumentError: the user said nothing.
    """
    last = next((one for one in reversed(messages) if one["role"] == "user"), None)
    part = next((part for part in last["content"] if part["type"] == "text"), None) if last else None
    if part is None:
        raise ArgumentError("context goes in front of what the user says, and messages have no text of a user.")
    part["text"], passage = text_with_context(part["text"], context)
    return passage


def text_with_context(text: str, context: str) -> tuple[str, str]:
    """The text with the passage in front unless it is in there, and the passage as it stands there."""
    if context.strip() in text:
        return text, context.strip()
    passage = passage_in_front(context)
    return passage + text, passage


def as_texts(messages: Messages) -> Messages:
    """The messages with plain texts as contents, as templates of text models take them."""
    return [{**one, "content": "".join(part["text"] for part in one["content"])} for one in messages]
