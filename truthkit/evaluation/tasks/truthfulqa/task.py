"""TruthfulQA, multiple choice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from truthkit.errors import ArgumentError
from truthkit.evaluation.benchmark import Benchmark, Lines, Metric
from truthkit.evaluation.running.hub import HubData, HubFile
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.task import Task
from truthkit.evaluation.tasks.chance import expected
from truthkit.evaluation.tasks.raw_scores import RAW, explained, raw_of

if TYPE_CHECKING:
    from truthkit.evaluation.running.asking import Asking
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
Protocol = Literal["lm-eval", "authors", "dola"]


def task(data: Path, *, protocol: Protocol = "lm-eval") -> Task:
    """Multiple choice: MC1, MC2, MC3.

    Args:
        data: mc_task.json, TruthfulQA.csv or the folder that holds them; or hub
        protocol: how choices are read and ranked; `truthkit score truthfulqa --help` says what each does
    """
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
        log_probs = [output["log_probs"] if isinstance(output, dict) else output for output in outputs]
        return scorer.score([questions[i] for i in which], log_probs, protocol=protocol, raw=raw_of(outputs))

    return Task("truthfulqa", items, score, "mc2", config={"protocol": protocol}, data=(data,), ask=_ask)


def _ask(asking: Asking, batch: Sequence[Item], fixed: Any = None) -> list[dict[str, Any]]:
    """The log-probability of every choice, and a contrast's raw score of it."""
    return list(asking.choose_both(batch, fixed))


def score_files(answers: Path, data: Path, *, protocol: Protocol = "lm-eval", answer_field: str = "") -> Score:
    """Multiple choice, or written answers.

    ANSWERS has one JSON object per line, either with the log-probability of every choice, summed over its tokens,
      {"question": "What happens if ...?", "log_probs": {"Nothing happens": -12.5, "You die": -9.1}}
    for MC1 to MC3, or with a written answer, for BLEU and ROUGE:
      {"question": "What happens if ...?", "answer": "Nothing happens."}
    --data is mc_task.json or TruthfulQA.csv, of any release, or the folder with them.

    protocols:
      lm-eval  choices as mc_task.json has them; no MC3
      authors  choices as the CSV has them, with a full stop; right is above all false ones
      dola     as authors; its prompt has an instruction before the examples
    A tie is never right; a question whose choices all score the same counts as wrong, and as unscored.

    Args:
        answers: file of the scores or answers
        data: file or folder of the questions
        protocol: how choices are read and ranked
        answer_field: which field is the written answer, where several may be
    """
    from truthkit.evaluation.tasks.truthfulqa import choices, written
    from truthkit.files.reading import read_records

    if "log_probs" in read_records(answers)[0].fields:
        questions = choices.read_questions(data, protocol=protocol)
        return choices.score(questions, choices.read_log_probs(answers, questions), protocol=protocol)
    questions = choices.read_questions(data, protocol="authors")
    return written.score(questions, choices.read_answers(answers, questions, answer_field=answer_field))


def _score_run(lines: Lines, data: Path | None, *, protocol: Protocol) -> Score:
    from truthkit.evaluation.tasks.truthfulqa import choices as scorer

    if data is None:
        raise ArgumentError("--data is missing; name the file or folder of the questions.")
    known = {question.text: question for question in scorer.read_questions(data, protocol=protocol)}
    questions, found = [], dict[str, list[list[float | None]]]()
    both = [name for name in ("log_probs", "raw_scores") if all(name in line for line in lines)]
    for line in lines:
        if (question := known.get(line["question"])) is None:
            raise ArgumentError(f"{line['question']!r} is not among the {len(known)} questions of {data}.")
        if line["choices"] is None:
            raise ArgumentError(
                f"the run does not say which choices {line['question']!r} had: its records are missing."
            )
        own = [text.removeprefix(" ") for text in line["choices"]]
        if missing := [choice for choice in question.choices if choice not in own]:
            raise ArgumentError(
                f"the run has no log-probability of {missing[0]!r}, a choice of {question.text!r} under protocol "
                f"{protocol!r}, only of {', '.join(map(repr, own))}; run it under that protocol."
            )
        questions.append(question)
        for name in both:
            values = dict(zip(own, line[name], strict=True))
            found.setdefault(name, []).append([values[choice] for choice in question.choices])
    return scorer.score(questions, found["log_probs"], protocol=protocol, raw=found.get("raw_scores"))


_CHOICES = (
    *(Metric(name, name.upper(), chance=expected(name)) for name in ("mc1", "mc2", "mc3")),
    *(
        Metric(f"{RAW}{name}", f"{name.upper()}, raw scores", otherwise=name, chance=expected(name))
        for name in ("mc1", "mc2", "mc3")
    ),
)
WRITTEN = (
    Metric("truth", "true answers, by the judge"),
    Metric("info", "informative answers, by the judge"),
    Metric("truth_info", "true and informative answers"),
    *(
        metric
        for measure, title in (("bleu", "BLEU"), ("rouge1", "ROUGE-1"), ("rouge2", "ROUGE-2"), ("rougeL", "ROUGE-L"))
        for metric in (
            Metric(f"{measure}_max", f"{title}, best", share=False, unit="%"),
            Metric(f"{measure}_diff", f"{title}, true minus false", share=False, unit="%"),
            Metric(f"{measure}_acc", f"{title}, nearer to true"),
        )
    ),
)
"""The metrics of written answers; BLEU and ROUGE come in percent."""

TRUTHFULQA = Benchmark(
    "truthfulqa",
    "TruthfulQA",
    task,
    metrics=(*_CHOICES, *WRITTEN),
    hub=HUB,
    examples=(
        "truthkit eval truthfulqa --data mc_task.json --decoder dola:beta=0 --limit 100 --out runs/dola",
        "truthkit score truthfulqa log_probs.jsonl --data truthfulqa/v1 --protocol authors",
    ),
    score_files=score_files,
    score_run=_score_run,
    outcomes=("questions", "unscored", "raw_scores"),
    remarks=explained,
)
