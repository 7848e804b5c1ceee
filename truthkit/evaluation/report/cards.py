"""Flipped items on the page: the question, its images, and every run's answer."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from truthkit.errors import ArgumentError
from truthkit.evaluation.report.contents import Section
from truthkit.evaluation.report.flips import Answer, Asked
from truthkit.evaluation.report.marking import marked
from truthkit.evaluation.report.words import counted
from truthkit.images.reading import read_image
from truthkit.markup import Markup, element

_SIDE = 360  # pixels of an embedded image's longer side
_QUALITY = 82
_TINY = 128  # pixels: below, enlarging shows the pixels themselves


def cards(section: Section) -> Markup | None:
    """A card for each flipped item that the report shows; None where nothing flipped."""
    if not section.flipped:
        return None
    shown, baseline = len(section.flips), section.baseline.label
    some = "" if shown == section.flipped else f", {shown} of them here, drawn by their keys"
    are = "is" if section.flipped == 1 else "are"
    note = (
        f"{counted(section.flipped, 'item')} {are} right in a run and wrong in its baseline, or the other way "
        f"round{some}. The first answer is that of {baseline}."
    )
    if any(answer.invented for flip in section.flips for answer in flip.answers):
        note += " Marked words name what is not in the image."
    caption = element("header", element("h3", "Answers that flipped"), element("p", note))
    return element("div", caption, element("div", *map(_card, section.flips), class_="cards"), class_="flips")


def _card(flip: Asked) -> Markup:
    pictures = [_picture(path) for path in flip.images]
    truth = element("p", "Right: ", element("b", flip.truth), class_="truth") if flip.truth else None
    return element(
        "article",
        element("div", *pictures, class_="pictures") if pictures else None,
        element(
            "div",
            element("p", flip.category, class_="eyebrow") if flip.category else None,
            element("h4", flip.question),
            truth,
            element("ul", *map(_answer, flip.answers)),
            class_="answers",
        ),
        class_="card",
    )


def _answer(answer: Answer) -> Markup:
    sign, word = ("✓", "right") if answer.correct else ("✗", "wrong")
    return element(
        "li",
        element("span", sign, class_="sign", role="img", aria_label=word),
        element(
            "div",
            element("p", marked(answer.text or "(nothing)", answer.invented), class_="said", dir="auto"),
            element("p", answer.note, class_="note") if answer.note else None,
            element("p", *_labels(answer.labels), class_="who"),
        ),
        class_=word,
    )


def _labels(labels: Sequence[str]) -> list[str]:
    """Each unbroken as far as the line allows, with dots between."""
    spans = [element("span", label) for label in labels]
    return [part for span in spans for part in (" · ", span)][1:]


def _picture(path: Path) -> Markup:
    """The image, made small and put into the page; where it is missing, its name."""
    try:
        image = read_image(path)
    except ArgumentError:
        text = f"The image {path.name} is not there any more, or cannot be read; --images names another folder."
        return element("p", text, class_="missing")
    tiny = max(image.size) <= _TINY
    image.thumbnail((_SIDE, _SIDE))
    content, form = io.BytesIO(), "png" if tiny else "jpeg"
    image.save(content, form, quality=_QUALITY)
    source = f"data:image/{form};base64,{base64.b64encode(content.getvalue()).decode()}"
    size = {"width": image.width, "height": image.height}
    return element("img", src=source, alt=path.name, class_="tiny" if tiny else None, **size)
