"""MMVP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from truthkit.evaluation.benchmark import Benchmark, Config, Lines, Metric
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.task import Task
from truthkit.evaluation.tasks.images import find_image, image_folder

if TYPE_CHECKING:
    from truthkit.statistics.score import Score

Parser = Literal["letter", "strict"]


def task(data: Path, *, images: Path | None = None, parser: Parser = "letter", suffix: str = "") -> Task:
    """One of two options, for pairs of images that CLIP takes for alike; --limit takes whole pairs.

    Args:
        data: Questions.csv, or the folder that holds it
        images: folder of the images, 1.jpg and so on; `MMVP Images` or `images` beside the data by default
        parser: how an answer is read; `truthkit score mmvp --help` says what each does
        suffix: put behind every question, as " Answer with the option's letter."
    """
    from truthkit.evaluation.tasks.mmvp import scorer

    questions = scorer.read_questions(data)
    home = data if data.is_dir() else data.parent
    named = home / "MMVP Images"
    folder = image_folder(images or (named if named.is_dir() else None), data, "mmvp")
    items = [
        Item(str(one.index), f"{one.text} {one.options}{suffix}", (find_image(folder, str(one.index)),))
        for one in questions
    ]

    def score(which: Sequence[int], outputs: Sequence[str]) -> Score:
        return scorer.score([questions[i] for i in which], outputs, parser=parser)

    file = data / scorer.FILE if data.is_dir() else data
    config = {"parser": parser, "suffix": suffix}
    return Task("mmvp", items, score, "pair_accuracy", 32, config, (file,), unit=2)


def score_files(answers: Path, data: Path, *, parser: Parser = "letter", answer_field: str = "") -> Score:
    """One of two options, for pairs of images.

    ANSWERS has one JSON object per line, as the authors' script writes them:
      {"question_id": 1, "prompt": "...", "answer": "(a)", "response": "(b) Closed"}
    where "response" is the model's text; without "response" it is "answer" or another such field. Without ids the lines
    are taken in the order of the questions.

    parsers, from an answer to an option:
      letter  the one option that it marks, (a) or (b); else a letter that it begins with, as in "b." or "B"; else the
              one option whose words are in it
      strict  (a), (b), a or b, and nothing else

    Args:
        answers: file of the answers
        data: Questions.csv, or the folder that holds it
        parser: how an answer is read
        answer_field: which field is the model's text, where several may be
    """
    from truthkit.evaluation.tasks.mmvp import scorer

    questions = scorer.read_questions(data)
    return scorer.score(questions, scorer.read_answers(answers, questions, answer_field=answer_field), parser=parser)


def _rescore(items: Lines, config: Config) -> Score:
    from truthkit.evaluation.tasks.mmvp import scorer

    return scorer.of_items(items, {"parser": config["parser"]})


def _score_run(lines: Lines, data: Path | None, *, parser: Parser) -> Score:
    from truthkit.evaluation.tasks.mmvp import scorer

    questions = [scorer.Question(line["id"], line["question"], line["options"], line["label"]) for line in lines]
    return scorer.score(questions, [line["answer"] for line in lines], parser=parser)


MMVP = Benchmark(
    "mmvp",
    "MMVP",
    task,
    metrics=(
        Metric("pair_accuracy", "both of a pair right", chance=0.25),
        Metric("accuracy", field="correct", chance=0.5),
        Metric("a_ratio", "answers (a)", better=0),
    ),
    examples=(
        "truthkit eval mmvp --data MMVP --model M --decoder vcd --out runs/mmvp",
        "truthkit score mmvp answers.jsonl --data MMVP/Questions.csv",
    ),
    rescore=_rescore,
    score_files=score_files,
    score_run=_score_run,
    outcomes=("questions", "unparsed"),
)
