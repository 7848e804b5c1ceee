"""CHAIR."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from truthkit.errors import ArgumentError
from truthkit.evaluation.benchmark import Benchmark, Config, Lines, Metric
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.task import Task
from truthkit.evaluation.tasks.images import ENDINGS, image_folder

if TYPE_CHECKING:
    from truthkit.evaluation.tasks.chair.scorer import Vocabulary
    from truthkit.statistics.score import Score

Lemmatizer = Literal["nltk", "pattern"]


def task(
    data: Path,
    *,
    images: Path | None = None,
    synonyms: Path | None = None,
    lemmatizer: Lemmatizer = "nltk",
    prompt: str = "Please describe this image in detail.",
) -> Task:
    """Objects that a description invents.

    Args:
        data: folder with the ground truth, chair_gt_*.json or COCO's instances and captions, and synonyms.txt
        images: folder of the images to describe; those with a ground truth are
        synonyms: file of object names and synonyms; synonyms.txt of the data by default
        lemmatizer: how words are reduced; the two find different objects, so name yours beside your numbers
        prompt: what is asked of every image
    """
    from truthkit.evaluation.tasks.chair import scorer

    vocabulary, names = _vocabulary(data, synonyms, lemmatizer)
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


def score_files(
    answers: Path,
    data: Path,
    *,
    lemmatizer: Lemmatizer = "nltk",
    synonyms: Path | None = None,
    answer_field: str = "",
) -> Score:
    """Objects in captions that are not in the image.

    ANSWERS has one JSON object per line; a JSON array, .csv, .tsv and .xlsx are read too:
      {"image_id": 226988, "caption": "A woman sits at a table."}
    --data is a JSON from image number to objects; or a folder with chair_gt_LEMMATIZER.json, or with COCO's
    instances_*.json and captions_*.json. The two lemmatizers find different objects: compare only numbers that were
    made with the same one.

    Args:
        answers: file of the captions
        data: file or folder of the objects
        lemmatizer: how words are reduced
        synonyms: words for each object (default: synonyms.txt beside the data)
        answer_field: which field is the model's text, where several may be
    """
    from truthkit.evaluation.tasks.chair import scorer

    captions = scorer.read_captions(answers, answer_field=answer_field)
    vocabulary, _ = _vocabulary(data, synonyms, lemmatizer)
    return scorer.score(captions, scorer.read_ground_truth(data, vocabulary), vocabulary)


def _score_run(lines: Lines, data: Path | None, *, lemmatizer: Lemmatizer, synonyms: Path | None = None) -> Score:
    from truthkit.evaluation.tasks.chair import scorer

    if data is None:
        raise ArgumentError("--data is missing; name the file or folder of the objects.")
    captions = [scorer.Caption(int(line["image"]), line["caption"], line["key"]) for line in lines]
    vocabulary, _ = _vocabulary(data, synonyms, lemmatizer)
    return scorer.score(captions, scorer.read_ground_truth(data, vocabulary), vocabulary)


def _vocabulary(data: Path, synonyms: Path | None, lemmatizer: str) -> tuple[Vocabulary, Path]:
    """The object names beside the data, or in the given file, and which file that is."""
    from truthkit.evaluation.tasks.chair import scorer

    home = data if data.is_dir() else data.parent
    names = synonyms or home / "synonyms.txt"
    if not names.is_file():
        raise ArgumentError(
            f"--synonyms: no file {str(names)!r}; it has to name each COCO object's words, one line each."
        )
    beside = [home / "nltk_data", home.absolute().parent / "nltk_data"]
    return scorer.Vocabulary(names, lemmatizer, nltk_data=beside), names


def _rescore(items: Lines, config: Config) -> Score:
    import numpy as np

    from truthkit.evaluation.tasks.chair import scorer
    from truthkit.statistics.score import Score

    rows = []
    for item in items:
        mentions, wrong, there = item["objects"], item["hallucinated"], set(item["ground_truth"])
        rows.append((1, bool(wrong), len(mentions), len(wrong), len(there), len(there.intersection(mentions))))
    clusters = [item["cluster"] for item in items]
    return Score(np.asarray(rows, float), clusters, scorer.measure, list(map(dict, items)), {"task": "chair"})


CHAIR = Benchmark(
    "chair",
    "CHAIR",
    task,
    metrics=(
        Metric("chair_s", "CHAIR-s", better=-1),
        Metric("chair_i", "CHAIR-i", better=-1),
        Metric("recall"),
    ),
    examples=(
        "truthkit eval chair --data annotations --images val2014 --model M --limit 500 --out runs/chair",
        "truthkit score chair captions.jsonl --data chair/ --lemmatizer nltk",
    ),
    rescore=_rescore,
    score_files=score_files,
    score_run=_score_run,
    outcomes=("captions",),
)
