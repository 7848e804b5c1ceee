"""POPE questions from one's own annotations: the official sampler, seeded.

Source: AoiDragon/POPE, `main.py` and `utils.py`. Same draws in the same order as there, so the same random state gives
the same questions; only its template slip ("Is there an orange in the imange?") is not repeated.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from truthkit.errors import ArgumentError
from truthkit.evaluation.tasks.pope.scorer import STRATEGIES, Question
from truthkit.files.json_text import shown
from truthkit.files.reading import Record, read_records

TEMPLATE = "Is there {article} {object} in the image?"


def read_objects(path: Path) -> dict[str, list[str]]:
    """The objects of each image, each named once, in the file's order.

    Read are JSON lines or an array with `image` and `objects`, one JSON object from image to objects, and COCO's
    `instances_*.json`.

    Raises:
        NotAvailableError: no such file.
        ArgumentError: it is none of these, an image is there twice, or an object is no text; the message names the
            place.
    """
    records = read_records(path)
    whole = records[0].fields
    if len(records) > 1 or "image" in whole:
        return _by_image(list(map(_listed, records)))
    if {"images", "annotations", "categories"} <= whole.keys():
        return _from_coco(path, whole)
    return _by_image([_checked(f"{path.name}, image {image!r}", image, names) for image, names in whole.items()])


def object_counts(images: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """In how many images each object is, in order of first appearance."""
    return dict(Counter(name for objects in images.values() for name in objects))


def co_occurrence(images: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """For each object those that share an image with it, most frequent first; ties in order of first appearance."""
    together: dict[str, Counter[str]] = {}
    for objects in images.values():
        for name in objects:
            together.setdefault(name, Counter()).update(other for other in objects if other != name)
    return {name: [other for other, _ in counts.most_common()] for name, counts in together.items()}


def sample_questions(
    images: Mapping[str, Sequence[str]],
    *,
    strategies: Sequence[str] = STRATEGIES,
    objects_per_image: int = 3,
    image_count: int | None = None,
    seed: int = 0,
    template: str = TEMPLATE,
) -> dict[str, list[Question]]:
    """POPE questions for every strategy: as many objects that are there as ones that are not, for every image.

    Args:
        images: the objects of each image, each named once. Images with fewer than `objects_per_image` are left out.
        strategies: how absent objects are chosen: any (`random`), the most frequent ones (`popular`), or those that
            share the most images with the object just asked for (`adversarial`). One random state serves them in turn.
        objects_per_image: how many present objects of an image are asked for: its first ones.
        image_count: draw so many images, as the official script does with 500; None takes all in order.
        seed: of every draw.
        template: the question, with {article} and {object}.

    Raises:
        ArgumentError: too few images; or an image that leaves no absent objects to ask for.
    """
    if unknown := [name for name in strategies if name not in STRATEGIES]:
        raise ArgumentError(f"strategies has {unknown[0]!r}; expected some of {', '.join(STRATEGIES)}.")
    generator = random.Random(seed)
    chosen = {image: objects for image, objects in images.items() if len(objects) >= objects_per_image}
    if not chosen or (image_count or 0) > len(chosen):
        raise ArgumentError(
            f"{len(chosen)} images have {objects_per_image} objects or more; expected at least {image_count or 1}."
        )
    if image_count is not None:
        chosen = dict(generator.sample(list(chosen.items()), image_count))
    counts, together = object_counts(chosen), co_occurrence(chosen)
    popular = [name for name, _ in Counter(counts).most_common()]
    for image, objects in chosen.items():
        if len(counts) - len(set(objects)) < objects_per_image:
            raise ArgumentError(
                f"image {image} has {len(objects)} of {len(counts)} objects: too few are absent from it."
            )

    result = {}
    for strategy in strategies:
        ranked = {name: {"random": [], "popular": popular, "adversarial": together[name]}[strategy] for name in counts}
        pairs = _pairs(chosen, list(counts), ranked, objects_per_image, generator)
        result[strategy] = [
            Question(str(number), image, _ask(template, name), label, strategy)
            for number, (image, name, label) in enumerate(pairs, 1)
        ]
    return result


def _pairs(
    images: Mapping[str, Sequence[str]],
    names: list[str],
    ranked: Mapping[str, list[str]],
    objects_per_image: int,
    generator: random.Random,
) -> Iterator[tuple[str, str, str]]:
    for image, objects in images.items():
        asked: list[str] = []
        for present in objects[:objects_per_image]:
            asked.append(present)
            absent = next((name for name in ranked[present] if name not in asked and name not in objects), None)
            while absent is None:
                name = generator.choice(names)
                absent = name if name not in asked and name not in objects else None
            asked.append(absent)
            yield image, present, "yes"
            yield image, absent, "no"


def _ask(template: str, name: str) -> str:
    try:
        return template.format(article="an" if name[0] in "aeiou" else "a", object=name)
    except (KeyError, IndexError, ValueError) as error:
        raise ArgumentError(f"template is {template!r} ({error}); expected {{article}} and {{object}} only.") from None


def _listed(record: Record) -> tuple[str, str, list[str]]:
    if "objects" not in record.fields:
        raise ArgumentError(f"{record.place}: no 'objects'; its fields are {', '.join(record.fields) or 'none'}.")
    return _checked(record.place, record.text("image"), record.fields["objects"])


def _checked(place: str, image: str, names: Any) -> tuple[str, str, list[str]]:
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise ArgumentError(f"{place}: its objects are {shown(names)}; expected a list of names.")
    return place, image, list(dict.fromkeys(name.strip() for name in names))


def _by_image(entries: Sequence[tuple[str, str, list[str]]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for place, image, names in entries:
        if image in found:
            raise ArgumentError(f"{place}: image {image!r} is there twice.")
        found[image] = names
    return found


def _from_coco(path: Path, whole: Mapping[str, Any]) -> dict[str, list[str]]:
    try:
        names = {category["id"]: str(category["name"]) for category in whole["categories"]}
        files = {image["id"]: str(image["file_name"]) for image in whole["images"]}
        found: dict[str, list[str]] = {file: [] for file in files.values()}
        for annotation in whole["annotations"]:
            objects, name = found[files[annotation["image_id"]]], names[annotation["category_id"]]
            if name not in objects:
                objects.append(name)
    except (KeyError, TypeError) as error:
        raise ArgumentError(f"{path.name}: not as COCO's instances: there is no {shown(error.args[0])}.") from None
    return found
