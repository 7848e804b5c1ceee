"""Two runs over the same items: which answers changed, and whether the change is more than chance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from truthkit.errors import ArgumentError, NotAvailableError
from truthkit.evaluation.report.checked import check_item, check_summary
from truthkit.evaluation.report.rescore import rescore
from truthkit.evaluation.report.words import run_name
from truthkit.evaluation.running.records import ITEMS, SUMMARY
from truthkit.files.json_text import NotJson, parse, shown
from truthkit.files.reading import read_json, read_text
from truthkit.statistics.intervals import Difference, McNemar, mcnemar, paired_bootstrap

Pair = tuple[dict[str, Any], dict[str, Any]]
"""The same item in two runs."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: where it is.
        summary: the contents of `summary.json`.
        items: the lines of `items.jsonl`; none, where the task has no scores of single items.
    """

    folder: Path
    summary: dict[str, Any]
    items: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """Decoder and temperature: "vcd", "vcd, sampled at 1", or "sampling at 1" for the model alone."""
        return run_name(self.summary["config"])


@dataclass(frozen=True)
class Comparison:
    """What changed from one run to another, over the items that both have.

    Attributes:
        shared: how many these are.
        before: the first run's metrics on them.
        changes: every metric's paired difference.
        answers: McNemar's test of right and wrong, where items are either.
        gained, lost: items right in the second run only and in the first only.
    """

    shared: int
    before: dict[str, float]
    changes: dict[str, Difference]
    answers: McNemar | None
    gained: list[Pair]
    lost: list[Pair]


def read_run(folder: Path) -> Run:
    """A finished run from its folder.

    Raises:
        NotAvailableError: it is not finished, or no run.
        ArgumentError: its files are not those that `truthkit eval` writes; the message says what is amiss.
    """
    for name in (SUMMARY, ITEMS):
        if not (folder / name).is_file():
            raise NotAvailableError(
                f"{folder} holds no finished run: there is no {name}. Run `truthkit eval` again "
                "with its --out; it goes on where it was."
            )
    summary = read_json(folder / SUMMARY)
    _check(summary, folder / SUMMARY)
    check_summary(summary, folder / SUMMARY)
    for name, interval in summary["intervals"].items():
        summary["intervals"][name] = [math.nan if end is None else end for end in interval]
        if summary["metrics"].get(name, 0) is None:
            summary["metrics"][name] = math.nan
    items = []
    for number, line in enumerate(read_text(folder / ITEMS).split("\n"), 1):
        if not line.strip():
            continue
        place = f"{folder / ITEMS}, line {number}"
        try:
            items.append(parse(line))
        except NotJson as error:
            raise ArgumentError(f"{place}: {error}.") from None
        if not isinstance(items[-1], dict) or not {"key", "cluster", "prompt", "output"} <= items[-1].keys():
            raise ArgumentError(f"{place}: no item; expected key, cluster, prompt and output.")
        check_item(items[-1], place)
    return Run(folder, summary, items)


def compare(before: Run, after: Run, *, seed: int = 0) -> Comparison:
    """The second run against the first, item by item.

    Raises:
        ArgumentError: the runs have no items in common, or belong to different tasks; or what they have in common
            cannot be scored.
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
    names = {*before.summary["metrics"], *after.summary["metrics"]}
    old, new = (
        rescore([pair[side] for pair in pairs], run.summary["config"], others=sorted(names))
        for side, run in enumerate((before, after))
    )
    changes = paired_bootstrap(old.counts, new.counts, old.measure, old.clusters, seed=seed, measure_after=new.measure)
    judged = all(isinstance(item.get("correct"), bool) for pair in pairs for item in pair)
    right = [[item["correct"] for item in side] for side in zip(*pairs, strict=True)] if judged else []
    return Comparison(
        len(pairs),
        old.metrics,
        changes,
        mcnemar(*right) if judged else None,
        [pair for pair in pairs if judged and pair[1]["correct"] and not pair[0]["correct"]],
        [pair for pair in pairs if judged and pair[0]["correct"] and not pair[1]["correct"]],
    )


def _check(summary: Any, path: Path) -> None:
    """Raise an `ArgumentError` unless this is what `truthkit eval` writes."""
    for name in ("metrics", "intervals", "config", "provenance"):
        if not isinstance(summary, dict) or not isinstance(summary.get(name), dict):
            raise ArgumentError(f"{path} is no summary of `truthkit eval`: it has no {name!r}.")
    for name in ("task", "model", "decoder"):
        if not isinstance(summary["config"].get(name), str):
            raise ArgumentError(f"{path} is no summary of `truthkit eval`: its config has no {name!r}.")
    if not summary["metrics"]:
        raise ArgumentError(f"{path} has no metrics.")
    for name, value in summary["metrics"].items():
        match [value, summary["intervals"].get(name)]:
            case [int() | float() | None, [int() | float() | None, int() | float() | None]]:
                continue
            case other:
                raise ArgumentError(
                    f"{path}: {name!r} is {shown(other)}; expected a number and its interval, two numbers."
                )
