"""Tables with a head: CSV, TSV and Excel's .xlsx; every cell is text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from truthkit.errors import ArgumentError, MissingExtraError, NotAvailableError

ENDINGS = (".csv", ".tsv", ".xlsx")


def rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The line where each row of a CSV or TSV ends, and its cells by column; a row that is too short has empty ones.

    A head without commas that has semicolons is divided by these.

    Raises:
        ArgumentError: quotes that do not close, a column twice in the head, or a row that is longer than the head.
    """
    if path.suffix.lower() == ".tsv":
        try:
            found = list(_read(path, text, "\t"))
        except ArgumentError:
            found = list(_read(path, text, "\t", quoting=csv.QUOTE_NONE))
    else:
        head = text.partition("\n")[0]
        found = list(_read(path, text, ";" if "," not in head and ";" in head else ","))
    yield from found


def sheet(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of the first sheet of an .xlsx, and their numbers.

    Raises:
        MissingExtraError: pandas or openpyxl is missing.
        ArgumentError: it is no such file.
    """
    if missing := [name for name in ("pandas", "openpyxl") if find_spec(name) is None]:
        raise MissingExtraError(
            f"{path} needs {' and '.join(missing)}: `pip install pandas openpyxl`, or save the sheet as CSV."
        )
    import pandas

    try:
        frame = pandas.read_excel(path, dtype=str, keep_default_na=False)
    except OSError as error:
        raise NotAvailableError(f"{path} cannot be read: {error.strerror or error}.") from None
    except Exception as error:  # openpyxl raises whatever the bytes make it raise
        raise ArgumentError(f"{path} is no readable .xlsx ({type(error).__name__}: {error!s:.100}).") from error
    for number, row in enumerate(frame.to_dict("records"), 2):
        yield number, {str(name): str(cell) for name, cell in row.items()}


def _read(
    path: Path, text: str, delimiter: str, quoting: int = csv.QUOTE_MINIMAL
) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)  # type: ignore[arg-type]
    head: list[str] = []
    try:
        for cells in reader:
            if not any(cells):
                continue
            if not head:
                head = [cell.strip() for cell in cells]
                if twice := [name for name in head if name and head.count(name) > 1]:
                    raise ArgumentError(f"{path.name}: the head has the column {twice[0]!r} twice.")
                continue
            if len(cells) > len(head):
                raise ArgumentError(
                    f"{path.name}, line {reader.line_num}: {len(cells)} cells, but the head has {len(head)} columns; "
                    "put cells that hold the separator in quotes."
                )
            yield reader.line_num, dict(zip(head, cells + [""] * (len(head) - len(cells)), strict=True))
    except csv.Error as error:
        raise ArgumentError(f"{path.name}, line {reader.line_num}: not a table: {error}.") from None
