"""Fact-checking: a verdict on each claim, by the likelihood of the label words, and an explanation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truthkit.errors import ArgumentError
from truthkit.evaluation.benchmark import Benchmark, Config, Grid, Lines, Metric
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.task import Task
from truthkit.evaluation.tasks.chance import one_in

if TYPE_CHECKING:
    from truthkit.evaluation.running.asking import Asking
    from truthkit.statistics.intervals import Measure
    from truthkit.statistics.score import Score


_OF_EXPLANATIONS = {"explanation_words", "rouge_l", "consistency"}


def task(data: Path, *, labels: int | None = None, explain: bool = True, gold_evidence: bool = False) -> Task:
    """Verdicts by likelihood over the label words, and explanations; macro-F1, calibration, ROUGE-L, consistency.
    A decoder's plausibility constraint holds for explanations only.

    Args:
        data: LIAR's .tsv, LIAR-RAW, RAW-FC, or JSON lines with "claim", "label" and, if there are any, "evidence" and
            "explain", the gold explanation
        labels: how many labels the file's are merged to: 6, 3 or 2 (default: 3, or 2 where the file has but true and
            false)
        explain: ask for an explanation of each verdict too
        gold_evidence: show the gold explanation as evidence; it tells the verdict, so this is an upper bound
    """
    from truthkit.evaluation.tasks.factcheck import scorer
    from truthkit.factcheck.claims import LABELS_2, LABELS_3, LABELS_6, read_claims

    sets = {6: LABELS_6, 3: LABELS_3, 2: LABELS_2}
    if labels not in (None, *sets):
        raise ArgumentError(f"--labels is {labels}; expected 6, 3 or 2.")
    if labels is None:
        labels = 2 if {claim.label for claim in read_claims(data)} <= {*LABELS_2} else 3
    names = sets[labels]
    claims = read_claims(data, labels=names, gold_as_evidence=gold_evidence)
    items = [
        Item(f"{number} {claim.id}", claim.text, choices=() if explain else names)
        for number, claim in enumerate(claims, 1)
    ]
    absent = set() if explain else _OF_EXPLANATIONS - {"rouge_l"}
    absent |= set() if explain and any(claim.explanation for claim in claims) else {"rouge_l"}
    numbers = {item.key: number for number, item in enumerate(items)}

    def ask(asking: Asking, batch: Sequence[Item], fixed: Any = None) -> list[dict[str, Any]]:
        from truthkit.evaluation.tasks.factcheck.asking import check

        return check(asking, [claims[numbers[item.key]] for item in batch], names, explain=explain, fixed=fixed)

    def score(which: Sequence[int], outputs: Sequence[dict[str, Any]]) -> Score:
        some = [claims[i] for i in which]
        verdicts = [output["verdict"] if scorer.stands_out(output) else None for output in outputs]
        explanations = [output["explanation"] for output in outputs] if explain else None
        found = scorer.score(
            [claim.label for claim in some],
            [output["probabilities"] for output in outputs],
            names,
            verdicts=verdicts,
            explanations=explanations,
            references=[claim.explanation for claim in some],
            consistent=scorer.mentions_agree(verdicts, explanations, names) if explanations else None,
            ids=[claim.id for claim in some],
        )
        config = found.config | {"confusion": scorer.confusion(found)}
        return replace(found, measure=_without(found.measure, absent), config=config)

    config = {"labels": list(names), "explain": explain, "gold_evidence": gold_evidence}
    return Task("factcheck", items, score, "macro_f1", 160 if explain else 0, config, (data,), ask, greedy=True)


def _without(measure: Measure, names: set[str]) -> Measure:
    """The measure without metrics of what was not asked for, which would all be 0."""
    return lambda totals: {name: value for name, value in measure(totals).items() if name not in names}


def _rescore(items: Lines, config: Config) -> Score:
    """Verdicts and their calibration; what the explanations are compared with is not in the items."""
    from truthkit.evaluation.tasks.factcheck import scorer

    found = scorer.score(
        [item["label"] for item in items],
        [item["probabilities"] for item in items],
        config["labels"],
        verdicts=[item["prediction"] for item in items],
    )
    return replace(
        found,
        measure=_without(found.measure, _OF_EXPLANATIONS),
        clusters=[item["cluster"] for item in items],
        items=list(map(dict, items)),
    )


def _remarks(config: Config) -> list[Grid]:
    """The confusion matrix: gold labels down, verdicts across, those that were never said left out."""
    counts: dict[str, dict[str, int]] = config["confusion"]
    verdicts = next(iter(counts.values()))
    said = [label for label in verdicts if label in counts or any(row[label] for row in counts.values())]
    rows = tuple((gold, *(str(row[label]) for label in said)) for gold, row in counts.items())
    return [Grid("claims by gold label (rows) and verdict", tuple(said), rows)]


FACTCHECK = Benchmark(
    "factcheck",
    "fact-checking",
    task,
    metrics=(
        Metric("accuracy", chance=one_in("probabilities")),
        Metric("macro_f1", "macro-F1"),
        Metric("ece", "calibration error", better=-1),
        Metric("unparsed", "claims without verdict", better=-1),
        Metric("f1_*", "F1 of *"),
        Metric("verdict_share_*", "share of verdict *", better=0),
        Metric("explanation_words", "length of explanations", better=0, share=False, unit="words"),
        Metric("rouge_l", "ROUGE-L"),
        Metric("consistency", "explanation agrees with verdict"),
    ),
    examples=(
        "truthkit eval factcheck --data liar/test.tsv --adapter DIR --steer style.safetensors:2,positions=generated "
        "--no-explain --out runs/liar",
        "truthkit eval factcheck --data rawfc_test.json --adapter DIR --decoder dola --out runs/rawfc",
    ),
    rescore=_rescore,
    outcomes=("claims", "confusion"),
    remarks=_remarks,
)
