"""Pictures of the report and of the app for README and documentation: the real thing, on the bundled models.

    python docs/tools/pictures.py               # all, into docs/assets; three minutes on an idle machine
    python docs/tools/pictures.py app --out /tmp

Models, seeds and items are fixed, so only the times in a picture, and what changed in truthkit, differ from run to run.
The report is of `recipes/ritual.py` on drawn scenes; a run that was stopped goes on where it was, in build/pictures.
It needs a Chromium on PATH.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from browser import Browser, NoBrowser, browser, find  # beside this file
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "pictures"
MOST_BYTES = 150_000
SCENES = 60
SHOWN = ("greedy", "sampling", "VCD", "M3ID", "RITUAL")
"""The rows of the recipe that the report shows: a picture has no room for ten."""

QUESTION = "Describe the image."


def main(argv: Sequence[str] | None = None) -> int:
    """Make what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MADE)} (default: all)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "assets", help="folder (default: docs/assets)")
    args = parser.parse_args(argv)
    if unknown := [name for name in args.names if name not in MADE]:
        parser.error(f"there is no picture {unknown[0]!r}; expected {' or '.join(MADE)}")
    try:
        find()
    except NoBrowser as error:
        print(f"pictures: {error}", file=sys.stderr)
        return 1
    WORK.mkdir(parents=True, exist_ok=True)
    for name in args.names or MADE:
        with browser() as page:
            for title, picture in MADE[name](page):
                path = args.out / f"{title}.png"
                path.write_bytes(picture)
                print(f"{path}, {len(picture):,} bytes")
    return 0


def report(page: Browser) -> Iterator[tuple[str, bytes]]:
    """The report's beginning, and its items: captions with what they invent, those that flipped."""
    runs, made = WORK / "ritual", WORK / "report.html"
    _run("recipes/ritual.py", "--out", runs, "--scenes", SCENES, "--seed", 0)
    folders = [runs / task / name for task in ("pope", "chair") for name in SHOWN]
    _run("-m", "truthkit.cli", "report", *folders, "--out", made)
    page.open(made.as_uri(), height=960)
    yield "report", small(page.picture())
    page.open(made.as_uri(), height=820, dark=True)
    page.run(
        "const items = document.querySelector('#i1'); items.open = true;"
        "items.querySelector('.on-flip').click(); items.scrollIntoView()"
    )
    yield "report-items", small(page.picture())


def app(page: Browser) -> Iterator[tuple[str, bytes]]:
    """The app with a scene that it drew, described under its decoders."""
    with serving("--model", "scene-vlm") as url:
        page.open(url, height=1000)
        page.wait("!document.querySelector('#main').hidden")
        page.run("document.querySelector('#scene').click()")
        page.wait("document.querySelector('#thumbs').children.length > 0")
        page.run(
            f"const prompt = document.querySelector('#prompt'); prompt.value = {QUESTION!r};"
            "prompt.dispatchEvent(new Event('input', {bubbles: true})); document.querySelector('#run').click()"
        )
        page.wait("!document.querySelector('#cancel').hidden")
        page.wait("document.querySelector('#cancel').hidden", seconds=180)
        page.run("window.scrollTo(0, 0)")
        yield "app", small(page.picture())


MADE = {"report": report, "app": app}


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """The address of an app on a free port, ended behind the block."""
    command = [sys.executable, "-m", "truthkit.cli", "app", "--port", "0", *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = next((found for found in process.stdout if "http" in found), "")
        if not (address := re.search(r"https?://\S+", line)):
            raise RuntimeError(f"the app did not start: {line!r}")
        yield address[0]
    finally:
        process.terminate()
        process.wait(30)


def small(picture: bytes) -> bytes:
    """A PNG of at most `MOST_BYTES`: in full colour, or in as many colours as fit."""
    with Image.open(io.BytesIO(picture)) as opened:
        image = opened.convert("RGB")
    for colours in (0, 256, 128, 64):
        content = io.BytesIO()
        reduced = image.quantize(colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE) if colours else image
        reduced.save(content, "png", optimize=True)
        if content.tell() <= MOST_BYTES:
            return content.getvalue()
    raise RuntimeError(f"a picture has {content.tell():,} bytes with {colours} colours; make its window smaller.")


def _run(*words: object) -> None:
    """A command of this checkout in Python; what it prints goes nowhere, what it complains of is shown."""
    subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    raise SystemExit(main())
