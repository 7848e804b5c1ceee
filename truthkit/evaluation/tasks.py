"""Benchmarks that `truthkit eval` runs: what is asked, and which scorer reads the answers.

A task is a function from a data path and options to a `Task`. To add one, write a scorer module (`score.py` says what
it returns) and a function here, and name it in `TASKS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from truthkit.errors import ArgumentError, NotAvailableError
from truthkit.evaluation.asking import Item
from truthkit.evaluation.score import Score


@dataclass(frozen=True)
class Task:
    """A benchmark with its data.

    Attributes:
        name: a key of `TASKS`.
        items: what is asked, in the order of the data.
        score: reads the outputs of the first so many items, in order.
        headline: the metric that a progress bar shows, and that a report tests.
        max_new_tokens: of written answers, where the user does not say.
        config: what the numbers depend on.
        data: files and folders that they come from.
    """

    name: str
    items: list[Item]
    score: Callable[[Sequence[int], Sequence[Any]], Score]
    headline: str
    max_new_tokens: int = 0
    config: dict[str, Any] = field(default_factory=dict)
    data: tuple[Path, ...] = ()


def truthfulqa(data: Path, *, protocol: str = "lm-eval") -> Task:
    """Multiple choice: MC1, MC2, MC3.

    Args:
        data: `mc_task.json`, `TruthfulQA.csv`, or the folder that holds them.
        protocol: lm-eval, authors or dola.
    """
    from truthkit.evaluation import truthfulqa as scorer

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
        return scorer.score([questions[i] for i in which], outputs, protocol=protocol)

    return Task("truthfulqa", items, score, "mc2", config={"protocol": protocol}, data=(data,))


def pope(data: Path, *, images: Path | None = None, parser: str = "official", suffix: str = "") -> Task:
    """Is an object in the image, yes or no.

    Args:
        data: a question file, or a folder with the random, popular and adversarial ones.
        images: the folder of the images that the questions name.
        parser: official, opera, vcd or strict.
        suffix: put behind every question, as " Answer the question using a single word or phrase."
    """
    from truthkit.evaluation import pope as scorer

    questions = scorer.read_questions(data)
    folder = _images(images, "pope")
    items = [
        Item(f"{question.category or ''}{question.id}", question.text + suffix, (_image(folder, question.image),))
        for question in questions
    ]

    def score(which: Sequence[int], outputs: Sequence[str]) -> Score:
        return scorer.score([questions[i] for i in which], outputs, parser=parser)

    return Task("pope", items, score, "accuracy", 16, {"parser": parser, "suffix": suffix}, (data,))


def chair(
    data: Path,
    *,
    images: Path | None = None,
    synonyms: Path | None = None,
    lemmatizer: str = "nltk",
    prompt: str = "Please describe this image in detail.",
) -> Task:
    """Objects that a description invents.

    Args:
        data: the folder with the ground truth: `chair_gt_*.json`, or COCO's instances and captions.
        images: the folder of the images to describe; those with a ground truth are.
        synonyms: the file of object names and synonyms; `synonyms.txt` of `data` by default.
        lemmatizer: nltk or pattern.
        prompt: what is asked of every image.
    """
    from truthkit.evaluation import chair as scorer

    home = data if data.is_dir() else data.parent
    names = synonyms or home / "synonyms.txt"
    if not names.exists():
        raise NotAvailableError(f"there is no {names}; pass the file of object names and synonyms with --synonyms.")
    beside = [home / "nltk_data", home.absolute().parent / "nltk_data"]
    vocabulary = scorer.Vocabulary(names, lemmatizer, nltk_data=beside)
    truth = scorer.read_ground_truth(data, vocabulary)
    folder = _images(images, "chair")
    pictures = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in _ENDINGS]
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


def mme(data: Path, *, images: Path | None = None) -> Task:
    """Fourteen subtasks of yes/no questions, two per image.

    Args:
        data: the folder of the question files, one per subtask.
        images: the folder of the images, with a folder per subtask; `data` by default.
    """
    from truthkit.evaluation import mme as scorer

    questions = scorer.read_questions(data)
    folder = images or data
    items = []
    for number, question in enumerate(questions, 1):
        own = folder / question.subtask
        path = _image(own if own.is_dir() else folder, question.image)
        items.append(Item(f"{question.subtask} {number}", question.text, (path,)))

    def score(which: Sequence[int], outputs: Sequence[str]) -> Score:
        return scorer.score([questions[i] for i in which], outputs)

    return Task("mme", items, score, "perception", 16, {}, (data,))


TASKS: dict[str, Callable[..., Task]] = {"truthfulqa": truthfulqa, "pope": pope, "chair": chair, "mme": mme}
"""Every task by its name on the command line; a function's keyword arguments are the task's options."""

_ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}


def _images(folder: Path | None, task: str) -> Path:
    if folder is None:
        raise ArgumentError(f"{task} asks about images; pass their folder with --images.")
    if not folder.is_dir():
        raise NotAvailableError(f"--images is {folder}, which is no folder.")
    return folder


@cache
def _pictures(folder: Path) -> dict[str, str]:
    """Paths of all images under a folder, by name and by name without ending."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _ENDINGS:
            found.setdefault(path.name, str(path))
            found.setdefault(path.stem, str(path))
    return found


def _image(folder: Path, name: str) -> str:
    """The path of an image in a folder or in a folder of it, with or without an ending in its name."""
    if (folder / name).is_file():
        return str(folder / name)
    if found := _pictures(folder).get(name) or _pictures(folder).get(Path(name).stem):
        return found
    raise NotAvailableError(f"{folder} has no image {name}; pass the folder that holds it with --images.")
