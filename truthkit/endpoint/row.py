"""One answer while it is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

import torch

from truthkit.endpoint.stops import UntilStop
from truthkit.endpoint.wish import Wish
from truthkit.generation.pieces import Pieces
from truthkit.serving.asgi import Refused
from truthkit.serving.outbox import Gone


@dataclass(frozen=True)
class Scored:
    """A token with its log-probability and those of the most probable ones; None where nothing was before it."""

    token: int
    log_p: float | None
    top: tuple[tuple[int, float], ...] = ()


class Listener(Protocol):
    """Who an answer is for."""

    def said(self, text: str, scored: Sequence[Scored]) -> None:
        """A piece of it has come."""

    def ended(self, finish: str) -> None:
        """It is whole: "stop" or "length"."""

    def failed(self, error: Exception) -> None:
        """There will be none."""


class Row:
    """An answer, token by token, up to its own end.

    Args:
        wish: what it is to be.
        tokenizer: of the model.
        ends: token ids that end an answer.
        listener: told in the worker's thread.
        stopped: whether its client has gone, or the server stops.
        overdue: whether its time is over.

    Attributes:
        tokens: the new ones, the end token included.
        over: whether nothing more is to come.
        finish: how it ended: "stop", "length", "error", or "gone" with its client.
        log_p: of what its next token is chosen from, (vocabulary,); set by whoever chooses, where it is wanted.
    """

    def __init__(
        self,
        wish: Wish,
        tokenizer: Any,
        ends: Sequence[int],
        listener: Listener,
        stopped: Callable[[], bool],
        overdue: Callable[[], bool],
    ):
        self.wish, self.tokens, self.over = wish, list[int](), False
        self.finish = "gone"
        self._tokenizer, self._ends, self._listener = tokenizer, ends, listener
        self._stopped, self._overdue = stopped, overdue
        self._pieces, self._until = Pieces(tokenizer), UntilStop(wish.stops)
        self._begun = False
        self._said = 0  # characters, stops held back included
        self.log_p: torch.Tensor | None = None
        self._chance = torch.Generator().manual_seed(wish.seed % 2**63)

    @property
    def begun(self) -> bool:
        """Whether something of it was told."""
        return self._begun

    def read(self, scored: Sequence[Scored]) -> None:
        """Tell the prompt, with its tokens where they are scored."""
        ids = self.wish.ids
        self.say(self.wish.prompt or self._tokenizer.decode(ids, skip_special_tokens=True), scored)

    def uniform(self) -> float:
        """The next random number of its seed, in (0, 1]."""
        return 1.0 - float(torch.rand((), generator=self._chance, dtype=torch.float64))

    def put(self, token: int) -> None:
        """Take the next token."""
        if self.check():
            return
        self.tokens.append(token)
        ended = token in self._ends
        scored = [] if self.log_p is None or ended else [scored_token(self.log_p, token, self.wish.top or 0)]
        piece = "" if ended else self._pieces(token)
        self._said += len(piece)
        text, stopped = self._until(piece)
        finish = "stop" if ended or stopped else "length" if len(self.tokens) >= self.wish.limit else ""
        if finish and not stopped:
            rest = self._tokenizer.decode(self.tokens[: -1 if ended else None], skip_special_tokens=True)[self._said :]
            last, stopped = self._until(rest)
            text += last if stopped else last + self._until.rest()
            finish = "stop" if stopped else finish
        self.say(text, scored)
        if finish:
            self.end(finish)

    def check(self) -> bool:
        """Whether it is over; it ends here where its client has gone or its time is up."""
        if not self.over and self._overdue():
            self.say(self._until.rest(), [])
            self.end("length")
        elif not self.over and self._stopped():
            self.drop()
        return self.over

    def say(self, text: str, scored: Sequence[Scored]) -> None:
        """Tell a piece."""
        if text or scored:
            self._tell(self._listener.said, text, scored)

    def end(self, finish: str) -> None:
        """It is whole."""
        if not self.over:
            self.over, self.finish = True, finish
            self._tell(self._listener.ended, finish)

    def fail(self, error: Exception) -> None:
        """There is no answer, or no more of it."""
        if not self.over:
            self.over, self.finish = True, "error"
            self._tell(self._listener.failed, error)

    def drop(self) -> None:
        """Nobody is to get any more of it: its client has gone, or is told that the server stops."""
        if not self.over:
            self.fail(Refused(HTTPStatus.SERVICE_UNAVAILABLE, "truthkit is stopping."))
            self.finish = "gone"

    def _tell(self, say: Callable[..., None], *what: Any) -> None:
        self._begun = True
        try:
            say(*what)
        except Gone:
            self.over = True


def scored_token(log_p: torch.Tensor, token: int, top: int) -> Scored:
    """The token beside the `top` most probable ones, of log-probabilities (vocabulary,)."""
    values, ids = log_p.topk(min(top, len(log_p)))
    return Scored(token, float(log_p[token]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))
