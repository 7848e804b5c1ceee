"""The score of a finished run again, from the lines of its `items.jsonl`: of all of them, or of some.

A summary has a run's metrics; categories, shared items and paired tests need the counts behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from truthkit.errors import ArgumentError
from truthkit.evaluation.tasks.chair.scorer import measure as measure_chair
from truthkit.evaluation.tasks.factcheck import scorer as factcheck
from truthkit.evaluation.tasks.mme import scorer as mme
from truthkit.evaluation.tasks.pope import scorer as pope
from truthkit.statistics.score import Score, mean_score

Items = Sequence[Mapping[str, Any]]


def rescore(items: Items, config: Mapping[str, Any]) -> Score:
    """The score of these items of a run.

    A task that this module does not know is scored by the means of the numbers that all its items have.

    Args:
        items: lines of `items.jsonl`.
        config: of the run's summary; it names the task.

    Raises:
        ArgumentError: no items, or too little in them: images of MME without both questions, no numbers.
    """
    if not items:
        raise ArgumentError("there are no items to score.")
    try:
        return _RESCORERS.get(config["task"], _means)(items, config)
    except KeyError as missing:
        raise ArgumentError(f"an item of {config['task']} has no field {missing}.") from None


def _pope(items: Items, config: Mapping[str, Any]) -> Score:
    questions = [
        pope.Question(item["question_id"], item["image"], item["question"], item["label"], item["category"])
        for item in items
    ]
    return pope.score(questions, [item["answer"] for item in items], parser=config["parser"])


def _mme(items: Items, config: Mapping[str, Any]) -> Score:
    questions = [mme.Question(item["category"], item["image"], item["question"], item["label"]) for item in items]
    return mme.score(questions, [item["answer"] for item in items])


def _chair(items: Items, config: Mapping[str, Any]) -> Score:
    rows = []
    for item in items:
        mentions, wrong, there = item["objects"], item["hallucinated"], set(item["ground_truth"])
        rows.append((1, bool(wrong), len(mentions), len(wrong), len(there), len(there.intersection(mentions))))
    clusters = [item["cluster"] for item in items]
    return Score(np.asarray(rows, float), clusters, measure_chair, list(map(dict, items)), {"task": "chair"})


def _factcheck(items: Items, config: Mapping[str, Any]) -> Score:
    """Verdicts and their calibration; what the explanations are compared with is not in the items."""
    found = factcheck.score(
        [item["label"] for item in items],
        [item["probabilities"] for item in items],
        config["labels"],
        verdicts=[item["prediction"] for item in items],
    )
    absent = ("explanation_words", "rouge_l", "consistency")
    return replace(
        found,
        measure=lambda totals: {name: v for name, v in found.measure(totals).items() if name not in absent},
        clusters=[item["cluster"] for item in items],
        items=list(map(dict, items)),
    )


def _means(items: Items, config: Mapping[str, Any]) -> Score:
    names = [name for name in items[0] if all(isinstance(item.get(name), bool | int | float) for item in items)]
    if not names:
        raise ArgumentError(f"the items of {config['task']} have no numbers to take the mean of.")
    values = np.array([[float(item[name]) for name in names] for item in items])
    rows = np.hstack([np.ones((len(items), 1)), values])
    shares = bool(((values >= 0) & (values <= 1)).all())
    clusters = [item["cluster"] for item in items]
    return mean_score(rows, names, clusters, list(map(dict, items)), {"task": config["task"]}, shares=shares)


_RESCORERS: dict[str, Callable[[Items, Mapping[str, Any]], Score]] = {
    "pope": _pope,
    "mme": _mme,
    "chair": _chair,
    "factcheck": _factcheck,
}
