"""The benchmark `detect`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from truthkit.detection.asked import Asked
from truthkit.errors import ArgumentError
from truthkit.evaluation.benchmark import Benchmark, Config, Curve, Grid, Lines, Metric
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.task import Task

if TYPE_CHECKING:
    from truthkit.evaluation.running.asking import Asking
    from truthkit.evaluation.tasks.detect.data import Question
    from truthkit.evaluation.tasks.detect.scorer import Unit
    from truthkit.statistics.score import Score

_CAPTION_TOKENS = 64


def task(
    data: Path,
    *,
    method: str = "mean_log_prob",
    level: Literal["token", "answer"] | None = None,
    knowledge: bool = False,
    captions: Path | None = None,
) -> Task:
    """Does a score tell false answers from right ones: AUROC, AUPRC, risk and coverage, calibration, beside length.

    Args:
        data: HaluEval's QA questions, TruthfulQA, or JSON lines: answers with "prompt", "answer" and "false", or images
            with "image" and "objects", which the model describes first
        method: a detector with its options, as of `truthkit detect`
        level: of captions: token judges each object that is named, answer the whole caption (default: token where the
            method scores tokens)
        knowledge: put HaluEval's passage in front of the question, as the context that answers are to rest on
        captions: of images: a finished run over the same images whose captions are judged, instead of writing them
    """
    from truthkit.detection.methods import find_detector
    from truthkit.evaluation.tasks.detect import scorer
    from truthkit.evaluation.tasks.detect.data import read_questions

    detector, (form, questions) = find_detector(method), read_questions(data)
    if level is not None and form != "captions":
        raise ArgumentError(f"--level is for captions of images; {data} has answers.")
    if captions is not None and form != "captions":
        raise ArgumentError(f"--captions is for images; {data} has answers.")
    if knowledge and not any(question.context for question in questions):
        raise ArgumentError(f"--knowledge: {data} has no passages.")
    if detector.of_prompt and form != "captions":
        raise ArgumentError(
            f"--method {detector.name} scores prompts, and {data} has right and false answers to the same ones: it "
            "would say the same of both. Use it on captions of images."
        )
    items = [
        Item(str(number), question.prompt, (question.image,) if question.image else (), question.answers)
        for number, question in enumerate(questions, 1)
    ]
    written = {} if captions is None else _written(captions)
    by_key = {item.key: question for item, question in zip(items, questions, strict=True)}

    def ask(asking: Asking, batch: Sequence[Item], fixed: Any = None) -> list[dict[str, Any]]:
        some = [by_key[item.key] for item in batch]
        if form == "captions":
            texts = [_known(written, item) for item in batch] if captions else asking.write(batch, fixed)
            return _detected(asking, detector, batch, [[text] for text in texts], [None] * len(batch))
        if asking.decoder.name != "greedy":
            raise ArgumentError(
                "detect judges given answers by the model alone; leave out --decoder, or judge captions."
            )
        contexts = [question.context if knowledge else None for question in some]
        return _detected(asking, detector, batch, [list(question.answers) for question in some], contexts)

    def score(which: Sequence[int], outputs: Sequence[dict[str, Any]]) -> Score:
        some = [questions[i] for i in which]
        at = level or ("token" if form == "captions" and any(map(_has_tokens, outputs)) else "answer")
        units = [_units(question, output, at) for question, output in zip(some, outputs, strict=True)]
        lines = [
            {"question": question.image or question.prompt, "answers": output["answers"]}
            for question, output in zip(some, outputs, strict=True)
        ]
        clusters = [line["question"] for line in lines]
        return scorer.score(units, lines, clusters, {"level": at}, probability=detector.probability and at == "answer")

    config = {"method": method, "form": form, "knowledge": knowledge}
    files = [Path(value) for value in (getattr(detector, "given", None),) if isinstance(value, str | Path)]
    new_tokens = _CAPTION_TOKENS if form == "captions" and not captions else 0
    return Task("detect", items, score, "auroc", new_tokens, config, (data, *files), ask, greedy=True)


def _detected(
    asking: Asking,
    detector: Any,
    batch: Sequence[Item],
    answers: Sequence[Sequence[str]],
    contexts: Sequence[str | None],
) -> list[dict[str, Any]]:
    """The scores of each item's answers."""
    from truthkit.detection.reading import Reader
    from truthkit.images.reading import read_image

    reader = Reader(
        asking.model, asking.processor, token_budget=128 * asking.size, max_new_tokens=_CAPTION_TOKENS, seed=asking.seed
    )
    asked = [
        Asked(
            item.prompt if context is None else f"{context}\n\n{item.prompt}",
            said,
            tuple(read_image(path) for path in item.images),
            context,
        )
        for item, some, context in zip(batch, answers, contexts, strict=True)
        for said in some
    ]
    found = iter(detector.found(reader, asked))
    outputs = []
    for some in answers:
        own = [next(found) for _ in some]
        tokens = [
            [[span.start, span.stop, value] for span, value in zip(one.spans, one.tokens.tolist(), strict=True)]
            if one.tokens is not None
            else None
            for one in own
        ]
        outputs.append({"answers": list(some), "scores": [one.score for one in own], "tokens": tokens})
    return outputs


def _written(folder: Path) -> dict[str, str]:
    """The captions of a finished run by image file name."""
    from truthkit.evaluation.running.records import ITEMS
    from truthkit.files.reading import read_records

    found = {}
    for record in read_records(folder / ITEMS):
        output = record.fields.get("output")
        said = output["answers"][0] if isinstance(output, dict) and output.get("answers") else output
        if isinstance(said, str) and record.fields.get("images"):
            found[Path(record.fields["images"][0]).name] = said
    if not found:
        raise ArgumentError(f"--captions {folder}: it has no captions of images.")
    return found


def _known(written: dict[str, str], item: Item) -> str:
    name = Path(item.images[0]).name
    if name not in written:
        raise ArgumentError(f"--captions has none of {name}; give a run over the same images.")
    return written[name]


def _has_tokens(output: dict[str, Any]) -> bool:
    return any(tokens is not None for tokens in output["tokens"])


def _units(question: Question, output: dict[str, Any], level: str) -> list[Unit]:
    """An item's answers, or the objects that its caption names, each with the highest score of its tokens."""
    from truthkit.evaluation.tasks.detect.data import mentions
    from truthkit.evaluation.tasks.detect.scorer import Unit

    if not question.image:
        pairs = zip(output["scores"], question.false, question.answers, strict=True)
        return [Unit(value, false, len(said)) for value, false, said in pairs]
    (said,), (tokens,), (value,) = output["answers"], output["tokens"], output["scores"]
    named = [(name not in question.objects, span) for name, span in mentions(said, question.known)]
    if level == "answer":
        return [Unit(value, any(false for false, _ in named), len(said))]
    if tokens is None:
        raise ArgumentError("--level token: this method scores no tokens; use --level answer.")
    units = []
    for false, span in named:
        scores = [score for start, stop, score in tokens if start < span.stop and stop > span.start]
        if scores:
            units.append(Unit(max(scores), false, span.start))
    return units


def _rescore(items: Lines, config: Config) -> Score:
    from truthkit.evaluation.tasks.detect import scorer

    units = [[scorer.Unit(*one) for one in item["units"]] for item in items]
    return scorer.score(
        units,
        list(map(dict, items)),
        [item["cluster"] for item in items],
        {"level": config["level"]},
        probability=config["probability"],
    )


def score_files(answers: Path, data: Path | None = None, *, probability: bool = False) -> Score:
    """Score a detector's scores, whoever made them; higher is more likely false.

    ANSWERS has a line per answer: {"prompt": ..., "answer": ..., "score": ..., "false": true}. With --data, HaluEval's
    or TruthfulQA's file, "false" is looked up there. Lines of one prompt are drawn together.

    Args:
        answers: JSON lines with prompt, answer, score and, without --data, false
        data: the data set that says which answers are false
        probability: the scores are probabilities: calibrate them as they are
    """
    from truthkit.evaluation.tasks.detect import scorer
    from truthkit.evaluation.tasks.detect.data import read_questions, truth
    from truthkit.files.json_text import shown
    from truthkit.files.reading import read_records

    known: dict[tuple[str, str], bool] = {}
    for question in () if data is None else read_questions(data)[1]:
        known |= {(question.prompt, said): false for said, false in zip(question.answers, question.false, strict=True)}
    units: dict[str, list[Unit]] = {}
    for record in read_records(answers):
        prompt, said = record.text("prompt", "question"), record.text("answer")
        value = record.fields.get("score")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ArgumentError(f"{record.place}: 'score' is {shown(value)}; expected a number.")
        if data is not None and (prompt, said) not in known:
            raise ArgumentError(f"{record.place}: {data} has no answer {said[:60]!r} to {prompt[:60]!r}.")
        false = truth(record, "false") if data is None else known[prompt, said]
        units.setdefault(prompt, []).append(scorer.Unit(float(value), false, len(said)))
    labels = {one.false for some in units.values() for one in some}
    if len(labels) == 1:
        kind = "false" if labels == {True} else "right"
        raise ArgumentError(f"all answers of {answers} are {kind}; an area under the ROC curve needs some of both.")
    lines: list[dict[str, Any]] = [{"question": prompt} for prompt in units]
    return scorer.score(list(units.values()), lines, list(units), {"level": "answer"}, probability=probability)


def _remarks(config: Config) -> list[str | Grid]:
    """Risk at each coverage, and the reliability of the probabilities."""
    if not config["units"]:
        return ["no answer had anything to judge."]
    curve = [(c, r) for c, r in config["risk_coverage"] if round(100 * c) % 10 == 0]
    covered = tuple(f"{100 * coverage:.0f} %" for coverage, _ in curve)
    risks = ("risk", *(f"{100 * risk:.1f} %" for _, risk in curve))
    of = "the score" if config["probability"] else "the calibrated score"
    rows = tuple((f"{p:.2f}", str(n), f"{f:.2f}") for n, p, f in config["reliability"])
    return [
        Grid("share of false ones among those with the lowest scores, by coverage", covered, (risks,)),
        Grid(f"reliability: mean of {of} in a tenth, how many, share false", ("n", "false"), rows),
    ]


def _curve(config: Config) -> Curve | None:
    """Risk against coverage."""
    if not config["units"]:
        return None
    note = "The share of false ones among those that are kept, when those with the lowest scores are kept first."
    points = tuple((float(coverage), float(risk)) for coverage, risk in config["risk_coverage"])
    return Curve("Risk against coverage", note, "coverage", "risk", points)


def _false_ones(lines: Lines) -> float:
    """The share of false units, which is what an order by lot finds anywhere in it."""
    return fmean(bool(false) for line in lines for _, false, _ in line["units"])


DETECT = Benchmark(
    "detect",
    "detection of false answers",
    task,
    metrics=(
        Metric("auroc", "AUROC", chance=0.5),
        Metric("auprc", "AUPRC", chance=_false_ones),
        Metric("base_rate", "share of false answers", better=0),
        Metric("auroc_length", "AUROC of length alone", better=0, chance=0.5),
        Metric("auprc_length", "AUPRC of length alone", better=0, chance=_false_ones),
        Metric("auroc_gain", "AUROC above length alone"),
        Metric("risk_50", "risk at half coverage", better=-1, chance=_false_ones),
        Metric("risk_80", "risk at 80 % coverage", better=-1, chance=_false_ones),
        Metric("aurc", "area under risk and coverage", better=-1, chance=_false_ones),
        Metric("ece", "calibration error", better=-1),
    ),
    examples=(
        "truthkit eval detect --data qa_data.json --method p_true --out runs/p-true",
        "truthkit eval detect --data mc_task.json --method probe:vector=probe.safetensors --out runs/probe",
        "truthkit score detect scores.jsonl --data qa_data.json",
    ),
    rescore=_rescore,
    score_files=score_files,
    outcomes=("units", "probability", "risk_coverage", "reliability", "level"),
    remarks=_remarks,
    curve=_curve,
)
