"""Pictures of the report and of the app for README and documentation: the real thing, on the bundled models.

    python docs/tools/pictures.py               # all, into docs/assets; three minutes on an idle machine
    python docs/tools/pictures.py app --out /tmp

Models, seeds and items are fixed, so only the times in a picture, the fonts, and what changed in truthkit differ from
run to run; look at the pictures before they are committed. The report is of `recipes/ritual.py` on drawn scenes; a run
that was stopped goes on where it was, in build/pictures. It needs a Chromium on PATH.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from playwright.sync_api import sync_playwright

import truthkit as tk
from truthkit.app.engine import Engine
from truthkit.app.server import Server

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "pictures"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
MOST_BYTES = 150_000
SCENES = 60
SHOWN = ("greedy", "sampling", "VCD", "M3ID", "RITUAL")
"""The rows of the recipe that the report shows: a picture has no room for ten."""

EXAMPLE = "Scene 4"


def main(argv: Sequence[str] | None = None) -> int:
    """Make what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MADE)} (default: all)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "assets", help="folder (default: docs/assets)")
    args = parser.parse_args(argv)
    if unknown := [name for name in args.names if name not in MADE]:
        parser.error(f"there is no picture {unknown[0]!r}; expected {' or '.join(MADE)}")
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        print(
            f"pictures: no headless browser on PATH; install Chromium, as one of {', '.join(CHROMIUM)}.",
            file=sys.stderr,
        )
        return 1
    torch.set_num_threads(1)
    WORK.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name in args.names or MADE:
            for title, picture in MADE[name](browser):
                path = args.out / f"{title}.png"
                path.write_bytes(small(picture))
                print(f"{path}, {path.stat().st_size:,} bytes")
        browser.close()
    return 0


def report(browser: Any) -> Iterator[tuple[str, bytes]]:
    """The report's beginning, and its items: captions with what they invent, those that flipped."""
    runs, made = WORK / "ritual", WORK / "report.html"
    _run("recipes/ritual.py", "--out", runs, "--scenes", SCENES, "--seed", 0)
    folders = [runs / task / name for task in ("pope", "chair") for name in SHOWN]
    _run("-m", "truthkit.cli", "report", *folders, "--out", made)
    page = browser.new_page(viewport={"width": 1280, "height": 960}, color_scheme="light")
    page.goto(made.as_uri())
    yield "report", page.screenshot()
    page = browser.new_page(viewport={"width": 1280, "height": 820}, color_scheme="dark")
    page.goto(made.as_uri())
    page.evaluate(
        "const items = document.querySelector('#i1'); items.open = true;"
        "items.querySelector('.on-flip').click(); items.scrollIntoView()"
    )
    yield "report-items", page.screenshot()


def app(browser: Any) -> Iterator[tuple[str, bytes]]:
    """The app with an example's answers, coloured by entropy; and their words against each other."""
    with serving() as url:
        page = _answered(browser, url, 1280, 900, "light")
        page.select_option("#mode", "entropy")
        page.get_by_text("Tokens against the image").first.click()
        page.locator(".patches").wait_for()
        page.get_by_text("The image under noise").click()
        page.locator(".token", has_text="keyboard").first.focus()
        page.keyboard.press("Escape")
        page.wait_for_timeout(500)
        yield "app", page.screenshot(full_page=True)
        page = _answered(browser, url, 1280, 800, "dark")
        page.select_option("#mode", "words")
        yield "app-words", page.screenshot(clip={"x": 370, "y": 50, "width": 910, "height": 520})


MADE = {"report": report, "app": app}


@contextmanager
def serving() -> Iterator[str]:
    """The app's address."""
    server = Server(port=0)
    thread = threading.Thread(target=server.serve, args=(Engine(*tk.load("scene-vlm"), "scene-vlm"),))
    thread.start()
    try:
        yield server.url
    finally:
        server.shutdown()
        thread.join()


def _answered(browser: Any, url: str, width: int, height: int, scheme: str) -> Any:
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.goto(url)
    page.get_by_role("button", name=EXAMPLE).click()
    page.get_by_text("filled in, not run yet").wait_for()
    page.keyboard.press("Control+Enter")
    page.locator("#status").filter(has_text=re.compile("Done after")).wait_for()
    return page


def small(picture: bytes) -> bytes:
    """A PNG of at most `MOST_BYTES`: in full colour, or in as many colours as fit."""
    with Image.open(io.BytesIO(picture)) as opened:
        image = opened.convert("RGB")
    for colours in (0, 256, 128, 64):
        content = io.BytesIO()
        reduced = image.quantize(colours, dither=Image.Dither.NONE) if colours else image
        reduced.save(content, "png", optimize=True)
        if content.tell() <= MOST_BYTES:
            return content.getvalue()
    raise RuntimeError(f"a picture has {content.tell():,} bytes with {colours} colours; make its window smaller.")


def _run(*words: object) -> None:
    """A command of this checkout in Python; what it prints goes nowhere, what it complains of is shown."""
    subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    raise SystemExit(main())
