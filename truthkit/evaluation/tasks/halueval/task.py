"""HaluEval, questions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from truthkit.errors import ArgumentError
from truthkit.evaluation.benchmark import Benchmark, Metric
from truthkit.evaluation.running.hub import HubData, HubFile
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.task import Task
from truthkit.evaluation.tasks.answers import in_order_of
from truthkit.evaluation.tasks.sets import by_category, files_of

if TYPE_CHECKING:
    from truthkit.evaluation.benchmark import Config, Lines
    from truthkit.files.reading import Record
    from truthkit.statistics.score import Score

_HUB = HubData(
    "pminervini/HaluEval",
    "data",
    {
        "qa_data.json": HubFile(
            "qa",
            lambda row: {name: row[name] for name in ("knowledge", "question", "right_answer", "hallucinated_answer")},
        )
    },
)
Judged = Literal["written", "likelihood"]


def task(
    data: Path,
    *,
    judged: Judged = "written",
    knowledge: bool = False,
    instruction: Path | None = None,
    chat: bool = False,
) -> Task:
    """Is an answer hallucinated, yes or no; --limit takes whole questions, each with both of its answers.

    Args:
        data: qa_data.json, or a folder with qa*.json files, each of which is a set; or hub
        judged: written judgements, read as the authors' script does, or the likelihood of " Yes" and " No"
        knowledge: put what the right answer was taken from in front of the question
        instruction: text file to begin with, as the authors' qa_evaluation_instruction.txt (default: a short one)
        chat: put the prompts as chat messages instead of going on from them
    """
    from truthkit.evaluation.tasks.halueval import scorer
    from truthkit.files.reading import read_text

    if chat and judged == "likelihood":
        raise ArgumentError("--chat is for written judgements; leave it out, or use --judged written.")
    questions = scorer.read_questions(data)
    if knowledge and (bare := next((question for question in questions if not question.knowledge), None)):
        raise ArgumentError(f"--knowledge: the question {bare.text[:60]!r} of {data} has no 'knowledge'.")
    before = scorer.INSTRUCTION if instruction is None else read_text(instruction).strip()
    choices = scorer.JUDGEMENTS if judged == "likelihood" else ()
    items = [
        Item(
            f"{question.category} {number // 2 + 1} {'hallucinated' if question.hallucinated else 'right'}",
            scorer.prompt(question, before, knowledge=knowledge),
            choices=choices,
            raw=not chat,
            context=scorer.known(question) if knowledge else "",
        )
        for number, question in enumerate(questions)
    ]

    def score(which: Sequence[int], outputs: Sequence[Any]) -> Score:
        read = scorer.by_likelihood if judged == "likelihood" else scorer.parse
        return scorer.score([questions[i] for i in which], [read(output) for output in outputs])

    config = {"judged": judged, "knowledge": knowledge, "chat": chat}
    files = (*files_of(data, *scorer.PATTERNS), *([] if instruction is None else [instruction]))
    return Task("halueval", items, score, "accuracy", 0 if choices else 8, config, files, unit=2)


def score_files(answers: Path, data: Path | None = None) -> Score:
    """Is an answer hallucinated, yes or no.

    ANSWERS has one JSON object per line, as the authors' script writes them, "judgement" being the model's text:
      {"question": "Who wrote ...?", "answer": "Brian Urlacher", "ground_truth": "Yes", "judgement": "No"}
    With --data, ground_truth is not needed, and both answers to every question must have been judged. Without it,
    there may be one judgement of each question, as that script's coin has it.

    Args:
        answers: file of the judgements
        data: file or folder of the questions
    """
    from truthkit.evaluation.tasks.halueval import scorer
    from truthkit.files.reading import read_records

    records = read_records(answers)
    if data is None:
        questions = [_judged(record) for record in records]
    else:
        questions = scorer.read_questions(data)
        wanted = [f"{question.text}\n{question.answer}" for question in questions]
        records = in_order_of(
            wanted, records, "question", lambda one: f"{one.text('question').strip()}\n{one.text('answer').strip()}"
        )
    return scorer.score(questions, [scorer.parse(record.text("judgement")) for record in records])


def _judged(record: Record) -> Any:
    """What a line of the authors' script says was judged."""
    from truthkit.evaluation.tasks.halueval import scorer

    if (truth := record.text("ground_truth")) not in ("Yes", "No"):
        raise ArgumentError(f"{record.place}: 'ground_truth' is {truth!r}; expected Yes or No.")
    return scorer.Question("qa", record.text("question"), record.text("answer"), truth == "Yes")


def _rescore(items: Lines, config: Config) -> Score:
    return _score_run(items, None)


def _score_run(lines: Lines, data: Path | None) -> Score:
    from truthkit.evaluation.tasks.halueval import scorer

    return scorer.of_items(lines)


def _parts(score: Score) -> dict[str, Score]:
    from truthkit.evaluation.tasks.halueval import scorer

    return by_category(score, scorer.of_items)


HALUEVAL = Benchmark(
    "halueval",
    "HaluEval, questions",
    task,
    metrics=(
        Metric("accuracy", field="correct", chance=0.5),
        Metric("pair_accuracy", "accuracy, both answers", chance=0.25),
        Metric("yes_ratio", "share of Yes", better=0),
    ),
    hub=_HUB,
    examples=(
        "truthkit eval halueval --data qa_data.json --judged likelihood --decoder dola:beta=0 --out runs/halueval",
        "truthkit eval halueval --data hub --model M --chat --knowledge --decoder cad --out runs/halueval",
        "truthkit score halueval judgements.jsonl --data qa_data.json",
    ),
    rescore=_rescore,
    score_files=score_files,
    score_run=_score_run,
    parts=_parts,
    outcomes=("judgements", "failed"),
)
