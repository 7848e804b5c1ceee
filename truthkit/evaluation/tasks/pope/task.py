"""POPE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from truthkit.evaluation.running.hub import HubData, HubFile
from truthkit.evaluation.running.task import Task
from truthkit.evaluation.tasks.images import find_image, image_folder

if TYPE_CHECKING:
    from truthkit.statistics.score import Score

HUB = HubData(
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
EXAMPLES = (
    "truthkit eval pope --data coco_pope_random.json --images val2014 --model M --decoder ritual --sample --controls "
    "--out runs/r",
    "truthkit eval pope --data hub --model M --parser strict --suffix ' Answer with one word.' --out runs/pope",
)


def task(data: Path, *, images: Path | None = None, parser: str = "official", suffix: str = "") -> Task:
    """Is an object in the image, yes or no.

    Args:
        data: a question file, or a folder with the random, popular and adversarial ones, as `truthkit pope` makes them
            from your own annotations; or hub
        images: folder of the images that the questions name; `images` beside the data by default
        parser: how an answer is read: official, opera, vcd or strict
        suffix: put behind every question, as " Answer the question using a single word or phrase."
    """
    from truthkit.evaluation.running.task import Item
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
