"""AMBER."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from truthkit.errors import ArgumentError
from truthkit.evaluation.benchmark import Benchmark, Config, Lines, Metric
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.task import Task
from truthkit.evaluation.tasks.images import find_image, image_folder

if TYPE_CHECKING:
    from truthkit.evaluation.running.asking import Asking
    from truthkit.evaluation.tasks.amber.nouns import Words
    from truthkit.statistics.score import Score

Part = Literal["all", "generative", "discriminative", "existence", "attribute", "relation"]
Parser = Literal["official", "pope", "opera", "vcd", "strict"]

_ANSWER_TOKENS = 16
"""Of the answer to a yes/no question, beside descriptions."""


def task(
    data: Path,
    *,
    images: Path | None = None,
    part: Part = "all",
    parser: Parser = "official",
    vectors: str = "auto",
    suffix: str = "",
) -> Task:
    """Descriptions and yes/no questions on 1,004 images: what is invented, what is right.

    Args:
        data: AMBER's folder `data`, with annotations.json, relation.json, safe_words.txt and query
        images: folder of the images, AMBER_1.jpg and so on; `images` beside the data by default
        part: which queries; the names are those of the script's evaluation types
        parser: how a yes/no answer is read; `truthkit score amber --help` says what each does
        vectors: spaCy pipeline for near-synonyms; auto is en_core_web_lg where it is installed, none goes without
        suffix: put behind every yes/no question, as " Answer yes or no."
    """
    from truthkit.evaluation.tasks.amber import scorer

    annotations = [one for one in scorer.read_annotations(data).values() if one.kind in scorer.PARTS[part]]
    if missing := [one for one in annotations if not one.query or not one.image]:
        raise ArgumentError(
            f"{data / 'query'} has no query with id {missing[0].id}; expected query_all.json, or those of this part."
        )
    folder = image_folder(images, data, "amber")
    items = [
        Item(
            str(one.id),
            one.query + (suffix if one.kind != scorer.DESCRIPTION else ""),
            (find_image(folder, one.image),),
        )
        for one in annotations
    ]
    described = scorer.DESCRIPTION in scorer.PARTS[part]
    words = _words(data, vectors) if described else None

    def score(which: Sequence[int], outputs: Sequence[str]) -> Score:
        responses = [(annotations[i], output) for i, output in zip(which, outputs, strict=True)]
        return scorer.score(responses, words, parser=parser, part=part)

    def ask(asking: Asking, batch: Sequence[Item], fixed: Any = None) -> list[str]:
        """The answers; those to yes/no questions end early."""
        answers: dict[str, str] = {}
        for described in (True, False):
            some = [item for item in batch if (int(item.id) in to_describe) is described]
            limit = asking.max_new_tokens if described else min(asking.max_new_tokens, _ANSWER_TOKENS)
            written = replace(asking, max_new_tokens=limit).write(some, fixed) if some else []
            answers |= {item.id: text for item, text in zip(some, written, strict=True)}
        return [answers[item.id] for item in batch]

    to_describe = {one.id for one in annotations if one.kind == scorer.DESCRIPTION}
    config = {"part": part, "parser": parser, "suffix": suffix} | ({"vectors": vectors} if described else {})
    return Task(
        "amber",
        items,
        score,
        {"all": "amber", "generative": "chair"}.get(part, "f1"),
        512 if described else _ANSWER_TOKENS,
        config,
        (data / "annotations.json",),
        ask if part == "all" else None,
    )


def score_files(
    answers: Path, data: Path, *, parser: Parser = "official", vectors: str = "auto", answer_field: str = ""
) -> Score:
    """Descriptions and yes/no answers, in percent as the authors' script prints them.

    ANSWERS is a JSON list of responses, or has one on each line; ids from 1 to 1004 are descriptions:
      [{"id": 1, "response": "A man on a horse."}, {"id": 1005, "response": "Yes"}]
    As in the script, what has no response is not counted, and what has two is counted twice. --data is the folder
    with annotations.json, relation.json and safe_words.txt.

    parsers, from a response to yes or no ("no" is the positive class):
      official  Yes or No, exactly; all else is wrong, and neither
      pope      POPE's official one: the first sentence; no, No or not among its words is no, anything else yes
      opera     as OPERA and RITUAL: all sentences; NO and words in n't are no as well
      vcd       looks for the label, anywhere in the text
      strict    yes or no in any case; all else is wrong, and neither

    Args:
        answers: file of the responses
        data: folder of the annotations
        parser: how a yes/no answer is read
        vectors: spaCy pipeline for near-synonyms; auto is en_core_web_lg where it is installed, none goes without
        answer_field: which field is the model's text, where several may be
    """
    from truthkit.evaluation.tasks.amber import scorer

    annotations = scorer.read_annotations(data)
    responses = []
    for number, text, place in scorer.read_responses(answers, answer_field=answer_field):
        if number not in annotations:
            raise ArgumentError(f"{place}: id {number} is not among the {len(annotations)} annotations.")
        responses.append((annotations[number], text))
    described = any(annotation.kind == scorer.DESCRIPTION for annotation, _ in responses)
    return scorer.score(responses, _words(data, vectors) if described else None, parser=parser)


def _words(data: Path, vectors: str) -> Words:
    """The word lists; a warning names the variant where near-synonyms are not those of the script."""
    from truthkit.evaluation.tasks.amber.nouns import VECTORS, Words

    words = Words(data, vectors, nltk_data=[data / "nltk_data", data.absolute().parent / "nltk_data"])
    way = words.config["near_synonyms"]
    if vectors == "auto" and not way.startswith(VECTORS):
        warnings.warn(
            f"CHAIR, Cover, Hal and Cog are without near-synonyms ({way}), which published numbers have: pip install "
            f"'truthkit[amber]', then python -m spacy download {VECTORS}.",
            stacklevel=3,
        )
    return words


def _rescore(items: Lines, config: Config) -> Score:
    from truthkit.evaluation.tasks.amber import scorer

    there = {item["kind"] for item in items}
    kinds = (
        scorer.PARTS[config["part"]] if "part" in config else [kind for kind in scorer.PARTS["all"] if kind in there]
    )
    kept = {name: config[name] for name in ("parser", "near_synonyms") if name in config}
    return scorer.of_items(items, kinds, kept)


def _score_run(lines: Lines, data: Path | None, *, parser: Parser, vectors: str) -> Score:
    from truthkit.evaluation.tasks.amber import scorer

    described = any(line["kind"] == scorer.DESCRIPTION for line in lines)
    if described and data is None:
        raise ArgumentError("--data is missing; name the folder of the annotations.")
    fields = ("truth", "ground_truth"), ("traps", "traps")
    responses = [
        (
            scorer.Annotation(
                line["id"],
                line["kind"],
                line.get("label", ""),
                **{name: tuple(line.get(field, ())) for name, field in fields},
                image=line["image"],
                query=line.get("question", ""),
            ),
            line["answer"],
        )
        for line in lines
    ]
    return scorer.score(responses, _words(data, vectors) if data and described else None, parser=parser)


def _remarks(config: Config) -> list[str]:
    way = str(config.get("near_synonyms", ""))
    return [f"CHAIR, Cover, Hal and Cog: near-synonyms by {way}."] if way else []


_PERCENT: dict[str, Any] = {"share": False, "unit": "%"}

AMBER = Benchmark(
    "amber",
    "AMBER",
    task,
    metrics=(
        Metric("amber", "AMBER score", **_PERCENT),
        Metric("chair", "CHAIR", better=-1, **_PERCENT),
        Metric("cover", "Cover", **_PERCENT),
        Metric("hal", "Hal", better=-1, **_PERCENT),
        Metric("cog", "Cog", better=-1, **_PERCENT),
        Metric("accuracy", chance=50.0, **_PERCENT),
        Metric("precision", **_PERCENT),
        Metric("recall", **_PERCENT),
        Metric("f1", "F1", **_PERCENT),
        Metric("accuracy_*", "accuracy, *", chance=50.0, **_PERCENT),
        *(Metric(f"{name}_*", f"{name}, *", **_PERCENT) for name in ("precision", "recall")),
        Metric("f1_*", "F1, *", **_PERCENT),
    ),
    examples=(
        "truthkit eval amber --data AMBER/data --images AMBER/image --model M --part discriminative --out runs/amber",
        "truthkit score amber responses.json --data AMBER/data",
    ),
    rescore=_rescore,
    score_files=score_files,
    score_run=_score_run,
    outcomes=("responses", "repeated", "unparsed", "near_synonyms"),
    remarks=_remarks,
)
"""Everything is in percent, as the authors' script rounds it."""
