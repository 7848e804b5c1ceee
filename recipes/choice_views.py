"""TruthfulQA's choices through one decoder that holds every view, each prompt read once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

import truthkit as tk
from truthkit.decoding.engine.session import Session
from truthkit.decoding.engine.view import ViewLogits
from truthkit.evaluation.tasks.truthfulqa import choices as truthfulqa
from truthkit.text.tokens import text_ids

T = TypeVar("T")
Parts = dict[str, torch.Tensor]
"""What is computed from the views' logits, by name: (rows, positions, vocabulary), or of a choice without rows."""


class Tokens:
    """Prompts and choices as tokens, and what all prompts begin with."""

    def __init__(self, tokenizer: Any, prompts: dict[str, str]):
        self._tokenizer, self._prompts = tokenizer, prompts
        first, *others = [self._ids(prompt) for prompt in prompts.values()]
        self.prefix = first[: next(i for i in range(len(first)) if any(ids[i] != first[i] for ids in others))]

    def _ids(self, text: str) -> list[int]:
        return text_ids(self._tokenizer, text)

    def of(self, question: str, choice: str) -> tuple[list[int], list[int]]:
        """The prompt's tokens and the choice's: both together, cut where the prompt's own end."""
        prompt = self._ids(self._prompts[question])
        return prompt, self._ids(f"{self._prompts[question]} {choice}")[len(prompt) :]


class ChoiceViews:
    """Reads choices through a decoder, with what all prompts begin with and each question read once.

    Args:
        model: with the decoder entered.
        session: what entering it gave.
        tokens: of the questions.
        parts: what is made of the views' logits, in the decoder's order.
        together: so many choices in a forward.
    """

    def __init__(self, model: Any, session: Session, tokens: Tokens, parts: Callable[..., Parts], *, together: int = 4):
        self._model, self._session, self._tokens = model, session, tokens
        self._parts, self._together = parts, together
        self._seen: Sequence[ViewLogits] = ()
        session.observers.append(self._observe)
        self._cache = tk.GrowingCache(config=model.config.get_text_config(decoder=True))
        self._forward([tokens.prefix], 1, self._cache)

    def _observe(self, views: Sequence[ViewLogits], _combined: torch.Tensor) -> None:
        self._seen = views

    def _forward(self, rows: list[list[int]], keep: int, cache: Any) -> Parts:
        """The parts at the last `keep` positions."""
        with torch.no_grad():
            self._model(torch.tensor(rows), cache=cache, use_cache=True, logits_to_keep=keep)
        return self._parts(*self._seen)

    def question(self, question: truthfulqa.Question, kept: Callable[[Parts, list[int]], T]) -> list[T]:
        """For each choice, what `kept` makes of its parts and of its tokens."""
        answers = [self._tokens.of(question.text, choice) for choice in question.choices]
        choices = [ids for _, ids in answers]
        found: dict[int, T] = {}
        order = sorted(range(len(choices)), key=lambda i: len(choices[i]))
        with self._session.branched(self._cache, torch.zeros(1, dtype=torch.long), keep=True) as asked:
            first = self._forward([answers[0][0][len(self._tokens.prefix) :]], 1, asked)
            for start in range(0, len(order), self._together):
                some = order[start : start + self._together]
                width = max(1, *(len(choices[i]) - 1 for i in some))
                rows = [choices[i][:-1] + choices[i][:1] * (width - len(choices[i]) + 1) for i in some]
                with self._session.branched(asked, torch.zeros(len(some), dtype=torch.long)) as branches:
                    more = self._forward(rows, width, branches)
                for row, i in enumerate(some):
                    rest = len(choices[i]) - 1
                    found[i] = kept(
                        {name: torch.cat([first[name][0], more[name][row, :rest]]) for name in first}, choices[i]
                    )
        return [found[i] for i in range(len(choices))]
