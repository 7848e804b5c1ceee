"""All pages of a study into its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from truthkit.errors import MissingExtraError
from truthkit.figures import check_matplotlib
from truthkit.files.writing import replacing, writing
from truthkit.study.pages.contents import Study
from truthkit.study.pages.csv_table import csv_table
from truthkit.study.pages.forest_picture import save_forest
from truthkit.study.pages.heat_map_picture import save_map
from truthkit.study.pages.latex import latex
from truthkit.study.pages.markdown import markdown
from truthkit.study.pages.page import page
from truthkit.study.pages.plane_picture import save_plane
from truthkit.study.pages.reading import read_study

_TEXTS: dict[str, Callable[[Study], str]] = {
    "report.html": page,
    "table.md": markdown,
    "table.csv": csv_table,
    "table.tex": latex,
}
_PICTURES: dict[str, Callable[[Study, Path], None]] = {
    "forest.png": save_forest,
    "plane.png": save_plane,
    "tasks.png": save_map,
}


def write_pages(folder: Path) -> list[Path]:
    """Write a study's page, tables and pictures beside its `study.json`, and return their paths.

    Without matplotlib there are no pictures, and those of an earlier `study.json` are removed: they would show other
    figures than the page.

    Raises:
        NotAvailableError: there is no `study.json`, or the folder cannot be written to.
        ArgumentError: `study.json` is not one that `truthkit study` writes.
    """
    study = read_study(folder)
    written = []
    for name, text in _TEXTS.items():
        _write(folder / name, text(study))
        written.append(folder / name)
    try:
        check_matplotlib()
    except MissingExtraError:
        with writing(folder):
            for name in _PICTURES:
                (folder / name).unlink(missing_ok=True)
        return written
    for name, save in _PICTURES.items():
        save(study, folder / name)
        written.append(folder / name)
    return written


def _write(path: Path, text: str) -> None:
    with writing(path), replacing(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
