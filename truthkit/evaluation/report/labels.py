"""Names that tell the runs of a section apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from truthkit.evaluation.report.compare import Run

_LONGEST = 40  # characters
_PARTS = re.compile(r"( \+ | steered by )")  # of a model with an adapter, steered


def label_runs(runs: Sequence[Run]) -> list[str]:
    """Decoder and sampling; with several models the model in front, and the folder behind where that is not enough."""
    models = short_models([str(run.summary["config"]["model"]) for run in runs])
    several = len({run.summary["config"]["model"] for run in runs}) > 1
    names = [f"{model}: {run.name}" if several else run.name for model, run in zip(models, runs, strict=True)]
    times = Counter(names)
    labels = names
    for depth in (1, 2, 0):
        folders = ["/".join((run.folder if depth else run.folder.resolve()).parts[-depth:]) for run in runs]
        labels = [
            f"{name} [{folder}]" if times[name] > 1 else name for name, folder in zip(names, folders, strict=True)
        ]
        if len(set(labels)) == len(labels):
            break
    return labels


def short_models(names: Sequence[str]) -> list[str]:
    """Models by the last part of their names or paths, or by the whole where that is the same for two of them."""
    ends = {name: "".join(part.rstrip("/").rsplit("/", 1)[-1] for part in _PARTS.split(name)) for name in names}
    alike = {end for end, times in Counter(ends.values()).items() if times > 1}
    return [_cut(name if ends[name] in alike else ends[name]) for name in names]


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST else f"…{name[-_LONGEST:]}"
