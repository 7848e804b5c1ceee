"""A report into files, each in the form that its ending names."""

from __future__ import annotations

from pathlib import Path

from truthkit.errors import ArgumentError, NotAvailableError
from truthkit.evaluation.report.contents import Report
from truthkit.figures import ENDINGS as PICTURES
from truthkit.files.writing import replacing

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
    try:
        with replacing(path) as part:
            match path.suffix.lower():
                case ".html":
                    from truthkit.evaluation.report.page import page

                    part.write_text(page(report), encoding="utf-8")
                case ".md":
                    from truthkit.evaluation.report.markdown import markdown

                    part.write_text(markdown(report), encoding="utf-8")
                case _:
                    from truthkit.evaluation.report.picture import save_picture

                    save_picture(report, part)
    except OSError as error:
        raise NotAvailableError(f"{path} cannot be written: {error.strerror or error}.") from None
