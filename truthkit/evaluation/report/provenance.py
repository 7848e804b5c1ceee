"""The foot of the page: how the numbers are to be read, and where they come from."""

from __future__ import annotations

from typing import Any

from truthkit.evaluation.report.caveats import outcomes
from truthkit.evaluation.report.contents import Entry, Report, Section
from truthkit.evaluation.report.document import listing
from truthkit.evaluation.report.words import seconds
from truthkit.markup import Markup, element, together

_LONG = ("first_prompt", "first_output", "command")
_TIMES = (("the run", "seconds"), ("its items", "seconds_of_items"))


def reading(report: Report) -> Markup:
    """What intervals and tests mean, and what they leave out."""
    return together(element("h2", "How to read this"), *[element("p", text) for text in notes(report)])


def notes(report: Report) -> list[str]:
    """The same as plain sentences."""
    found = [
        "Intervals are 95 % percentile bootstrap intervals that draw whole images or questions, 10,000 times; where a "
        "share is the same in every draw, Wilson's. Tests compare the same items in both runs and draw them the same "
        "way, so a difference can be certain where the two intervals overlap.",
        "Costs are wall-clock seconds of a batch shared out over its items; their intervals draw batches.",
    ]
    if any(entry.run.summary["config"].get("sample") for section in report.sections for entry in section.entries):
        found.append(
            "Sampled runs answer every item once. Their intervals say nothing of what another seed would have drawn."
        )
    return found


def provenance(report: Report) -> Markup:
    """Settings and origin of every run."""
    blocks: list[str | None] = []
    for section in report.sections:
        common, own = facts(section)
        blocks += [element("h3", section.title), listing(common)]
        blocks += [element("details", element("summary", label), listing(rest)) for label, rest in own.items() if rest]
    return together(element("h2", "Where it comes from"), *blocks)


def facts(section: Section) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """What all runs of a section have in common, and by label what is each one's own."""
    known = {entry.label: _facts(entry, outcomes(entry.run, section.benchmark)) for entry in section.entries}
    first, *others = known.values()
    common = {name: text for name, text in first.items() if all(other.get(name) == text for other in others)}
    own = {label: {name: text for name, text in of.items() if name not in common} for label, of in known.items()}
    return common, own


def _facts(entry: Entry, results: set[str]) -> dict[str, str]:
    """All settings of a run and all that is known of its origin, as text."""
    summary = entry.run.summary
    config, about = {k: v for k, v in summary["config"].items() if k not in results}, summary["provenance"]
    found: dict[str, Any] = {"folder": entry.run.folder, **config}
    found |= {f"SHA-256 of {name}": digest for name, digest in about.get("data_sha256", {}).items()}
    found["versions"] = ", ".join(f"{name} {version}" for name, version in about.get("versions", {}).items())
    found |= {name: about[name] for name in ("items", "hardware") if name in about}
    found |= {f"time of {name}": seconds(about[key]) for name, key in _TIMES if isinstance(about.get(key), int | float)}
    found |= {name.replace("_", " "): about[name] for name in _LONG if name in about}
    return {name: "none" if value is None else str(value) for name, value in found.items() if value != ""}
