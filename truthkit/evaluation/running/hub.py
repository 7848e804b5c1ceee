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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from truthkit.errors import ArgumentError, MissingExtraError, NotAvailableError, TruthkitError
from truthkit.files.writing import content_key

_PATIENCE = 5.0
"""Seconds to wait for the hub's first word: `datasets` itself would try for half a minute."""

Row = dict[str, Any]


@dataclass(frozen=True)
class HubFile:
    """One file made of a configuration's rows.

    Attributes:
        config: the configuration; None where there is but one.
        record: from a row to the file's record; a missing column is a KeyError.
        picture: the path, without ending, that a row's image gets below `images`; None where there are no images.
    """

    config: str | None
    record: Callable[[Row], Row]
    picture: Callable[[Row], str] | None = None


@dataclass(frozen=True)
class HubData:
    """Where a benchmark is on the hub, and what files it becomes.

    Attributes:
        name: the canonical repository.
        split: of all its configurations.
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

    NAME is a repository of the same layout, or a folder that one was downloaded to.

    Raises:
        NotAvailableError: the hub can't be reached, has no such data set, or it is damaged.
        ArgumentError: it has other columns.
        MissingExtraError: `datasets` is not installed.
    """
    from truthkit.models.store import cache_root

    name = text.partition(":")[2] or data.name
    local = Path(name).is_dir()
    folder = cache_root() / "data" / (_folder_name(name, _state(Path(name)) if local else None))
    if not folder.is_dir():
        if not local:
            _check_within_reach(name, data)
        try:
            _make(folder, name, data, local=local)
        except TruthkitError:
            raise
        except OSError as error:
            raise NotAvailableError(
                f"{folder} cannot be written: {error.strerror or error}. Make room, or set TRUTHKIT_CACHE to a folder "
                "that has some."
            ) from error
    return folder / next(iter(data.files)) if len(data.files) == 1 else folder


def _make(folder: Path, name: str, data: HubData, *, local: bool) -> None:
    """Write all files beside `folder`, then move them there: it is whole or not there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    try:
        for file, layout in data.files.items():
            rows = _rows(name, layout.config, data, local=local)
            place = f"{name}, {layout.config + ' ' if layout.config else ''}row"
            _write(part / file, _records(rows, layout, part / "images", place))
        part.chmod(0o755)
        if not folder.is_dir():  # else another process was faster
            part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _folder_name(name: str, state: str | None) -> str:
    return re.sub(r"[^\w.-]+", "--", name.strip("./")) + (f"-{state}" if state else "")


def _state(folder: Path) -> str:
    """Changes when a file of the folder does."""
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))]
    return content_key(str(folder.absolute()), stats)


def _check_within_reach(name: str, data: HubData) -> None:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    if constants.HF_HUB_OFFLINE:
        return
    try:
        HfApi().dataset_info(name, timeout=_PATIENCE)
    except GatedRepoError:
        raise NotAvailableError(
            f"the data set {name!r} is gated: ask for access at {constants.ENDPOINT}/datasets/{name} and log in with "
            "`hf auth login`."
        ) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise NotAvailableError(f"the hub has no data set {name!r}; --data hub is {data.name}.") from None
    except Exception as error:  # whatever the client in use raises: requests' errors, httpx's, OSError
        raise _unreachable(name, data, error) from error


def _unreachable(name: str, data: HubData, error: Exception) -> NotAvailableError:
    return NotAvailableError(
        f"the data set {name!r} can't be had from the hub ({_first_line(error)}). Where there is a network, run `hf "
        f"download {name} --repo-type dataset --local-dir FOLDER`, copy the folder here and pass --data hub:FOLDER; or "
        "pass the benchmark's own files. HF_HUB_OFFLINE=1 takes what `datasets` has kept."
    )


def _rows(name: str, config: str | None, data: HubData, *, local: bool) -> Iterator[Row]:
    """The rows of a split, images as the bytes of their files."""
    try:
        from datasets import Image, load_dataset
    except ImportError:
        raise MissingExtraError("data from the hub needs datasets: pip install 'truthkit[eval]'.") from None
    where = f"the data set {name!r}" + (f", configuration {config!r}" if config else "")
    try:
        rows = load_dataset(name, config, split=data.split, streaming=local)
        pictures = [column for column, kind in (rows.features or {}).items() if isinstance(kind, Image)]
        for column in pictures:
            rows = rows.cast_column(column, Image(decode=False))
        yield from rows
    except ConnectionError as error:
        raise _unreachable(name, data, error) from error
    except Exception as error:  # `datasets` lets through what pyarrow, fsspec and the hub's client raise
        raise NotAvailableError(
            f"{where}, split {data.split!r}, cannot be read: {_first_line(error)}. If a download was cut "
            "off, delete what is there and download it again."
        ) from error


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


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
