"""TruthfulQA, written answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truthkit.evaluation.benchmark import Benchmark
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.task import Task
from truthkit.evaluation.tasks.truthfulqa.task import HUB, WRITTEN
from truthkit.likelihood.scoring_model import ScoringModel

if TYPE_CHECKING:
    from truthkit.evaluation.running.asking import Ask, Asking
    from truthkit.statistics.score import Score

_NEXT_QUESTION = re.compile(r"\n\s*\n|\n\s*Q:")


def task(data: Path, *, chat: bool = False, truth_judge: str | None = None, info_judge: str | None = None) -> Task:
    """Written answers, nearer to true or to false references by BLEU and ROUGE; judges if given.

    Args:
        data: TruthfulQA.csv, mc_task.json or the folder that holds them; or hub
        chat: ask the bare question as a chat message, not after the six examples
        truth_judge: model that was trained to say whether an answer is true, as
            allenai/truthfulqa-truth-judge-llama2-7B: hub id or folder
        info_judge: model that was trained to say whether an answer is informative
    """
    from truthkit.evaluation.tasks.truthfulqa import choices as multiple_choice
    from truthkit.evaluation.tasks.truthfulqa import written as scorer

    scorer.similarity()  # so that a missing package is known before the model has written for hours
    questions = multiple_choice.read_questions(data, protocol="authors")
    items = [
        Item(str(number), question.text if chat else multiple_choice.prompt(question.text), raw=not chat)
        for number, question in enumerate(questions, 1)
    ]
    judges = {
        name: ScoringModel(model) for name, model in (("truth", truth_judge), ("info", info_judge)) if model is not None
    }

    def score(which: Sequence[int], outputs: Sequence[dict[str, Any]]) -> Score:
        judged = {name: [output[name] for output in outputs] for name in judges}
        return scorer.score([questions[i] for i in which], [output["answer"] for output in outputs], judged=judged)

    texts = {items[i].key: question.text for i, question in enumerate(questions)}
    config = {"chat": chat, "truth_judge": truth_judge, "info_judge": info_judge}
    return Task(
        "truthfulqa-generation", items, score, "bleu_acc", 50, config, (data,), _judged(texts, judges, cut=not chat)
    )


def _judged(questions: dict[str, str], judges: dict[str, ScoringModel], *, cut: bool) -> Ask:
    from truthkit.evaluation.tasks.truthfulqa import written as scorer

    def ask(asking: Asking, batch: Sequence[Item], fixed: Any = None) -> list[dict[str, Any]]:
        """The answers, up to where the next question begins, each with every judge's probability of yes."""
        answers = asking.write(batch, fixed)
        if cut:
            answers = [_NEXT_QUESTION.split(answer)[0].strip() for answer in answers]
        asked = [questions[item.key] for item in batch]
        found = {name: scorer.judge(model, name, asked, answers) for name, model in judges.items()}
        return [
            {"answer": answer} | {name: values[i] for name, values in found.items()} for i, answer in enumerate(answers)
        ]

    return ask


TRUTHFULQA_GENERATION = Benchmark(
    "truthfulqa-generation",
    "TruthfulQA, written answers",
    task,
    metrics=WRITTEN,
    hub=HUB,
    examples=("truthkit eval truthfulqa-generation --data TruthfulQA.csv --truth-judge JUDGE --out runs/written",),
    outcomes=("questions",),
)
