"""ARO."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truthkit.errors import ArgumentError
from truthkit.evaluation.benchmark import Benchmark, Config, Lines, Metric
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.task import Task
from truthkit.evaluation.tasks.chance import one_in
from truthkit.evaluation.tasks.images import find_image, image_folder
from truthkit.evaluation.tasks.raw_scores import explained, raw_of

if TYPE_CHECKING:
    from truthkit.evaluation.running.asking import Asking
    from truthkit.evaluation.tasks.aro.scorer import Question
    from truthkit.statistics.score import Score


def task(
    data: Path,
    *,
    images: Path | None = None,
    prompt: str = "Describe this image in one sentence.",
    shuffle_seed: int = 0,
) -> Task:
    """Is the true caption of an image likelier than one with relation, attributes or word order changed.

    Args:
        data: visual_genome_relation.json, visual_genome_attribution.json, coco_karpathy_test.json, flickr30k_test.json,
            or the folder that holds some of them
        images: folder of the images that the data names; `images` beside the data by default
        prompt: what the captions answer
        shuffle_seed: of the shuffled captions of the order tests
    """
    from truthkit.evaluation.tasks.aro import scorer, shuffles

    questions = scorer.read_questions(data)
    if any(question.subset in scorer.ORDERS for question in questions):
        home = data if data.is_dir() else data.parent
        tag = shuffles.tagger([home / "nltk_data", home.absolute().parent / "nltk_data"])
        kept = scorer.with_shuffles(questions, tag, seed=shuffle_seed)
        if left := len(questions) - len(kept):
            warnings.warn(f"{left} captions are left out, which no shuffle can change.", stacklevel=2)
        questions = kept
    folder = image_folder(images, data, "aro")
    items = [
        Item(question.id, prompt, (_image(folder, question),), tuple(f" {caption}" for caption in question.captions))
        for question in questions
    ]

    def score(which: Sequence[int], outputs: Sequence[dict[str, Any]]) -> Score:
        log_probs = [output["log_probs"] for output in outputs]
        return scorer.score([questions[i] for i in which], log_probs, raw=raw_of(outputs))

    return Task(
        "aro",
        items,
        score,
        "accuracy",
        config={"prompt": prompt, "shuffle_seed": shuffle_seed},
        data=tuple(data / name for name in scorer.FILES if (data / name).is_file()) if data.is_dir() else (data,),
        ask=_ask,
    )


def _ask(asking: Asking, batch: Sequence[Item], fixed: Any = None) -> list[dict[str, Any]]:
    """The log-probability of every caption, and a contrast's raw score of it."""
    return list(asking.choose_both(batch, fixed))


def _image(folder: Path, question: Question) -> str:
    """The path of a question's image, with the part that is shown.

    Raises:
        ArgumentError: the part lies outside of the image.
    """
    from truthkit.images.regions import overlaps, split_region

    name, box = split_region(question.image)
    path = find_image(folder, name)
    if box is None:
        return path
    if not overlaps(box, size := _size(path)):
        raise ArgumentError(
            f"{question.place}: the box {box} lies outside of {name}, which has {size[0]} x {size[1]} pixels."
        )
    return path + question.image[len(name) :]


@cache
def _size(path: str) -> tuple[int, int]:
    """Width and height of an image, from its header where that can be read."""
    from PIL import Image

    from truthkit.images.reading import read_image

    try:
        with Image.open(path) as image:
            return image.size
    except Exception:  # Pillow's plugins raise almost anything; ours says what is wrong with the file
        return read_image(path).size


def score_files(answers: Path, data: Path) -> Score:
    """Is the true caption likelier than those that were made of it.

    ANSWERS has one JSON object per line, with the score of every caption, the true one's first, null for -inf:
      {"id": "vg_relation 1", "scores": [-12.5, -14.1]}
    or an object from caption to score. Without ids the lines are taken in the order of the data; ids count captions of
    a subset from 1, of images with five captions each of them. Order tests take any number of shuffles.

    Args:
        answers: file of the scores
        data: a released file, or the folder with some
    """
    from truthkit.evaluation.tasks.aro import scorer

    found = scorer.read_scores(answers, scorer.read_questions(data))
    return scorer.score([question for question, _ in found], [scores for _, scores in found])


def _rescore(items: Lines, config: Config) -> Score:
    from truthkit.evaluation.tasks.aro import scorer

    return scorer.of_items(items)


def _score_run(lines: Lines, data: Path | None) -> Score:
    return _rescore(lines, {})


def _by_group(score: Score) -> dict[str, Score]:
    from truthkit.evaluation.tasks.aro import scorer

    return scorer.by_group(score)


ARO = Benchmark(
    "aro",
    "ARO",
    task,
    metrics=(
        Metric("accuracy", field="correct", chance=one_in("captions")),
        Metric(
            "raw_accuracy",
            "accuracy, raw scores",
            field="raw_correct",
            otherwise="accuracy",
            chance=one_in("captions"),
        ),
        Metric("accuracy_vg_relation", "VG-Relation, over cases", chance=0.5),
        Metric("macro_vg_relation", "VG-Relation, over relations", chance=0.5),
        Metric("accuracy_vg_attribution", "VG-Attribution, over cases", chance=0.5),
        Metric("macro_vg_attribution", "VG-Attribution, over pairs of attributes", chance=0.5),
        Metric("accuracy_coco_order", "COCO order", chance=one_in("captions", category="coco_order")),
        Metric("accuracy_flickr_order", "Flickr30k order", chance=one_in("captions", category="flickr_order")),
        Metric("above_*", "above shuffled *", chance=0.5),
    ),
    examples=(
        "truthkit eval aro --data visual_genome_relation.json --images vg --model M --decoder vcd:beta=0 --out runs/r",
        "truthkit score aro scores.jsonl --data visual_genome_relation.json",
    ),
    rescore=_rescore,
    score_files=score_files,
    score_run=_score_run,
    parts=_by_group,
    outcomes=("cases", "unscored", "raw_scores", "group"),
    remarks=explained,
)
