"""Where a study comes from, and how to repeat it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from truthkit.evaluation.report.words import NOTHING, counted, listed, seconds
from truthkit.study.pages import words
from truthkit.study.pages.contents import EvalSet, Row, Study

_FILES = {
    "study.toml": "the file that was run; others beside it are those that amended it",
    "plan.json": "what was decided before a test item was read: the split, the options chosen, versions",
    "looks.jsonl": "every reading of development and test items",
    "runs/": "every answer, in folders of truthkit eval",
    "study.json": "all results, from which this page, the tables and the pictures are made",
}


def how_to_read(study: Study) -> list[str]:
    """What figures mean, and what they leave out."""
    family = f"{words.adjusted(study)}'s correction for {counted(study.family, 'comparison')}"
    p = f"p at most {study.alpha:g} after {family}"
    found = [
        "Items were split by their content into development and test; families and images stay together. Options were "
        f"chosen on development items alone, and the figures here are of test items. {study.interval}s draw whole "
        f"clusters; tests compare the same items under both decoders{_flips(study)}. What stands against greedy is "
        "one family of comparisons, what stands against controls another.",
        f"Better means better than greedy and than the strongest of the method's own controls, both at {p}. Worse "
        "means worse than greedy by the same measure. Equivalent means that two one-sided tests place the difference "
        "from greedy within the margin that the study's file states. Everything else is “no evidence”, which is not "
        "evidence of no effect: the smallest detectable difference says what could have been missed.",
        "Differences are the row's value minus the other's; an arrow or a word says which direction is better. Their "
        "intervals are not corrected, so one may leave out zero where the verdict is “no evidence”.",
        "Costs are wall-clock seconds per item on one machine, as multiples of greedy's.",
    ]
    if any(row.settings.get("sampling") != "no" for one in study.sets for row in one.rows):
        found.append(
            "Rows that sample are means over their seeds; few seeds say little of what others would have drawn."
        )
    return found


def origin(study: Study) -> dict[str, str]:
    """All that is known of the whole study, as text by name."""
    known = {
        "level of tests": words.percent(study.alpha),
        "correction": f"{words.adjusted(study)}, {counted(study.family, 'comparison')}",
        "intervals": words.percent(study.level),
        "seed": str(study.seed),
    }
    others = {**study.settings, **study.provenance}
    return known | {_spaced(name): _text(name, value) for name, value in others.items() if value is not None}


def of_set(one: EvalSet) -> dict[str, str]:
    """What a set is."""
    known = {
        "set": one.id,
        "task": one.task,
        "model": one.model,
        "metric": f"{one.scale.title} {one.scale.metric.arrow}".rstrip(),
        "chance": one.scale.quantity(one.chance),
        "margin of equivalence": words.margin(one),
        "development": counted(one.development, "item"),
        "test": words.items(one),
    }
    return known | {f"SHA-256 of {name}": digest for name, digest in one.data.items()}


def of_row(row: Row) -> dict[str, str]:
    """A row's settings and its run."""
    known = dict(row.settings) | {
        "role": row.role,
        "control of": listed(list(row.control_of)) if row.control_of else "",
        "items": counted(row.items, "item"),
        "answers": f"{row.items_run:,}" if row.items_run else "",
        "time per item": seconds(row.seconds) if math.isfinite(row.seconds) else "",
        "times read": counted(row.looks, "look") if row.looks else "",
        "said": row.said,
        "runs" if len(row.folders) > 1 else "run": ", ".join(row.folders),
    }
    return {name: text for name, text in known.items() if text}


def repeat(study: Study) -> tuple[str, str]:
    """How to repeat it: a sentence, and the command."""
    command = study.provenance.get("command")
    shown = command if isinstance(command, str) and command else "truthkit study study.toml --out DIR"
    if isinstance(command, list):
        shown = " ".join(map(str, command))
    return (
        "The command below, with this folder's study.toml and the versions named here, makes the study again in a new "
        "folder. In this one it finds every run finished, answers nothing twice, and computes the figures again.",
        shown,
    )


def files() -> list[str]:
    """What else is in the folder."""
    return [f"{name}: {what}" for name, what in _FILES.items()]


def _flips(study: Study) -> str:
    flips = study.settings.get("flips")
    return f", by {flips:,} random flips of their clusters' signs" if isinstance(flips, int) else ""


def _text(name: str, value: Any) -> str:
    if name == "seconds" and isinstance(value, int | float):
        return seconds(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{part} {inner}" for part, inner in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value) if value != "" else NOTHING


def _spaced(name: str) -> str:
    known = {"seconds": "time", "study_sha256": "SHA-256 of study.toml"}
    return known.get(name, name.replace("_", " "))
