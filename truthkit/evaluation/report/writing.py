"""A report into files, each in the form that its ending names."""

from __future__ import annotations

from pathlib import Path

from truthkit.errors import ArgumentError, NotAvailableError
from truthkit.evaluation.report.contents import Report
from truthkit.figures import ENDINGS as PICTURES
from truthkit.files.writing import replacing, writing

ENDINGS = (".html", ".md", *PICTURES)


def check_path(path: Path) -> None:
    """Raise unless a report can be written there.

    Raises:
        ArgumentError: no such form.
        NotAvailableError: no such folder.
    """
    if path.suffix.lower() not in ENDINGS:
        raise ArgumentError(f"{path}: a report ends in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}.")
    if not path.parent.is_dir():
        raise NotAvailableError(f"{path}: there is no folder {path.parent}.")
    if path.is_dir():
        raise ArgumentError(f"{path} is a folder; expected a file to write.")


def write_report(report: Report, path: Path) -> None:
    """Write a page, Markdown or a picture.

    Raises:
        ArgumentError: the ending is none of `ENDINGS`.
        NotAvailableError: the folder is missing, or cannot be written to.
        MissingExtraError: a picture without matplotlib.
    """
    check_path(path)
    match path.suffix.lower():
        case ".html":
            from truthkit.evaluation.report.page import page

            _write_text(path, page(report))
        case ".md":
            from truthkit.evaluation.report.markdown import markdown

            _write_text(path, markdown(report))
        case _:
            from truthkit.evaluation.report.picture import save_picture

            save_picture(report, path)


def _write_text(path: Path, text: str) -> None:
    with writing(path), replacing(path) as part:
        part.write_text(text, encoding="utf-8")
