"""MME."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from truthkit.errors import ArgumentError
from truthkit.evaluation.benchmark import Benchmark, Config, Lines, Metric
from truthkit.evaluation.running.hub import HubData, HubFile
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.task import Task
from truthkit.evaluation.tasks.images import find_image

if TYPE_CHECKING:
    from truthkit.statistics.score import Score

_HUB = HubData(
    "lmms-lab/MME",
    "test",
    {
        "mme.json": HubFile(
            None,
            lambda row: {
                "category": row["category"],
                "image": row["question_id"].rpartition("/")[2],
                "question": row["question"],
                "answer": row["answer"],
            },
            picture=lambda row: f"{row['category']}/{row['question_id'].rpartition('/')[2]}",
        )
    },
)


def task(data: Path, *, images: Path | None = None) -> Task:
    """Fourteen subtasks of yes/no questions, two per image; --limit takes whole images.

    Args:
        data: folder of the question files, one per subtask, or a file of JSON lines; or hub
        images: folder of the images, with a folder per subtask; by default `images` beside the data, or the data's own
            folder
    """
    from truthkit.evaluation.tasks.mme import scorer

    pairs: dict[tuple[str, str], list[scorer.Question]] = {}
    for question in scorer.read_questions(data):
        pairs.setdefault((question.subtask, question.image), []).append(question)
    for (subtask, image), asked in pairs.items():
        if len(asked) != 2:
            raise ArgumentError(
                f"{asked[0].place}: image {image} of {subtask} has {len(asked)} questions; expected two, "
                "which accuracy+ is defined for."
            )
    questions = [question for asked in pairs.values() for question in asked]
    home = data if data.is_dir() else data.parent
    folder = images or (home / "images" if (home / "images").is_dir() else home)
    items = []
    for number, question in enumerate(questions, 1):
        own = folder / question.subtask
        path = find_image(own if own.is_dir() else folder, question.image)
        items.append(Item(f"{question.subtask} {number}", question.text, (path,)))

    def score(which: Sequence[int], outputs: Sequence[str]) -> Score:
        return scorer.score([questions[i] for i in which], outputs)

    return Task("mme", items, score, "perception", 16, data=(data,), unit=2)


def score_files(answers: Path, data: Path | None = None) -> Score:
    """Fourteen subtasks, perception and cognition.

    ANSWERS is a folder of SUBTASK.txt files, each line with image, question, label and answer between tabs, as in the
    benchmark's own eval_tool. Subtasks without a file are left out, and the totals count what is there. --data, a
    folder of such files without answers, makes sure that none is missing or changed.

    Args:
        answers: folder of the answers
        data: folder of the questions
    """
    from truthkit.evaluation.tasks.mme import scorer

    answered = scorer.read_answers(answers)
    questions = [question for question, _ in answered]
    if data is not None:
        scorer.check_complete(scorer.read_questions(data), questions)
    return scorer.score(questions, [answer for _, answer in answered])


def _rescore(items: Lines, config: Config) -> Score:
    from truthkit.evaluation.tasks.mme import scorer

    fields = ("category", "image", "question", "label")
    questions = [scorer.Question(*(item[name] for name in fields)) for item in items]
    return scorer.score(questions, [item["answer"] for item in items])


def _score_run(lines: Lines, data: Path | None) -> Score:
    return _rescore(lines, {})


_OF_SUBTASK = 75.0
"""By lot: half of the answers right, 50 points, and both of an image in a quarter of the cases, 25."""


def _guessed(total: str) -> Callable[[Lines], float]:
    """What the subtasks of a total that were asked come to by lot."""

    def level(lines: Lines) -> float:
        from truthkit.evaluation.tasks.mme import scorer

        subtasks = scorer.PERCEPTION if total == "perception" else scorer.COGNITION
        return _OF_SUBTASK * len({line["category"] for line in lines} & {*subtasks})

    return level


MME = Benchmark(
    "mme",
    "MME",
    task,
    metrics=(
        *(Metric(name, share=False, unit="points", chance=_guessed(name)) for name in ("perception", "cognition")),
        Metric("*", share=False, unit="points", chance=_OF_SUBTASK),
    ),
    hub=_HUB,
    examples=(
        "truthkit eval mme --data MME_Benchmark --model M --decoder vcd --sample --limit 200 --out runs/mme",
        "truthkit score mme results/ --data questions/",
    ),
    rescore=_rescore,
    score_files=score_files,
    score_run=_score_run,
    outcomes=("questions", "unparsed"),
)
"""A subtask is worth 200 points: accuracy over questions and over images, 100 each."""
