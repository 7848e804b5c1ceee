"""POPE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from truthkit.evaluation.benchmark import Benchmark, Config, Lines, Metric
from truthkit.evaluation.running.hub import HubData, HubFile
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.task import Task
from truthkit.evaluation.tasks.images import find_image, image_folder

if TYPE_CHECKING:
    from truthkit.statistics.score import Score

_HUB = HubData(
    "lmms-lab/POPE",
    "test",
    {
        "pope.json": HubFile(
            None,
            lambda row: {
                "question_id": row["question_id"],
                "image": row["image_source"],
                "text": row["question"],
                "label": row["answer"],
                "category": row["category"],
            },
            picture=lambda row: str(row["image_source"]),
        )
    },
)
Parser = Literal["official", "opera", "vcd", "strict"]


def task(data: Path, *, images: Path | None = None, parser: Parser = "official", suffix: str = "") -> Task:
    """Is an object in the image, yes or no.

    Args:
        data: a question file, or a folder with the random, popular and adversarial ones, as `truthkit pope` makes them
            from your own annotations; or hub
        images: folder of the images that the questions name; `images` beside the data by default
        parser: how an answer is read; `truthkit score pope --help` says what each does
        suffix: put behind every question, as " Answer the question using a single word or phrase."
    """
    from truthkit.evaluation.tasks.pope import scorer

    questions = scorer.read_questions(data)
    folder = image_folder(images, data, "pope")
    items = [
        Item(f"{question.category or ''}{question.id}", question.text + suffix, (find_image(folder, question.image),))
        for question in questions
    ]

    def score(which: Sequence[int], outputs: Sequence[str]) -> Score:
        return scorer.score([questions[i] for i in which], outputs, parser=parser)

    return Task("pope", items, score, "accuracy", 16, {"parser": parser, "suffix": suffix}, (data,))


def score_files(answers: Path, data: Path, *, parser: Parser = "official", answer_field: str = "") -> Score:
    """Is the object in the image, yes or no.

    ANSWERS has one JSON object per line, with the model's text in "answer", "text", "output", "prediction" or
    "response", and "question_id"; a JSON array, .csv, .tsv and .xlsx are read too:
      {"question_id": 1, "answer": "Yes, there is a snowboard."}
    Without ids the lines are taken in the order of the questions. ANSWERS may be a folder with a file for each of
    random, popular and adversarial; --data is then the folder of the questions.

    parsers, from an answer to yes or no:
      official  the first sentence; no, No or not among its words is no, anything else yes
      opera     as OPERA and RITUAL: all sentences; NO and words in n't are no as well
      vcd       looks for the label, anywhere in the text
      strict    exactly yes or no (lmms-eval); the rest is wrong, and left out of recall

    Args:
        answers: file or folder of the answers
        data: file or folder of the questions
        parser: how an answer is read
        answer_field: which field is the model's text, where several may be
    """
    from truthkit.evaluation.tasks.pope import scorer

    questions, found = scorer.read_questions(data), scorer.read_answers(answers)
    return scorer.score(questions, scorer.match(questions, found, answer_field=answer_field), parser=parser)


def _rescore(items: Lines, config: Config) -> Score:
    from truthkit.evaluation.tasks.pope import scorer

    fields = ("question_id", "image", "question", "label", "category")
    questions = [scorer.Question(*(item[name] for name in fields)) for item in items]
    return scorer.score(questions, [item["answer"] for item in items], parser=config["parser"])


def _score_run(lines: Lines, data: Path | None, *, parser: Parser) -> Score:
    return _rescore(lines, {"parser": parser})


def _by_category(score: Score) -> dict[str, Score]:
    from truthkit.evaluation.tasks.pope import scorer

    return scorer.by_category(score)


POPE = Benchmark(
    "pope",
    "POPE",
    task,
    metrics=(
        Metric("accuracy", chance=0.5),
        Metric("precision"),
        Metric("recall"),
        Metric("f1", "F1"),
        Metric("yes_ratio", better=0),
    ),
    hub=_HUB,
    examples=(
        "truthkit eval pope --data coco_pope_random.json --images val2014 --model M --decoder ritual --sample "
        "--controls --out runs/r",
        "truthkit eval pope --data hub --model M --parser strict --suffix ' Answer with one word.' --out runs/pope",
        "truthkit score pope answers.jsonl --data coco_pope_random.json --parser official",
    ),
    rescore=_rescore,
    score_files=score_files,
    score_run=_score_run,
    parts=_by_category,
    outcomes=("questions", "unparsed", "category"),
)
