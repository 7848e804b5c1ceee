"""Names that tell the runs of a section apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from truthkit.evaluation.compare import Run

_SHORT = 40  # characters


def label_runs(runs: Sequence[Run]) -> list[str]:
    """Decoder and sampling; with several models the model in front, and the folder behind where that is not enough."""
    models = [short_model(str(run.summary["config"]["model"])) for run in runs]
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


def short_model(name: str) -> str:
    """A model's name; of a long one the end."""
    return name if len(name) <= _SHORT else f"…{name[-_SHORT:]}"
