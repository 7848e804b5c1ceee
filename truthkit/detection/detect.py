"""`tk.detect`: how likely answers are false, by one of the detectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from truthkit.detection.asked import Asked
from truthkit.detection.detector import Detector, Found
from truthkit.detection.methods import find_detector
from truthkit.detection.reading import Reader
from truthkit.errors import ArgumentError


@dataclass(frozen=True)
class TokenScore:
    """A token of an answer.

    Attributes:
        start, stop: the characters of the answer that it brought, `stop` exclusive.
        score: higher is more likely false.
    """

    start: int
    stop: int
    score: float


@dataclass(frozen=True)
class Detection:
    """One answer and its score.

    Attributes:
        prompt: what was asked.
        answer: what was said, by the model where none was given.
        score: higher is more likely false.
        tokens: those of the answer, where the method scores tokens; else empty.
    """

    prompt: str
    answer: str
    score: float
    tokens: tuple[TokenScore, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON values only; a token as [start, stop, score]."""
        tokens = [[one.start, one.stop, one.score] for one in self.tokens]
        return {"prompt": self.prompt, "answer": self.answer, "score": self.score, "tokens": tokens}


def detect(
    model: Any,
    processor: Any,
    prompts: Sequence[str] | str,
    answers: Sequence[str] | str | None = None,
    *,
    method: str | Detector = "mean_log_prob",
    images: Sequence[Sequence[Any]] = (),
    contexts: Sequence[str | None] = (),
    raw: bool = False,
    max_new_tokens: int = 64,
    token_budget: int = 2048,
    seed: int = 0,
    **options: Any,
) -> list[Detection]:
    """Score answers: a higher score means more likely false.

    Scores of one method can be compared with each other only. None of them knows the truth: `truthkit eval detect`
    measures how well a method tells false answers from right ones, against what their length alone tells.

    Args:
        model: text or image-text model; PEFT wrappers stay on.
        processor: its tokenizer or processor.
        prompts: user messages, or with `raw` texts to go on from.
        answers: one for each prompt; None: the model writes them, by greedy search.
        method: "mean_log_prob", "min_log_prob", "entropy", "p_true", "probe", "eigenscore", "lookback" or "agreement",
            also with options as in "eigenscore:samples=5"; or a `Detector`.
        images: for each prompt the Pillow images in front of it.
        contexts: for each prompt the passage in it that its answer is to rest on, as it stands there; for "lookback"
            and "agreement".
        raw: no chat template: prompt and answer are joined as they are.
        max_new_tokens: of answers that the model writes or draws.
        token_budget: how many tokens, padding included, run in one forward.
        seed: of answers that are drawn.
        **options: of the method.

    Raises:
        ArgumentError, ModelError, NotAvailableError: something given cannot work; the message says what.

    Example:
        >>> for one in tk.detect(model, tokenizer, ["Who wrote Hamlet?"], ["It was Marlowe."]):
        ...     print(one.score, [(one.answer[t.start : t.stop], t.score) for t in one.tokens])
    """
    detector = find_detector(method, **options)
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    answers = [answers] if isinstance(answers, str) else answers
    if not prompts:
        raise ArgumentError("prompts is empty; pass at least one.")
    for name, given in (("answers", answers), ("images", images or None), ("contexts", contexts or None)):
        if given is not None and len(given) != len(prompts):
            raise ArgumentError(f"{name} has {len(given)} entries for {len(prompts)} prompts; pass one for each.")
    reader = Reader(model, processor, raw=raw, token_budget=token_budget, max_new_tokens=max_new_tokens, seed=seed)
    asked = [
        Asked(prompt, "", tuple(images[i]) if images else (), contexts[i] if contexts else None)
        for i, prompt in enumerate(prompts)
    ]
    if answers is None:
        answers = reader.write(asked)
    asked = [Asked(one.prompt, said, one.images, one.context) for one, said in zip(asked, answers, strict=True)]
    return [_detection(one, found) for one, found in zip(asked, detector.found(reader, asked), strict=True)]


def _detection(asked: Asked, found: Found) -> Detection:
    scores = [] if found.tokens is None else found.tokens.tolist()
    tokens = (TokenScore(span.start, span.stop, score) for span, score in zip(found.spans, scores, strict=False))
    return Detection(asked.prompt, asked.answer, found.score, tuple(tokens))
