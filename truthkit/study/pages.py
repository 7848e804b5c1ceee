"""What a study comes to, for people: `table.md`."""

from __future__ import annotations

from pathlib import Path

from truthkit.files.reading import read_json


def write_pages(folder: Path) -> list[Path]:
    """Write the table of the study in `folder`; returns what was written."""
    document = read_json(folder / "study.json")
    lines = ["| set | row | value | verdict |", "| --- | --- | ---: | --- |"]
    lines += [f"| {row['set']} | {row['label']} | {row['value']:.4g} | {row['verdict']} |" for row in document["rows"]]
    (folder / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [folder / "table.md"]
