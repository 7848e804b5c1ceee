"""Answers as OpenAI's JSON, whole or as server-sent events."""

from __future__ import annotations

import json
import time
import traceback
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from truthkit.endpoint.request import Asked
from truthkit.endpoint.row import Scored
from truthkit.errors import TruthkitError
from truthkit.serving.asgi import Refused
from truthkit.serving.outbox import Outbox

_LEAST = -9999.0
"""What OpenAI's API has for a token that cannot come; JSON has no infinity."""


def error_document(status: HTTPStatus, message: str) -> dict[str, Any]:
    """An error as clients of OpenAI's API read it."""
    kinds = {HTTPStatus.UNAUTHORIZED: "authentication_error", HTTPStatus.NOT_FOUND: "not_found_error"}
    usual = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kinds.get(status, usual), "param": None, "code": None}}


def refusal(error: Exception) -> Refused:
    """What a failed answer becomes: a mistake in the request, a memory that is full, or a fault, shown whole."""
    if isinstance(error, Refused):
        return error
    message = " ".join(str(error).split())
    if isinstance(error, TruthkitError):
        return Refused(HTTPStatus.BAD_REQUEST, message)
    if isinstance(error, MemoryError) or "out of memory" in message.lower() or "can't allocate memory" in message:
        return Refused(HTTPStatus.SERVICE_UNAVAILABLE, "the memory is full; ask for less, or serve smaller batches.")
    traceback.print_exception(error)
    return Refused(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {message}")


@dataclass
class _Choice:
    """What there is of one answer."""

    text: list[str] = field(default_factory=list)
    scored: list[Scored] = field(default_factory=list)
    offset: int = 0
    finish: str | None = None


class Reply:
    """One request's answers on their way out. Its listeners are told in the worker's thread.

    Args:
        asked: the request.
        model: its model's name.
        tokenizer: for the texts of tokens.
        outbox: where the response goes.
        generated: how many new tokens there are so far.

    Attributes:
        error: what ended it before anything was sent.
    """

    def __init__(self, asked: Asked, model: str, tokenizer: Any, outbox: Outbox, generated: Callable[[], int]):
        self._asked, self._tokenizer, self._outbox, self._generated = asked, tokenizer, outbox, generated
        self._choices = [_Choice() for _ in asked.wishes]
        self._begun = False
        self.error: Refused | None = None
        kind = "chat.completion.chunk" if asked.chat and asked.stream else "chat.completion"
        self._base = {
            "id": f"{'chatcmpl' if asked.chat else 'cmpl'}-{uuid.uuid4().hex}",
            "object": kind if asked.chat else "text_completion",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": None,
        }

    def listener(self, index: int) -> Voice:
        """For answer `index`."""
        return Voice(self, index)

    def said(self, index: int, text: str, scored: Sequence[Scored]) -> None:
        """A piece of answer `index` has come."""
        if self._asked.stream:
            self._begin(index)
            self._send([self._piece(index, {"content": text} if self._asked.chat else text, scored)])
        else:
            self._choices[index].text.append(text)
            self._choices[index].scored += scored

    def ended(self, index: int, finish: str) -> None:
        """Answer `index` is whole."""
        self._choices[index].finish = finish
        if self._asked.stream:
            self._begin(index)
            self._send([self._piece(index, {} if self._asked.chat else "", [], finish)])
        if any(choice.finish is None for choice in self._choices):
            return
        if not self._asked.stream:
            choices = [self._whole(index, choice) for index, choice in enumerate(self._choices)]
            self._outbox.put(_json(self._base | {"choices": choices, "usage": self._usage()}))
        else:
            if self._asked.include_usage:
                self._send([], self._usage())
            self._outbox.put(b"data: [DONE]\n\n")
        self._outbox.close()

    def failed(self, error: Exception) -> None:
        """There will be no answer, or no more of it."""
        refused = refusal(error)
        if self._begun:
            self._outbox.put(b"data: " + _json(error_document(refused.status, str(refused))) + b"\n\n")
        else:
            self.error = self.error or refused
        self._outbox.close()

    def _begin(self, index: int) -> None:
        """The first piece of a chat's answer says who speaks."""
        self._begun = True
        choice = self._choices[index]
        if self._asked.chat and not choice.text:
            choice.text.append("")
            self._send([self._piece(index, {"role": "assistant", "content": ""}, [])])

    def _piece(self, index: int, what: Any, scored: Sequence[Scored], finish: str | None = None) -> dict[str, Any]:
        logprobs = self._logprobs(self._choices[index], scored) if scored else None
        name = "delta" if self._asked.chat else "text"
        return {"index": index, name: what, "logprobs": logprobs, "finish_reason": finish}

    def _whole(self, index: int, choice: _Choice) -> dict[str, Any]:
        text = "".join(choice.text)
        told = self._asked.wishes[index].top is not None
        logprobs = self._logprobs(choice, choice.scored) if told else None
        said: dict[str, Any] = {"text": text}
        if self._asked.chat:
            said = {"message": {"role": "assistant", "content": text, "refusal": None}}
        return {"index": index, **said, "logprobs": logprobs, "finish_reason": choice.finish}

    def _send(self, choices: Sequence[Any], usage: Any = None) -> None:
        document = self._base | {"choices": list(choices)}
        if self._asked.include_usage:
            document["usage"] = usage
        self._outbox.put(b"data: " + _json(document) + b"\n\n")

    def _usage(self) -> dict[str, int]:
        prompt, new = self._asked.prompt_tokens, self._generated()
        return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}

    def _logprobs(self, choice: _Choice, scored: Sequence[Scored]) -> dict[str, Any]:
        if self._asked.chat:
            return {"content": [self._entry(one) for one in scored], "refusal": None}
        texts = [self._text(one.token) for one in scored]
        offsets = []
        for text in texts:
            offsets.append(choice.offset)
            choice.offset += len(text)
        return {
            "tokens": texts,
            "token_logprobs": [_finite(one.log_p) for one in scored],
            "top_logprobs": [
                None if one.log_p is None else {self._text(token): _finite(log_p) for token, log_p in one.top}
                for one in scored
            ],
            "text_offset": offsets,
        }

    def _entry(self, one: Scored) -> dict[str, Any]:
        top = [self._named(token, log_p) for token, log_p in one.top]
        return self._named(one.token, one.log_p) | {"top_logprobs": top}

    def _named(self, token: int, log_p: float | None) -> dict[str, Any]:
        text = self._text(token)
        known = None if "\ufffd" in text else list(text.encode())
        return {"token": text, "logprob": _finite(log_p), "bytes": known}

    def _text(self, token: int) -> str:
        text: str = self._tokenizer.decode([token])
        return text


@dataclass(frozen=True)
class Voice:
    """One answer of a reply."""

    reply: Reply
    index: int

    def said(self, text: str, scored: Sequence[Scored]) -> None:
        """A piece of it has come."""
        self.reply.said(self.index, text, scored)

    def ended(self, finish: str) -> None:
        """It is whole."""
        self.reply.ended(self.index, finish)

    def failed(self, error: Exception) -> None:
        """There will be none."""
        self.reply.failed(error)


def _finite(log_p: float | None) -> float | None:
    return None if log_p is None else log_p if log_p > _LEAST else _LEAST


def _json(document: Any) -> bytes:
    return json.dumps(document, allow_nan=False, ensure_ascii=False).encode("utf-8", "replace")
