"""A false claim, told from a true one by how the model itself takes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from demo_parts.screen import Part, Result, mark, measured
from rich.table import Table
from rich.text import Text

import truthkit as tk
from truthkit.detection.detect import Detection
from truthkit.evaluation.tasks.detect import scorer
from truthkit.output import Output
from truthkit.statistics.score import Score

PART = Part(
    "A false claim caught",
    "What a model says sounds as sure when it is false.",
    "A detector gives a claim a score without knowing the truth. mean_log_prob: how unlikely the model finds its "
    "words. p_true: how little it believes the claim when asked.",
    "Sixteen questions, four each on capitals, authors, chemical symbols and numbers. The false answer is the right "
    "one to the next question of the same kind, so that true and false claims are made of the same words. Caught is: "
    "the false claim scores above the true one.",
)


class Kind(NamedTuple):
    """Questions of one form: what is asked, how it is answered, and subjects with their answers."""

    question: str
    claim: str
    facts: tuple[tuple[str, str], ...]


KINDS = (
    Kind(
        "What is the capital of {}?",
        "The capital of {} is {}.",
        (("France", "Paris"), ("Japan", "Tokyo"), ("Egypt", "Cairo"), ("Canada", "Ottawa")),
    ),
    Kind(
        "Who wrote {}?",
        "{} was written by {}.",
        (
            ("Hamlet", "William Shakespeare"),
            ("Pride and Prejudice", "Jane Austen"),
            ("War and Peace", "Leo Tolstoy"),
            ("Don Quixote", "Miguel de Cervantes"),
        ),
    ),
    Kind(
        "Which element has the symbol {}?",
        "{} is the symbol of {}.",
        (("Fe", "iron"), ("Na", "sodium"), ("Au", "gold"), ("Pb", "lead")),
    ),
    Kind(
        "What is the number of {}?",
        "The number of {} is {}.",
        (
            ("legs of a spider", "eight"),
            ("days in a week", "seven"),
            ("sides of a hexagon", "six"),
            ("fingers on one hand", "five"),
        ),
    ),
)

METHODS = ("mean_log_prob", "p_true")


class Claim(NamedTuple):
    """A question with a true and a false answer."""

    question: str
    true: str
    false: str


def claims() -> list[Claim]:
    """All questions, each with its own answer and that of the next one of its kind."""
    found = []
    for kind in KINDS:
        for number, (subject, answer) in enumerate(kind.facts):
            other = kind.facts[(number + 1) % len(kind.facts)][1]
            found.append(
                Claim(kind.question.format(subject), *(kind.claim.format(subject, one) for one in (answer, other)))
            )
    return found


def show(console: Output, model: Any, tokenizer: Any, *, quick: bool = False) -> list[Result]:
    """Score the claims with each detector, print, and give the results."""
    asked = claims()[:: 5 if quick else 1]
    prompts = [one.question for one in asked] * 2
    said = [one.true for one in asked] + [one.false for one in asked]
    found = {method: tk.detect(model, tokenizer, prompts, said, method=method) for method in METHODS}
    caught = {
        method: [some[i + len(asked)].score > some[i].score for i in range(len(asked))]
        for method, some in found.items()
    }

    table = Table(
        title=Text("False claims; [in brackets] the word that the model finds least likely"), title_justify="left"
    )
    for column in ("claim", *METHODS):
        table.add_column(column)
    for number in range(len(asked)):
        cells = [Text.assemble(mark(c[number]), " caught" if c[number] else " missed") for c in caught.values()]
        table.add_row(suspected(found["mean_log_prob"][number + len(asked)]), *cells)
    console.print(table, "")

    coin = f"{len(asked) / 2:g} of {len(asked)}"
    results = []
    for method, some in caught.items():
        right = sum(some)
        counted = f"{right} of {len(asked)}"
        results.append(Result(method, "false claims caught ↑", coin, counted, right, len(asked) - right, len(asked)))
    areas = {method: _areas(some[: len(asked)], some[len(asked) :]) for method, some in found.items()}
    said_of_areas = [f"{method} {_interval(score, 'auroc')}" for method, score in areas.items()]
    measured(
        console,
        results,
        [
            "“Without” is a coin. A detector finds what the model itself doubts; an error that it shares goes by.",
            f"AUROC, the chance that any false claim scores above any true one (n = {len(said)} claims, 95 % intervals "
            f"over questions; 0.5 is guessing): {', '.join(said_of_areas)}; a claim's length alone "
            f"{_interval(areas[METHODS[0]], 'auroc_length')}.",
        ],
    )
    return results


def _areas(true: Sequence[Detection], false: Sequence[Detection]) -> Score:
    """What the benchmark's scorer makes of the scores; a question's two claims are drawn together."""
    pairs = list(zip(true, false, strict=True))
    units = [
        [scorer.Unit(one.score, wrong, len(one.answer)) for one, wrong in zip(pair, (False, True), strict=True)]
        for pair in pairs
    ]
    return scorer.score(units, [{} for _ in pairs], [one.prompt for one in true], {})


def _interval(score: Score, name: str) -> str:
    low, high, *_ = score.intervals()[name]
    return f"{score.metrics[name]:.2f} [{low:.2f}, {high:.2f}]"


def suspected(one: Detection) -> Text:
    """The claim with brackets around the word of its most suspicious token."""
    start = max(one.tokens, key=lambda token: token.score).start
    first = one.answer.rfind(" ", 0, start + 1) + 1
    end = one.answer.find(" ", max(first, start + 1))
    end = len(one.answer.rstrip(".")) if end < 0 else end
    return Text.assemble(one.answer[:first], ("[" + one.answer[first:end] + "]", "red"), one.answer[end:])
