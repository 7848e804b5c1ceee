"""TruthfulQA, multiple choice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truthkit.evaluation.running.hub import HubData, HubFile
from truthkit.evaluation.running.task import Task

if TYPE_CHECKING:
    from truthkit.statistics.score import Score

HUB = HubData(
    "truthfulqa/truthful_qa",
    "validation",
    {
        "mc_task.json": HubFile(
            "multiple_choice", lambda row: {name: row[name] for name in ("question", "mc1_targets", "mc2_targets")}
        ),
        "TruthfulQA.csv": HubFile(
            "generation",
            lambda row: {
                "Question": row["question"],
                "Best Answer": row["best_answer"],
                "Correct Answers": "; ".join(row["correct_answers"]),
                "Incorrect Answers": "; ".join(row["incorrect_answers"]),
            },
        ),
    },
)
EXAMPLES = ("truthkit eval truthfulqa --data mc_task.json --decoder dola:beta=0 --limit 100 --out runs/dola",)


def task(data: Path, *, protocol: str = "lm-eval") -> Task:
    """Multiple choice: MC1, MC2, MC3.

    Args:
        data: mc_task.json, TruthfulQA.csv or the folder that holds them; or hub
        protocol: lm-eval, authors or dola
    """
    from truthkit.evaluation.running.task import Item
    from truthkit.evaluation.tasks.truthfulqa import choices as scorer

    questions = scorer.read_questions(data, protocol=protocol)
    items = [
        Item(
            str(number),
            scorer.prompt(question.text, protocol=protocol),
            choices=tuple(f" {choice}" for choice in question.choices),
            raw=True,
        )
        for number, question in enumerate(questions, 1)
    ]

    def score(which: Sequence[int], outputs: Sequence[Any]) -> Score:
        return scorer.score([questions[i] for i in which], outputs, protocol=protocol)

    return Task("truthfulqa", items, score, "mc2", config={"protocol": protocol}, data=(data,))
