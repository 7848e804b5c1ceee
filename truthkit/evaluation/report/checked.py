"""What `summary.json` and the lines of `items.jsonl` have to hold, checked before anything is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from truthkit.files.shapes import INTEGER, NUMBER, TEXT, TRUTH, check, optional

_SUMMARY = {
    "headline": optional(TEXT),
    "n": {"*": INTEGER},
    "units": {"*": TEXT},
    "outcomes": [TEXT],
    "config!": {
        "task!": TEXT,
        "model!": TEXT,
        "decoder!": TEXT,
        "revision": optional(TEXT),
        "sample": TRUTH,
        "temperature": NUMBER,
        "unparsed": optional(INTEGER),
        "unscored": optional(INTEGER),
    },
    "provenance!": {
        "data_sha256": {"*": TEXT},
        "versions": {"*": TEXT},
        "hardware": optional(TEXT),
        "seconds": NUMBER,
        "seconds_of_items": NUMBER,
    },
}
_ITEM = {"key!": TEXT, "cluster!": TEXT, "prompt!": TEXT, "images": [TEXT]}


def check_summary(summary: Any, path: Path) -> None:
    """Raise an `ArgumentError` unless settings and provenance are those of `truthkit eval`."""
    check(summary, _SUMMARY, str(path))
    if summary["config"].get("sample"):
        check(summary["config"], {"temperature!": NUMBER}, f"the config of {path}")


def check_item(item: Any, place: str) -> None:
    """Raise an `ArgumentError` unless this is a line that `truthkit eval` writes; scorers add fields of their own."""
    check(item, _ITEM, place)
