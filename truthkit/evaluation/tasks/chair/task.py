"""CHAIR."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from truthkit.errors import ArgumentError, NotAvailableError
from truthkit.evaluation.running.task import Task
from truthkit.evaluation.tasks.images import ENDINGS, image_folder

if TYPE_CHECKING:
    from truthkit.statistics.score import Score

EXAMPLES = ("truthkit eval chair --data annotations --images val2014 --model M --limit 500 --out runs/chair",)


def task(
    data: Path,
    *,
    images: Path | None = None,
    synonyms: Path | None = None,
    lemmatizer: str = "nltk",
    prompt: str = "Please describe this image in detail.",
) -> Task:
    """Objects that a description invents.

    Args:
        data: folder with the ground truth, chair_gt_*.json or COCO's instances and captions, and synonyms.txt
        images: folder of the images to describe; those with a ground truth are
        synonyms: file of object names and synonyms; synonyms.txt of the data by default
        lemmatizer: nltk or pattern
        prompt: what is asked of every image
    """
    from truthkit.evaluation.running.task import Item
    from truthkit.evaluation.tasks.chair import scorer

    home = data if data.is_dir() else data.parent
    names = synonyms or home / "synonyms.txt"
    if not names.exists():
        raise NotAvailableError(f"there is no {names}; pass the file of object names and synonyms with --synonyms.")
    beside = [home / "nltk_data", home.absolute().parent / "nltk_data"]
    vocabulary = scorer.Vocabulary(names, lemmatizer, nltk_data=beside)
    truth = scorer.read_ground_truth(data, vocabulary)
    folder = image_folder(images, data, "chair")
    pictures = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in ENDINGS]
    known = [
        path for path in pictures if path.stem.split("_")[-1].isdigit() and scorer.image_number(path.name) in truth
    ]
    if not known:
        raise ArgumentError(f"{folder} has no images that {data} has objects for; expected COCO's file names.")
    items = [Item(path.name, prompt, (str(path),)) for path in known]

    def score(which: Sequence[int], outputs: Sequence[str]) -> Score:
        captions = [
            scorer.Caption(scorer.image_number(known[i].name), text, known[i].name)
            for i, text in zip(which, outputs, strict=True)
        ]
        return scorer.score(captions, truth, vocabulary)

    return Task("chair", items, score, "chair_i", 512, {"lemmatizer": lemmatizer, "prompt": prompt}, (data, names))
