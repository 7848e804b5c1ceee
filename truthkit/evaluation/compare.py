"""Two runs over the same items: which answers changed, and whether the change is more than chance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from truthkit.errors import ArgumentError, NotAvailableError
from truthkit.evaluation.intervals import Difference, FloatArray, McNemar, mcnemar, paired_bootstrap
from truthkit.evaluation.records import ITEMS, SUMMARY


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: where it is.
        summary: the contents of `summary.json`.
        items: the lines of `items.jsonl`.
    """

    folder: Path
    summary: dict[str, Any]
    items: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """Decoder and, where answers are drawn, temperature."""
        config = self.summary["config"]
        drawn = f", sampled at {config['temperature']:g}" if config.get("sample") else ""
        return f"{config['decoder']}{drawn}"


@dataclass(frozen=True)
class Comparison:
    """What changed from one run to another.

    Attributes:
        changes: for every number that both runs have of each item, its mean's paired difference.
        answers: McNemar's test of right and wrong, where items are either.
        gained, lost: pairs of items, right in the second run only and in the first only.
    """

    changes: dict[str, Difference]
    answers: McNemar | None
    gained: list[tuple[dict[str, Any], dict[str, Any]]]
    lost: list[tuple[dict[str, Any], dict[str, Any]]]


def read_run(folder: Path) -> Run:
    """A finished run from its folder.

    Raises:
        NotAvailableError: it is not finished, or no run.
    """
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        lines = (folder / ITEMS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise NotAvailableError(
            f"{folder} holds no finished run: there is no {Path(str(error.filename)).name}. Run `truthkit eval` again "
            "with its --out; it goes on where it was."
        ) from None
    return Run(folder, summary, [json.loads(line) for line in lines])


def compare(before: Run, after: Run, *, seed: int = 0) -> Comparison:
    """The second run against the first, item by item.

    Raises:
        ArgumentError: the runs have no items in common, or belong to different tasks.
    """
    tasks = before.summary["config"]["task"], after.summary["config"]["task"]
    if tasks[0] != tasks[1]:
        raise ArgumentError(f"{before.folder} is a run of {tasks[0]}, {after.folder} of {tasks[1]}.")
    other = {item["key"]: item for item in after.items}
    pairs = [(item, other[item["key"]]) for item in before.items if item["key"] in other]
    if not pairs:
        raise ArgumentError(
            f"{before.folder} and {after.folder} have no items in common: other data, or other prompts."
        )
    clusters = [item["cluster"] for item, _ in pairs]
    changes = {}
    for name in (name for name in pairs[0][0] if all(_is_number(item.get(name)) for pair in pairs for item in pair)):
        old, new = (np.array([[1.0, float(pair[side][name])] for pair in pairs]) for side in (0, 1))
        changes[name] = paired_bootstrap(old, new, _mean, clusters, seed=seed)["mean"]
    judged = all(isinstance(item.get("correct"), bool) for pair in pairs for item in pair)
    if not judged:
        return Comparison(changes, None, [], [])
    right = [[item["correct"] for item in side] for side in zip(*pairs, strict=True)]
    return Comparison(
        changes,
        mcnemar(*right),
        [pair for pair in pairs if pair[1]["correct"] and not pair[0]["correct"]],
        [pair for pair in pairs if pair[0]["correct"] and not pair[1]["correct"]],
    )


def _mean(totals: FloatArray) -> Mapping[str, FloatArray]:
    return {"mean": totals[..., 1] / totals[..., 0]}


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float)
