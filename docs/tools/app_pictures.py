"""The pictures of `truthkit app` in the documentation: the real page with scene-vlm, in a Chromium that is installed.

    .venv/bin/python docs/tools/app_pictures.py

Two minutes at most. The pictures change with the page, the model and the fonts of the machine; look at them before they
are committed.
"""

from __future__ import annotations

import io
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from playwright.sync_api import sync_playwright

import truthkit as tk
from truthkit.app.engine import Engine
from truthkit.app.server import Server

ASSETS = Path(__file__).resolve().parents[1] / "assets"
EXAMPLE = "Scene 4"
COLOURS = 255


@contextmanager
def serving() -> Iterator[str]:
    """The page's address."""
    server = Server(port=0)
    thread = threading.Thread(target=server.serve, args=(Engine(*tk.load("scene-vlm"), "scene-vlm"),))
    thread.start()
    try:
        yield server.url
    finally:
        server.shutdown()
        thread.join()


def opened(browser: Any, url: str, width: int, height: int, scheme: str) -> Any:
    """The page with the example's answers."""
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.goto(url)
    page.get_by_role("button", name=EXAMPLE).click()
    page.get_by_text("filled in, not run yet").wait_for()
    page.keyboard.press("Control+Enter")
    page.locator("#status").filter(has_text=re.compile("Done after")).wait_for()
    return page


def save(page: Any, name: str, **options: Any) -> None:
    """A small PNG file of what the page shows."""
    image = Image.open(io.BytesIO(page.screenshot(**options))).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(ASSETS / name, optimize=True)
    print(name, image.size, (ASSETS / name).stat().st_size)


def main() -> None:
    """Make all of them."""
    torch.set_num_threads(1)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with serving() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = opened(browser, url, 1280, 900, "light")
        page.select_option("#mode", "entropy")
        page.get_by_text("Tokens against the image").first.click()
        page.locator(".patches").wait_for()
        page.get_by_text("The image under noise").click()
        page.locator(".token", has_text="keyboard").first.focus()
        page.keyboard.press("Escape")
        page.wait_for_timeout(500)
        save(page, "app.png", full_page=True)
        page = opened(browser, url, 1280, 800, "dark")
        page.select_option("#mode", "words")
        save(page, "app-words.png", clip={"x": 370, "y": 50, "width": 910, "height": 520})
        browser.close()


if __name__ == "__main__":
    main()
