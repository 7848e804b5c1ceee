"""The score of a finished run again, from the lines of its `items.jsonl`: of all of them, or of some.

A summary has a run's metrics; categories, shared items and paired tests need the counts behind them.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from truthkit.errors import ArgumentError, TruthkitError
from truthkit.evaluation.benchmark import Benchmark, Config, Lines
from truthkit.evaluation.tasks import benchmark_of
from truthkit.statistics.score import Score, mean_score


def rescore(items: Lines, config: Config, *, others: Collection[str] = ()) -> Score:
    """The score of these items of a run, as its benchmark says.

    Without a word of it, the means of the metrics that it declares; of one that isn't installed here, of all numbers
    that every item has.

    Args:
        items: lines of `items.jsonl`.
        config: of the run's summary; it names the task.
        others: metrics of runs that this one is held against; see `Metric.otherwise`.

    Raises:
        ArgumentError: no items, or too little in them: images of MME without both questions, no numbers.
    """
    if not items:
        raise ArgumentError("there are no items to score.")
    benchmark = benchmark_of(config["task"])
    try:
        score = benchmark.rescore(items, config) if benchmark.rescore else None
        score = score or _means(items, benchmark, config["task"], others)
        set(score.clusters)  # of whatever type an item has, but one that can be told apart
        return score
    except TruthkitError:
        raise
    except KeyError as missing:
        raise ArgumentError(f"an item of {config['task']} has no field {missing}.") from None
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise ArgumentError(f"an item of {config['task']} has a field of another type ({error!s:.200}).") from error


def _means(items: Lines, benchmark: Benchmark, task: str, others: Collection[str]) -> Score:
    fields = [name for name in items[0] if all(isinstance(item.get(name), bool | int | float) for item in items)]
    if benchmark.metrics:
        own = {metric.name: metric.field for metric in benchmark.metrics if metric.field in fields}
        named = own | {name: name for name in fields if any(metric.member(name) for metric in benchmark.metrics)}
        for name in others:
            if name not in named and (same := benchmark.metric(name).otherwise) in named:
                named[name] = named[same]
    else:
        named = {name: name for name in fields}
    if not named:
        raise ArgumentError(f"the items of {task} have no numbers to take the mean of.")
    values = np.array([[float(item[field]) for field in named.values()] for item in items])
    rows = np.hstack([np.ones((len(items), 1)), values])
    shares = bool(((values >= 0) & (values <= 1)).all())
    clusters = [item["cluster"] for item in items]
    return mean_score(rows, list(named), clusters, list(map(dict, items)), {"task": task}, shares=shares)
