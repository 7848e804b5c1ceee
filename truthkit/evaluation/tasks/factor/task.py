"""FACTOR."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from truthkit.evaluation.benchmark import Benchmark, Metric
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.task import Task
from truthkit.evaluation.tasks.chance import one_in
from truthkit.evaluation.tasks.raw_scores import explained, raw_of

if TYPE_CHECKING:
    from truthkit.evaluation.running.asking import Asking
    from truthkit.statistics.score import Score

Form = Literal["official", "dola"]


def task(data: Path, *, form: Form = "official") -> Task:
    """Is the true completion of a text likelier than three false ones.

    Args:
        data: a CSV such as news_factor.csv or expert_factor.csv
        form: official compares means per token after truncated prefixes, dola sums, after full prefixes for news
    """
    from truthkit.evaluation.tasks.factor import scorer

    questions = scorer.read_questions(data, form=form)
    items = [
        Item(str(number), question.prefix, choices=question.completions, raw=True)
        for number, question in enumerate(questions, 1)
    ]

    def score(which: Sequence[int], outputs: Sequence[dict[str, Any]]) -> Score:
        log_probs, tokens = ([output[name] for output in outputs] for name in ("log_probs", "tokens"))
        return scorer.score([questions[i] for i in which], log_probs, tokens, form=form, raw=raw_of(outputs))

    return Task("factor", items, score, "accuracy", config={"form": form}, data=(data,), ask=_ask)


def _ask(asking: Asking, batch: Sequence[Item], fixed: Any = None) -> list[dict[str, Any]]:
    """The log-probability of every completion, a contrast's raw score of it, and of how many tokens it is."""
    from truthkit.likelihood.continuation import continued
    from truthkit.text.tokens import text_tokenizer

    tokenizer = text_tokenizer(asking.processor, "a completion")

    def tokens(item: Item) -> list[int]:
        pairs = (continued(tokenizer, item.prompt, choice) for choice in item.choices)
        return [len(row) - start for row, start in pairs]

    scores = asking.choose_both(batch, fixed)
    return [{**found, "tokens": tokens(item)} for item, found in zip(batch, scores, strict=True)]


FACTOR = Benchmark(
    "factor",
    "FACTOR",
    task,
    metrics=(
        Metric("accuracy", field="correct", chance=one_in("log_probs")),
        Metric(
            "raw_accuracy",
            "accuracy, raw scores",
            field="raw_correct",
            otherwise="accuracy",
            chance=one_in("log_probs"),
        ),
    ),
    examples=("truthkit eval factor --data news_factor.csv --form dola --decoder dola:beta=0 --out runs/factor",),
    outcomes=("questions", "unscored", "raw_scores"),
    remarks=explained,
)
