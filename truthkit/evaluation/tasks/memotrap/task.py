"""MemoTrap."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truthkit.evaluation.benchmark import Benchmark, Config, Lines, Metric
from truthkit.evaluation.running.hub import HubData, HubFile
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.task import Task
from truthkit.evaluation.tasks.answers import in_order_of, log_probs_of
from truthkit.evaluation.tasks.raw_scores import explained, raw_of
from truthkit.evaluation.tasks.sets import files_of

if TYPE_CHECKING:
    from truthkit.evaluation.running.asking import Asking
    from truthkit.statistics.score import Score

_HUB = HubData(
    "pminervini/inverse-scaling",
    "data",
    {
        "proverb-ending.csv": HubFile(
            "memo-trap", lambda row: {name: row[name] for name in ("prompt", "classes", "answer_index")}
        )
    },
)


def task(data: Path) -> Task:
    """Is the ending that an instruction asks for likelier than the one known by heart.

    Args:
        data: folder of MemoTrap's .csv files, each of which is a set, or one of them; or hub, the 936 proverbs of the
            Inverse Scaling Prize
    """
    from truthkit.evaluation.tasks.memotrap import scorer

    questions = scorer.read_questions(data)
    items = [
        Item(f"{question.category} {number}", question.prompt, (), question.choices, raw=True, context=question.context)
        for number, question in enumerate(questions, 1)
    ]

    def score(which: Sequence[int], outputs: Sequence[dict[str, Any]]) -> Score:
        log_probs = [output["log_probs"] for output in outputs]
        return scorer.score([questions[i] for i in which], log_probs, raw=raw_of(outputs))

    return Task("memotrap", items, score, "accuracy", data=tuple(files_of(data, "*.csv")), ask=_ask)


def _ask(asking: Asking, batch: Sequence[Item], fixed: Any = None) -> list[dict[str, Any]]:
    """The log-probability of both endings, and a contrast's raw score of them."""
    return list(asking.choose_both(batch, fixed))


def score_files(answers: Path, data: Path) -> Score:
    """Is the ending that an instruction asks for likelier than the one known by heart.

    ANSWERS has one JSON object per line, with the log-probability of both endings, summed over their tokens, by the
    endings' texts or in their order:
      {"prompt": "Translate the following ...", "log_probs": {" heavy.": -9.5, " fonder.": -4.1}}
    Without prompts the lines are taken in the order of the questions.

    Args:
        answers: file of the scores
        data: file or folder of the questions
    """
    from truthkit.evaluation.tasks.memotrap import scorer
    from truthkit.files.reading import read_records

    questions = scorer.read_questions(data)
    records = in_order_of([question.prompt for question in questions], read_records(answers), "prompt")
    pairs = zip(records, questions, strict=True)
    return scorer.score(questions, [log_probs_of(record, question.choices) for record, question in pairs])


def _rescore(items: Lines, config: Config) -> Score:
    """With `raw_accuracy` in any case, for runs to compare with that have it: without a contrast it is the accuracy."""
    return _score_run([{"raw_correct": item["correct"], **item} for item in items], None)


def _score_run(lines: Lines, data: Path | None) -> Score:
    from truthkit.evaluation.tasks.memotrap import scorer

    return scorer.of_items(lines)


MEMOTRAP = Benchmark(
    "memotrap",
    "MemoTrap",
    task,
    metrics=(
        Metric("accuracy", field="correct", chance=0.5),
        Metric("macro_accuracy", "accuracy, mean over sets", chance=0.5),
        Metric("raw_accuracy", "accuracy, raw scores", field="raw_correct", otherwise="accuracy", chance=0.5),
        Metric("*", chance=0.5),
    ),
    hub=_HUB,
    examples=(
        "truthkit eval memotrap --data memotrap/ --decoder cad:alpha=1 --controls --out runs/memotrap",
        "truthkit score memotrap log_probs.jsonl --data memotrap/",
    ),
    rescore=_rescore,
    score_files=score_files,
    score_run=_score_run,
    outcomes=("questions", "unscored", "raw_scores"),
    remarks=explained,
)
