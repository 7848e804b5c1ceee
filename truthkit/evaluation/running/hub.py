"""Benchmarks from the Hugging Face hub, as the files that the scorers read.

A data set is fetched once, through `datasets`, which runs no code of the repository's, and written as the benchmark's
own files, images beside them, into `truthkit`'s cache. From then on that folder is what runs read and what their
checksums are of; delete it to fetch the data anew.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from truthkit.errors import ArgumentError, MissingExtraError, NotAvailableError, TruthkitError
from truthkit.files.reading import read_json
from truthkit.files.writing import content_key, write_atomically
from truthkit.models.hub import Repository, refusal, resolve, said

Row = dict[str, Any]


@dataclass(frozen=True)
class HubFile:
    """One file made of a configuration's rows.

    Attributes:
        config: the configuration; None where there is but one.
        record: from a row to the file's record; a missing column is a KeyError.
        picture: the path, without ending, that a row's image gets below `images`; None where there are no images.
        split: where it is another than the benchmark's.
    """

    config: str | None
    record: Callable[[Row], Row]
    picture: Callable[[Row], str] | None = None
    split: str | None = None


@dataclass(frozen=True)
class HubData:
    """Where a benchmark is on the hub, and what files it becomes.

    Attributes:
        name: the canonical repository.
        split: of all its configurations, where a file names no other.
        files: by name, `.json` for an array of records or `.csv`.
    """

    name: str
    split: str
    files: dict[str, HubFile]


def is_hub(text: str) -> bool:
    """Whether `--data` names the hub: `hub`, or `hub:` and a repository or a download of one."""
    return text == "hub" or text.startswith("hub:")


def fetch(text: str, data: HubData) -> Path:
    """The data that `hub` or `hub:NAME` stands for: its file in the cache, or its folder where it is several files.

    NAME is a repository of the same layout, `NAME@REVISION` one at a branch, tag or commit, or a folder that one was
    downloaded to. The name of the folder in the cache ends in the repository's commit.

    Raises:
        NotAvailableError: the hub can't be reached, has no such data set, or it is damaged.
        ArgumentError: it has other columns, or no such revision.
        MissingExtraError: `datasets` is not installed.
    """
    from truthkit.models.store import cache_root

    name = text.partition(":")[2] or data.name
    local = Path(name).is_dir()
    root = cache_root() / "data"
    repository = None
    try:
        repository = None if local else resolve(name, kind="dataset")
        state = _state(Path(name)) if repository is None else repository.commit[:16]
        folder = root / _folder_name(name, data, state)
    except NotAvailableError as error:
        made = sorted(root.glob(_folder_name(name, data, "?" * 16)), key=lambda path: path.stat().st_mtime)
        if not made or "@" in name:
            raise
        folder = made[-1]
        warnings.warn(f"{error} What was fetched before is read: {folder}.", stacklevel=2)
    if not folder.is_dir():
        try:
            _make(folder, name, data, repository)
        except TruthkitError:
            raise
        except OSError as error:
            raise NotAvailableError(
                f"{folder} cannot be written: {error.strerror or error}. Make room, or set TRUTHKIT_CACHE to a folder "
                "that has some."
            ) from error
    return folder / next(iter(data.files)) if len(data.files) == 1 else folder


def _make(folder: Path, name: str, data: HubData, repository: Repository | None) -> None:
    """Write all files beside `folder`, then move them there: it is whole or not there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    try:
        for file, layout in data.files.items():
            rows = _rows(name, layout.config, layout.split or data.split, repository)
            place = f"{name}, {layout.config + ' ' if layout.config else ''}row"
            _write(part / file, _records(rows, layout, part / "images", place))
        if repository is not None:
            repository.remember()
            about = {"repository": repository.name, "commit": repository.commit}
            write_atomically(_beside(folder), about)
        part.chmod(0o755)
        if not folder.is_dir():  # else another process was faster
            part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _folder_name(name: str, data: HubData, state: str) -> str:
    """One for each benchmark's layout of a repository at a commit."""
    files = [[file, made.config, *filter(None, [made.split])] for file, made in data.files.items()]
    layout = content_key(data.split, files)[:8]
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '--', name.partition('@')[0].strip('./'))}-{layout}-{state}"


def source_of(path: Path) -> dict[str, str] | None:
    """The repository and the commit that a path from `fetch` is of; None for other files."""
    for folder in (path.absolute(), path.absolute().parent):
        with suppress(NotAvailableError, ArgumentError):
            found: dict[str, str] = read_json(_beside(folder))
            return found
    return None


def _beside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.source")


def _state(folder: Path) -> str:
    """Changes when a file of the folder does."""
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))]
    return content_key(str(folder.absolute()), stats)


def _rows(name: str, config: str | None, split: str, repository: Repository | None) -> Iterator[Row]:
    """The rows of a split, images as the bytes of their files."""
    try:
        from datasets import Image, load_dataset
    except ImportError:
        raise MissingExtraError("data from the hub needs datasets: pip install 'truthkit[eval]'.") from None
    where: dict[str, Any] = {"path": name, "streaming": True}
    if repository is not None and repository.files is None:
        where["path"] = str(repository.folder)  # no more questions to a hub that did not answer
    elif repository is not None:
        where = {"path": repository.name, "revision": repository.commit}
    try:
        rows = load_dataset(name=config, split=split, **where)
        pictures = [column for column, kind in (rows.features or {}).items() if isinstance(kind, Image)]
        for column in pictures:
            rows = rows.cast_column(column, Image(decode=False))
        yield from rows
    except Exception as error:  # `datasets` lets through what pyarrow, fsspec and the hub's client raise
        raise _explanation(name, config, split, repository, error) from error


def _explanation(
    name: str, config: str | None, split: str, repository: Repository | None, error: Exception
) -> NotAvailableError:
    """The cause, and the file to delete where one is damaged."""
    if repository is not None and (refused := refusal(error, repository)):
        return NotAvailableError(str(refused))
    folder = Path(name) if repository is None else repository.folder
    for file in sorted(folder.rglob("*.parquet")):
        if not _is_parquet(file):
            again = "download it again" if repository is None else "run the same again: it is fetched anew"
            return NotAvailableError(
                f"{file.name} of the data set {name!r} is damaged, cut off perhaps: delete {file.resolve()} and "
                f"{again}."
            )
    part = f"configuration {config!r}, split {split!r}" if config else f"split {split!r}"
    return NotAvailableError(
        f"the data set {name!r}, {part}, cannot be read: {said(error)}. Where there is a network, run `hf download "
        f"{name} --repo-type dataset --local-dir FOLDER`, and pass --data hub:FOLDER, or pass the benchmark's own "
        "files."
    )


def _is_parquet(file: Path) -> bool:
    import pyarrow
    from pyarrow import parquet

    try:
        for batch in parquet.ParquetFile(file).iter_batches():
            batch.validate()
    except (pyarrow.ArrowException, OSError):
        return False
    return True


def _records(rows: Iterable[Row], layout: HubFile, images: Path, place: str) -> Iterator[Row]:
    for number, row in enumerate(rows, 1):
        try:
            record = layout.record(row)
            if layout.picture is not None:
                record["image"] = _save_image(row["image"], images, layout.picture(row), f"{place} {number}")
        except KeyError as error:
            raise ArgumentError(f"{place} {number}: no column {error}; its columns are {', '.join(row)}.") from None
        except (TypeError, AttributeError) as error:
            raise ArgumentError(f"{place} {number}: a column of another type than expected: {error}.") from None
        yield record


_ENDINGS = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"RI": ".webp"}


def _save_image(image: Any, folder: Path, name: str, place: str) -> str:
    """Write an image's file as it is, once; returns the last part of its name."""
    content = image.get("bytes") if isinstance(image, dict) else None
    if not content:
        raise ArgumentError(f"{place}: the column 'image' holds no image.")
    parts = [re.sub(r"[^\w.-]+", "_", part) for part in name.split("/")]
    if any(not part.strip(".") for part in parts):
        raise ArgumentError(f"{place}: {name!r} is no name for an image.")
    path = folder.joinpath(*parts)
    if path.suffix.lower() not in (".jpg", ".jpeg", ".png", ".webp"):
        path = path.with_name(path.name + _ENDINGS.get(content[:2], ".png"))
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return path.name


def _write(path: Path, records: Iterator[Row]) -> None:
    first = next(records, None)
    if first is None:
        raise NotAvailableError(f"there are no rows for {path.name}.")
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            writer = csv.DictWriter(file, list(first))
            writer.writeheader()
            writer.writerows(chain([first], records))
        else:
            json.dump(list(chain([first], records)), file, ensure_ascii=False, indent=0)
