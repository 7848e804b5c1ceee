"""HallusionBench."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from truthkit.errors import ArgumentError, NotAvailableError
from truthkit.evaluation.benchmark import Benchmark, Config, Lines, Metric
from truthkit.evaluation.running.hub import HubData, HubFile, Row
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.task import Task
from truthkit.evaluation.tasks.images import image_folder

if TYPE_CHECKING:
    from truthkit.evaluation.running.asking import Asking
    from truthkit.statistics.score import Score

Parser = Literal["either", "first", "strict", "pope"]

_FIELDS = ("category", "subcategory", "visual_input", "set_id", "figure_id", "question_id", "question", "gt_answer")


def _record(row: Row) -> Row:
    return {name: row[name] for name in _FIELDS} | {"filename": row.get("filename")}


_HUB = HubData(
    "lmms-lab/HallusionBench",
    "image",
    {
        "image.json": HubFile(None, _record, picture=lambda row: str(row["filename"]).removeprefix("./")),
        "non_image.json": HubFile(None, _record, split="non_image"),
    },
)


def task(
    data: Path,
    *,
    images: Path | None = None,
    parser: Parser = "either",
    suffix: str = "",
    figures_only: bool = False,
) -> Task:
    """Yes/no questions on figures, on the same figures edited, and on none.

    Args:
        data: HallusionBench.json, or the folder that holds it; or hub
        images: the folder with VD and VS, hallusion_bench in the release; `images` beside the data by default
        parser: how an answer is read; `truthkit score hallusionbench --help` says what each does
        suffix: put behind every question, as " Answer yes or no."
        figures_only: leave out the questions without a figure, about which decoders that compare images can say nothing
    """
    from truthkit.evaluation.tasks.hallusionbench import scorer

    questions = [one for one in scorer.read_questions(data) if one.image or not figures_only]
    if not questions:
        raise ArgumentError(f"{data} has no questions with a figure; leave out --figures-only.")
    folder = image_folder(images, data, "hallusionbench") if any(one.image for one in questions) else None
    items = [
        Item(one.id, one.text + suffix, (_figure(folder, one.image),) if folder and one.image else ())
        for one in questions
    ]

    def score(which: Sequence[int], outputs: Sequence[str]) -> Score:
        return scorer.score([questions[i] for i in which], outputs, parser=parser)

    config = {"parser": parser, "suffix": suffix, "figures_only": figures_only}
    families = tuple((one.category, one.subcategory, one.set) for one in questions)
    return Task("hallusionbench", items, score, "accuracy", 64, config, (data,), _ask, families=families)


def _ask(asking: Asking, batch: Sequence[Item], fixed: Any = None) -> list[str]:
    """The answers; questions with and without a figure are read apart.

    Raises:
        ArgumentError: a question without a figure, under a decoder that compares images.
    """
    answers: dict[str, str] = {}
    for seeing in (True, False):
        some = [item for item in batch if bool(item.images) is seeing]
        if some and not seeing and asking.decoder.needs_image:
            raise ArgumentError(
                f"{asking.decoder.text} compares images, and question {some[0].id} comes without one; leave such "
                "questions out with --figures-only."
            )
        written = asking.write(some, fixed) if some else []
        answers |= {item.id: text for item, text in zip(some, written, strict=True)}
    return [answers[item.id] for item in batch]


def _figure(folder: Path, name: str) -> str:
    """The path of a figure, by its whole name: figures of other subcategories have the same last part."""
    for path in (folder / name, folder / "hallusion_bench" / name):
        if path.is_file():
            return str(path)
    raise NotAvailableError(f"{folder} has no image {name}; pass the folder that holds VD and VS with --images.")


def score_files(answers: Path, data: Path | None = None, *, parser: Parser = "either", answer_field: str = "") -> Score:
    """Yes/no questions on figures, per question, per pair of figures and per figure.

    ANSWERS is HallusionBench_result.json, the benchmark's records with the model's text in "model_prediction":
      {"category": "VD", "subcategory": "illusion", "set_id": "14", "figure_id": "0", "question_id": "0",
       "model_prediction": "Yes, it is.", ...}
    or has any such text in the order of --data. With --data none may be missing; without, ANSWERS has labels too.

    parsers, from an answer to yes or no:
      either  yes or no among its words, not both; all else is neither, and wrong
      first   the first of the two among its words
      strict  exactly yes or no
      pope    POPE's official one: the first sentence; no, No or not among its words is no, anything else yes

    Args:
        answers: file of the answers
        data: file of the questions
        parser: how an answer is read
        answer_field: which field is the model's text, where several may be
    """
    from truthkit.evaluation.tasks.hallusionbench import scorer

    asked = None if data is None else scorer.read_questions(data)
    questions, texts = scorer.read_answers(answers, asked, answer_field=answer_field)
    return scorer.score(questions, texts, parser=parser)


def _rescore(items: Lines, config: Config) -> Score:
    from truthkit.evaluation.tasks.hallusionbench import scorer

    return scorer.of_items(items, {"parser": config["parser"]})


def _score_run(lines: Lines, data: Path | None, *, parser: Parser) -> Score:
    from truthkit.evaluation.tasks.hallusionbench import scorer

    guesses = [scorer.parse(line["answer"], parser=parser) for line in lines]
    again = [
        {**line, "prediction": guess, "correct": guess == line["label"]}
        for line, guess in zip(lines, guesses, strict=True)
    ]
    return scorer.of_items(again, {"parser": parser})


def _by_category(score: Score) -> dict[str, Score]:
    from truthkit.evaluation.tasks.hallusionbench import scorer

    return scorer.by_category(score)


def _remarks(config: Config) -> list[str]:
    if config.get("limit") is None:
        return []
    return ["Only some questions were asked: pairs and figures are of those, and sooner all right than whole ones."]


HALLUSIONBENCH = Benchmark(
    "hallusionbench",
    "HallusionBench",
    task,
    metrics=(
        Metric("accuracy", "accuracy per question", field="correct", chance=0.5),
        Metric("pair_accuracy", "accuracy per question pair"),
        Metric("figure_accuracy", "accuracy per figure"),
        Metric("easy_accuracy", "accuracy per pair, easy"),
        Metric("hard_accuracy", "accuracy per pair, hard"),
        Metric("yes_bias", "yes answers minus yes labels", better=0),
        Metric("false_yes", "wrong answers that should be no", better=0),
    ),
    hub=_HUB,
    examples=(
        "truthkit eval hallusionbench --data HallusionBench.json --images hallusion_bench --model M --out runs/h",
        "truthkit score hallusionbench HallusionBench_result.json",
    ),
    rescore=_rescore,
    score_files=score_files,
    score_run=_score_run,
    parts=_by_category,
    outcomes=("questions", "unparsed"),
    remarks=_remarks,
)
