"""MME."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from truthkit.errors import ArgumentError
from truthkit.evaluation.running.hub import HubData, HubFile
from truthkit.evaluation.running.task import Task
from truthkit.evaluation.tasks.images import find_image

if TYPE_CHECKING:
    from truthkit.statistics.score import Score

HUB = HubData(
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
EXAMPLES = ("truthkit eval mme --data MME_Benchmark --model M --decoder vcd --sample --limit 200 --out runs/mme",)


def task(data: Path, *, images: Path | None = None) -> Task:
    """Fourteen subtasks of yes/no questions, two per image; --limit takes whole images.

    Args:
        data: folder of the question files, one per subtask, or a file of JSON lines; or hub
        images: folder of the images, with a folder per subtask; by default `images` beside the data, or the data's own
            folder
    """
    from truthkit.evaluation.running.task import Item
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
