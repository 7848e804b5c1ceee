"""Scores of a fact-checker: verdicts against gold labels, their calibration, and the explanations.

Every figure is a function of column totals, so that intervals and paired tests come from `intervals` as for all other
scorers: a confusion matrix gives the F scores, calibration bins give ECE, sums of lengths, ROUGE-L and consistency
their means.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from truthkit.errors import ArgumentError, MissingExtraError
from truthkit.statistics.intervals import RESAMPLES, Difference, FloatArray, McNemar, mcnemar, paired_bootstrap, ratio
from truthkit.statistics.score import Score

BINS = 10
"""Calibration bins of equal width, as in Guo et al., *On Calibration of Modern Neural Networks*, 1706.04599."""

_NEGATION = re.compile(r"\b(?:not|never|no|cannot)\b|n['’]t\b", re.IGNORECASE)
_OF_EXPLANATIONS = (("explanation_words", 0), ("rouge_l", 1), ("consistency", 2))


@dataclass(frozen=True)
class PairedTests:
    """Two runs over the same claims.

    Attributes:
        differences: of every metric, after minus before, with interval and p-value.
        mcnemar: claims gained and lost, and its p-values; None where a run is an average over seeds.
    """

    differences: dict[str, Difference]
    mcnemar: McNemar | None

    def as_dict(self) -> dict[str, Any]:
        """JSON values only."""
        differences = {name: found._asdict() for name, found in self.differences.items()}
        return {"differences": differences, "mcnemar": self.mcnemar and self.mcnemar._asdict()}


def score(
    gold: Sequence[str],
    probabilities: Sequence[Mapping[str, float]],
    labels: Sequence[str],
    *,
    verdicts: Sequence[str | None] | None = None,
    explanations: Sequence[str | None] | None = None,
    references: Sequence[str | None] | None = None,
    consistent: Sequence[bool | None] | None = None,
    ids: Sequence[str] | None = None,
    bins: int = BINS,
) -> Score:
    """Score one verdict per claim.

    Metrics: `accuracy`, `f1_LABEL` (NaN for a label that no claim has, 0 for one that is never right), `macro_f1`
    (their mean over the labels that some claim has), `ece`, `verdict_share_LABEL`, `unparsed` (share of claims without
    verdict; they count as wrong), and of the explanations `explanation_words`, `rouge_l` and `consistency`, each over
    the claims that have what it needs, NaN where none has.

    Args:
        gold: the gold labels.
        probabilities: each claim's probability of every label.
        labels: all labels; the order of the confusion matrix.
        verdicts: what was said, where that is not the most probable label; None is no verdict, as is a tie.
        explanations: what was said for it.
        references: gold explanations, for ROUGE-L.
        consistent: whether verdict and explanation agree; None where that can't be told.
        ids: what the claims are called.
        bins: how many calibration bins.

    Raises:
        ArgumentError: unknown labels, or lists that differ in length.
    """
    lists: dict[str, Sequence[Any] | None] = {
        "probabilities": probabilities,
        "verdicts": verdicts,
        "explanations": explanations,
        "references": references,
        "consistent": consistent,
        "ids": ids,
    }
    for name, given in lists.items():
        if given is not None and len(given) != len(gold):
            raise ArgumentError(f"{name} has {len(given)} entries for {len(gold)} gold labels; give one for each.")
    if not len(gold) or bins < 1 or len(set(labels)) != len(labels):
        raise ArgumentError(f"gold has {len(gold)} labels, labels is {labels!r}, bins {bins}; expected some of each.")
    place = {label: i for i, label in enumerate(labels)}
    rows, items = [], []
    for number, label in enumerate(gold):
        shares = probabilities[number]
        guess = verdicts[number] if verdicts is not None else _most_probable(shares, labels)
        for what, value in (("gold", label), ("verdicts", guess)):
            if value is not None and value not in place:
                raise ArgumentError(f"{what}[{number}] is {value!r}; expected one of {', '.join(labels)}.")
        said = explanations[number] if explanations is not None else None
        wanted = references[number] if references is not None else None
        agrees = consistent[number] if consistent is not None else None
        overlap = rouge_l(said, wanted) if said is not None and wanted else None
        columns = np.zeros(len(labels) * (len(labels) + 1) + 3 * bins + 6)
        columns[place[label] * (len(labels) + 1) + (len(labels) if guess is None else place[guess])] = 1
        confidence = (shares.get(guess) or 0.0) if guess is not None else 0.0
        at = len(labels) * (len(labels) + 1) + 3 * min(int(confidence * bins), bins - 1)
        columns[at : at + 3] = (1, confidence, guess == label)
        for kind, figure in enumerate((None if said is None else len(said.split()), overlap, agrees)):
            if figure is not None:
                columns[len(columns) - 6 + 2 * kind :][:2] = (1, figure)
        rows.append(columns)
        items.append(
            {
                "id": ids[number] if ids is not None else str(number),
                "label": label,
                "prediction": guess,
                "correct": guess == label,
                "probabilities": dict(shares),
                "explanation": said,
                "rouge_l": overlap,
                "consistent": agrees,
            }
        )
    config = {"task": "factcheck", "labels": list(labels), "bins": bins, "claims": len(rows)}
    measure, support = _measure(tuple(labels), bins), _support(tuple(labels))
    return Score(np.stack(rows), list(range(len(rows))), measure, items, config, support=support)


def stands_out(output: Mapping[str, Any]) -> bool:
    """Whether a verdict, with the `probabilities` it was chosen by, is more probable than every other label."""
    return output["verdict"] == _most_probable(output["probabilities"], list(output["probabilities"]))


def _most_probable(shares: Mapping[str, float | None], labels: Sequence[str]) -> str | None:
    """The label with the largest share; None where several have it."""
    values = [shares.get(label) or 0.0 for label in labels]
    return labels[values.index(max(values))] if values.count(max(values)) == 1 else None


def _measure(labels: tuple[str, ...], bins: int) -> Callable[[FloatArray], dict[str, FloatArray]]:
    count = len(labels)

    def measure(totals: FloatArray) -> dict[str, FloatArray]:
        totals = np.asarray(totals, float)
        cells = totals[..., : count * (count + 1)].reshape(*totals.shape[:-1], count, count + 1)
        claims = cells.sum(axis=(-1, -2))
        right = np.diagonal(cells[..., :count], axis1=-2, axis2=-1)
        said = cells[..., :count].sum(axis=-2)
        gold = cells.sum(axis=-1)
        f1 = np.where(gold > 0, ratio(2 * right, said + gold), math.nan)
        calibration = totals[..., count * (count + 1) : -6].reshape(*totals.shape[:-1], bins, 3)
        gap = np.abs(calibration[..., 1] - calibration[..., 2]).sum(axis=-1)
        found = {
            "accuracy": ratio(right.sum(axis=-1), claims),
            "macro_f1": ratio(np.nansum(f1, axis=-1), (gold > 0).sum(axis=-1)),
            "ece": ratio(gap, claims),
            "unparsed": ratio(cells[..., count].sum(axis=-1), claims),
        }
        found |= {f"f1_{label}": f1[..., i] for i, label in enumerate(labels)}
        found |= {f"verdict_share_{label}": ratio(said[..., i], claims) for i, label in enumerate(labels)}
        for name, kind in _OF_EXPLANATIONS:
            pair = totals[..., totals.shape[-1] - 6 + 2 * kind :][..., :2]
            found[name] = np.where(pair[..., 0] > 0, ratio(pair[..., 1], pair[..., 0]), math.nan)
        return found

    return measure


def _support(labels: tuple[str, ...]) -> Callable[[FloatArray], dict[str, FloatArray]]:
    """How many claims have a label, and how many explanations what a figure of them needs."""
    count = len(labels)

    def support(totals: FloatArray) -> dict[str, FloatArray]:
        gold = totals[: count * (count + 1)].reshape(count, count + 1).sum(axis=-1)
        found = {f"f1_{label}": gold[i] for i, label in enumerate(labels)}
        return found | {name: totals[len(totals) - 6 + 2 * kind] for name, kind in _OF_EXPLANATIONS}

    return support


def averaged(scores: Sequence[Score]) -> Score:
    """Runs over the same claims, of several seeds, as one: every metric is the mean of theirs.

    Intervals and paired tests then draw claims, each with its verdicts of all runs. What the seeds differ by is not in
    them.

    Raises:
        ArgumentError: no runs, or runs over other claims.
    """
    if not scores:
        raise ArgumentError("scores is empty; give at least one run.")
    names = [[item["id"] for item in one.items] for one in scores]
    if any(one != names[0] for one in names):
        raise ArgumentError("scores are of different claims; average runs over the same ones.")

    def measure(totals: FloatArray) -> dict[str, FloatArray]:
        parts = np.split(np.asarray(totals, float), len(scores), axis=-1)
        found = [one.measure(part) for one, part in zip(scores, parts, strict=True)]
        return {name: np.mean([metrics[name] for metrics in found], axis=0) for name in found[0]}

    first = scores[0]
    counts = np.concatenate([one.counts for one in scores], axis=1)
    return Score(counts, first.clusters, measure, first.items, first.config | {"runs": len(scores)})


def confusion(scored: Score) -> dict[str, dict[str, int]]:
    """How often each gold label (outer) got each verdict (inner; "none" for no verdict)."""
    labels = scored.config["labels"]
    pairs = Counter((item["label"], item["prediction"]) for item in scored.items)
    return {
        gold: {said if said is not None else "none": pairs[gold, said] for said in (*labels, None)} for gold in labels
    }


def paired_tests(
    before: Score, after: Score, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> PairedTests:
    """Paired bootstrap of every metric and McNemar's test of right verdicts.

    Raises:
        ArgumentError: they are not over the same claims.
    """
    for old, new in zip(before.items, after.items, strict=False):
        if (old["id"], old["label"]) != (new["id"], new["label"]):
            raise ArgumentError(f"claim {old['id']!r} stands beside {new['id']!r}; compare runs over the same claims.")
    differences = paired_bootstrap(
        before.counts, after.counts, before.measure, before.clusters, level=level, resamples=resamples, seed=seed
    )
    if "runs" in before.config or "runs" in after.config:
        return PairedTests(differences, None)
    right = ([item["correct"] for item in scored.items] for scored in (before, after))
    return PairedTests(differences, mcnemar(*right))


def rouge_l(text: str, reference: str) -> float:
    """F measure of the longest common subsequence of words (Lin, 2004), by the `rouge-score` package, unstemmed.

    Words are runs of a–z and 0–9 in lower case. 0 where either side has none.

    Raises:
        MissingExtraError: rouge-score is not installed.
    """
    return float(_rouge().score(reference, text)["rougeL"].fmeasure)


@cache
def _rouge() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise MissingExtraError("ROUGE of explanations needs rouge-score: pip install 'truthkit[eval]'.") from None
    return RougeScorer(["rougeL"])


def mentioned_verdict(explanation: str, labels: Sequence[str]) -> str | None:
    """The label that an explanation names last as a rating ("we rate this half true", "is false"); None where none.

    A label counts after "rate", "rated", "rating", "ruling", "verdict" or a form of "be", with up to four words between
    and no negation among them. What counts is our choice; `implied` asks the model instead of the words.
    """
    longest_first = sorted(labels, key=len, reverse=True)
    words = "|".join(re.sub(r"(?:\\-|\\ )", r"[-\\s]", re.escape(label)) for label in longest_first)
    found = [
        match
        for match in re.finditer(
            rf"\b(?:rat(?:e|ed|es|ing)|ruling|rule[ds]?|verdict|is|was|are|were)\b(?:\W+\w+){{0,4}}?\W+(?P<label>{words})\b",
            explanation,
            re.IGNORECASE,
        )
        if not _NEGATION.search(match[0])
    ]
    if not found:
        return None
    said = re.sub(r"\s", "-", found[-1]["label"].lower())
    return next(label for label in longest_first if re.sub(r"\s", "-", label.lower()) == said)


def mentions_agree(
    verdicts: Sequence[str | None], explanations: Sequence[str | None], labels: Sequence[str]
) -> list[bool | None]:
    """Whether the rating that an explanation names is the verdict; None where it names none."""
    found: list[bool | None] = []
    for verdict, explanation in zip(verdicts, explanations, strict=True):
        named = mentioned_verdict(explanation, labels) if explanation else None
        found.append(None if named is None or verdict is None else named == verdict)
    return found


IMPLIED = "A fact-checker wrote about a claim: {explanation}\n\nWhich verdict does this support: {labels}?"
"""The question that `implied` asks; the wording is ours."""


def implied(
    scorer: Any, explanations: Sequence[str | None], *, template: str = IMPLIED, chat: bool = True
) -> list[str | None]:
    """The verdict that a model reads out of each explanation alone, without the claim; None for an empty one.

    Args:
        scorer: a `VerdictScorer`; of the backbone, for a judge that has not learnt to guess.
        explanations: the explanations.
        template: the question, with {explanation} and {labels}.
        chat: ask as a chat message; False as plain text.
    """
    labels = ", ".join(scorer.labels)
    asked = [i for i, text in enumerate(explanations) if text and text.strip()]
    prompts: list[Any] = [template.format(explanation=explanations[i], labels=labels) for i in asked]
    if chat:
        prompts = [[{"role": "user", "content": prompt}] for prompt in prompts]
    found: list[str | None] = [None] * len(explanations)
    if prompts:
        for i, verdict in zip(asked, scorer.verdicts(prompts), strict=True):
            found[i] = verdict.label
    return found


def control(
    train: Sequence[str], count: int, labels: Sequence[str], *, kind: str = "majority", seed: int = 0
) -> list[dict[str, float]]:
    """Probabilities of a control that sees no claim.

    Args:
        train: the labels of the training split.
        count: how many claims are judged.
        labels: all labels.
        kind: "majority" gives the most frequent label (of equal ones the first of `labels`); "prior" draws a label for
            each claim with the training split's shares, which is what verdicts that know nothing but these score.
        seed: of the draws.

    Raises:
        ArgumentError: no training labels, an unknown one, or another kind.
    """
    counts = Counter(train)
    if not counts or set(counts) - set(labels):
        raise ArgumentError(f"train has the labels {sorted(counts)}; expected some, all of them in {list(labels)}.")
    shares = {label: counts[label] / len(train) for label in labels}
    if kind == "majority":
        chosen = [max(labels, key=shares.__getitem__)] * count
    elif kind == "prior":
        chosen = random.Random(seed).choices(list(labels), [shares[label] for label in labels], k=count)
    else:
        raise ArgumentError(f"kind is {kind!r}; expected 'majority' or 'prior'.")
    return [{label: float(label == one) for label in labels} for one in chosen]
