"""Where the images of a benchmark are."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from truthkit.errors import ArgumentError, NotAvailableError

ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}


def image_folder(given: Path | None, data: Path, task: str) -> Path:
    """The folder that the user gave, or `images` beside the data.

    Raises:
        ArgumentError: there is neither.
        NotAvailableError: the given one is no folder.
    """
    beside = (data if data.is_dir() else data.parent) / "images"
    if given is None:
        if not beside.is_dir():
            raise ArgumentError(f"{task} asks about images; pass their folder with --images.")
        return beside
    if not given.is_dir():
        raise NotAvailableError(f"--images is {given}, which is no folder.")
    return given


def find_image(folder: Path, name: str) -> str:
    """The path of an image in a folder or in a folder of it, with or without an ending in its name."""
    if (folder / name).is_file():
        return str(folder / name)
    if found := _pictures(folder).get(name) or _pictures(folder).get(Path(name).stem):
        return found
    raise NotAvailableError(f"{folder} has no image {name}; pass the folder that holds it with --images.")


@cache
def _pictures(folder: Path) -> dict[str, str]:
    """Paths of all images under a folder, by name and by name without ending."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in ENDINGS:
            found.setdefault(path.name, str(path))
            found.setdefault(path.stem, str(path))
    return found
