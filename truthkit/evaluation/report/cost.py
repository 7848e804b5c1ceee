"""What a run's items cost."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from truthkit.errors import ArgumentError
from truthkit.evaluation.report.compare import Run
from truthkit.files.json_text import parse
from truthkit.files.shapes import FINITE, check
from truthkit.statistics.intervals import FloatArray, Interval, bootstrap, ratio

_RESAMPLES = 1000  # batches are many, and a cost needs no third digit


def seconds_per_item(run: Run) -> tuple[float, Interval | None] | None:
    """Mean seconds per item from the run's records, with an interval that resamples batches; None without records.

    A batch's time is shared out evenly, so items in a row with the same time are one batch. A single batch has no
    interval.
    """
    rows, batches = [], []
    for path in sorted(run.folder.glob("records*.jsonl")):
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                record = parse(line)
                check(record, {"seconds!": FINITE}, "the record")
            except ArgumentError:
                continue
            seconds = float(record["seconds"])
            rows.append((1.0, seconds))
            batches.append((path.name, seconds))
    if not rows:
        return None
    counts = np.array(rows)
    interval = bootstrap(counts, _mean, batches, resamples=_RESAMPLES)["mean"] if len(set(batches)) > 1 else None
    return float(counts[:, 1].mean()), interval


def _mean(totals: FloatArray) -> Mapping[str, FloatArray]:
    return {"mean": ratio(totals[..., 1], totals[..., 0])}
