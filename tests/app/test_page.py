"""The page in headless Chromium: what is shown, by which keys, and that nothing becomes markup."""

from __future__ import annotations

import base64
import io
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.app.conftest import serving
from truthkit.app.engine import Engine
from truthkit.app.events import Emit
from truthkit.app.problems import Problem
from truthkit.app.request import RunRequest
from truthkit.app.server import Server
from truthkit.images.reading import read_image
from truthkit.scenes.questions import held_out
from truthkit.scenes.render import render

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")

EVIL = "<img src=x onerror=\"document.title='broken'\"><b>bold</b>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


OpenPage = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any) -> Iterator[OpenPage]:
    """Opens the page of a server; faults in its scripts fail the test."""
    opened: list[Any] = []
    faults: list[str] = []

    def opens(server: Server, width: int = 1280, fragment: str | None = None) -> Any:
        page = browser.new_page(viewport={"width": width, "height": 800})
        opened.append(page)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(server.url if fragment is None else server.url.partition("#")[0] + fragment)
        page.set_default_timeout(20_000)
        return page

    yield opens
    for page in opened:
        page.close()
    assert faults == []


class Scripted:
    """In the place of an engine: says what it is told, and waits where it is told."""

    def __init__(self, facts: dict[str, Any], events: list[dict[str, Any]]):
        self._facts, self._events = facts, events
        self.asked: list[RunRequest] = []
        self.waits = False
        self.refuses: list[Problem] = []

    def about(self) -> dict[str, Any]:
        return self._facts

    def run(self, request: RunRequest, emit: Emit, stop: Callable[[], bool]) -> None:
        self.asked.append(request)
        for event in self._events:
            emit(event)
        give_up = time.monotonic() + 20
        while self.waits and not stop():
            assert time.monotonic() < give_up
            time.sleep(0.01)
        emit({"event": "end", "cancelled": stop(), "seconds": 0.1})

    def problems(self, request: RunRequest, *, whole: bool = True) -> list[Problem]:
        return [one for one in self.refuses if whole or one.card is not None]

    def scene(self, seed: int | None = None) -> bytes:
        stream = io.BytesIO()
        Image.new("RGB", (8, 8), "blue").save(stream, "PNG")
        return stream.getvalue()


def token(text: str, pushed_by: str | None = None, index: int = 0) -> dict[str, Any]:
    push = None if pushed_by is None else 1.5
    view = {"name": pushed_by or "amateur", "layers": [2, 3], "push": push, "top": [[text, 0.5], [EVIL, 0.25]]}
    main = {"name": "main", "layers": [], "push": None if push is None else -0.5, "top": [[EVIL, 0.5]]}
    return {
        "event": "token",
        "index": index,
        "piece": text,
        "token": text,
        "id": 7,
        "probability": 0.5,
        "entropy": 1.25,
        "rank": 1 if pushed_by is None else 2,
        "push": 0.0 if pushed_by is None else 0.75,
        "instead_of": EVIL if pushed_by else None,
        "pushed_by": pushed_by,
        "views": [main, view],
        "combined": [[text, 0.5]],
    }


def answer(text: str, tokens: int, index: int = 0) -> dict[str, Any]:
    facts = {"finished": True, "tokens": tokens, "tokens_per_second": None, "parts_at": None, "objects": None}
    return {"event": "answer", "index": index, "text": text, **facts}


EVENTS = [
    {"event": "answering", "index": 0},
    token(EVIL, f"{EVIL} view"),
    token(" and"),
    token(" <script>document.title='broken'</script>", "noise"),
    answer(f"{EVIL} and <script>document.title='broken'</script>", 3),
    {"event": "answering", "index": 1},
    {"event": "error", "index": 1, "message": f"it failed: {EVIL}"},
]


@pytest.fixture
def scripted(engine: Engine) -> Scripted:
    return Scripted(engine.about() | {"amateurs": [EVIL]}, EVENTS)


@pytest.fixture
def scripted_page(scripted: Scripted, open_page: OpenPage) -> Iterator[Any]:
    with serving(scripted) as server:
        page = open_page(server)
        page.locator(".card").first.wait_for()
        yield page


def run(page: Any, prompt: str = "Who?") -> None:
    page.fill("#prompt", prompt)
    page.keyboard.press("Control+Enter")


def test_nothing_becomes_markup(scripted_page: Any, scripted: Scripted) -> None:
    page = scripted_page
    page.locator(".card select").first.select_option("icd")
    run(page, EVIL)
    page.get_by_text("1 of 2 failed").wait_for()
    assert scripted.asked[0].prompt == EVIL
    assert page.locator(".tokens").inner_text() == f"{EVIL} and <script>document.title='broken'</script>"
    assert page.locator(".card .error").inner_text() == f"it failed: {EVIL}"
    page.locator(".token").first.hover()
    assert EVIL.replace(" ", "␣") in page.locator("#detail").inner_text()
    assert page.locator(".tokens b, .tokens img, .error b, #detail img, #legend b, .card b, main script").count() == 0
    assert "broken" not in page.title()


def test_tokens_are_walked_by_keyboard(scripted_page: Any) -> None:
    page = scripted_page
    run(page)
    page.get_by_text("1 of 2 failed").wait_for()
    focused, detail = page.locator(".token:focus"), page.locator("#detail")
    page.locator(".token").first.focus()
    assert "token 1 of 3" in detail.inner_text()
    page.keyboard.press("ArrowRight")
    assert focused.inner_text().strip() == "and"
    assert "The model’s own first choice." in detail.inner_text()
    assert focused.get_attribute("aria-describedby") == "detail"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    assert "pushed by noise" in detail.inner_text()
    assert "+1.50" in detail.inner_text()
    page.keyboard.press("Escape")
    assert detail.is_hidden()
    page.keyboard.press("Home")
    assert "token 1 of 3" in detail.inner_text()
    assert page.locator(".token[tabindex='0']").count() == 1
    page.keyboard.press("Tab")
    assert detail.is_hidden()
    slots = page.locator(".token[data-slot]").evaluate_all("all => all.map((one) => one.dataset.slot)")
    assert len(set(slots)) == 2
    assert page.locator("#legend li").count() == 3


def test_escape_and_the_button_cancel(scripted_page: Any, scripted: Scripted) -> None:
    page, scripted.waits = scripted_page, True
    for cancel in (lambda: page.keyboard.press("Escape"), lambda: page.click("#cancel")):
        run(page)
        page.get_by_text("it failed").wait_for()
        assert page.locator("#cancel").is_visible()
        page.keyboard.press("Control+Enter")  # while one runs, no other begins
        cancel()
        page.get_by_text("Cancelled after").wait_for()
        assert page.locator("#cancel").is_hidden()
    assert len(scripted.asked) == 2


def test_the_place_in_the_line_is_shown(scripted: Scripted, open_page: OpenPage) -> None:
    scripted.waits = True
    with serving(scripted) as server:
        pages = [open_page(server) for _ in range(3)]
        for page, place in zip(pages, ("answers", "one run is before", "2 runs are before"), strict=True):
            page.locator(".card").first.wait_for()
            run(page)
            page.locator("#status").filter(has_text=re.compile(f"{place}|failed")).wait_for()
        assert "answers" in pages[0].locator("#status").inner_text()
        pages[1].click("#cancel")  # leaves the line
        pages[1].get_by_text("Cancelled.").wait_for()
        pages[2].locator("#status").filter(has_text="one run is before").wait_for()
        assert pages[2].locator(".answer").all_inner_texts() == ["Waiting: one run is before yours …"] * 2
        pages[0].keyboard.press("Escape")
        pages[0].get_by_text("Cancelled after").wait_for()
        pages[2].locator("#status").filter(has_text="answers").wait_for()
        pages[2].click("#cancel")
        pages[2].get_by_text("Cancelled after").wait_for()
    assert len(scripted.asked) == 2


def test_a_run_whose_time_is_over_says_so(scripted: Scripted, open_page: OpenPage) -> None:
    scripted.waits = True
    with serving(scripted, seconds=0.5) as server:
        page = open_page(server)
        page.locator(".card").first.wait_for()
        run(page)
        page.get_by_text("Stopped after").wait_for()
        assert "for 0.5 s are the most" in page.locator("#status").inner_text()


def test_cards_say_what_they_are(scripted_page: Any, scripted: Scripted) -> None:
    page = scripted_page
    page.select_option("#add", "lol")
    page.click("#add-button")
    card = page.locator(".card").nth(2)
    card.get_by_text("Options").click()
    card.get_by_text("Steering").click()
    card.get_by_label("omega", exact=True).fill("0.25")
    card.get_by_label("layers", exact=True).first.fill("1+2")
    card.get_by_label("dynamic").select_option("true")
    card.get_by_label("strength", exact=True).fill("-2")
    spec = "lol:layers=1+2,dynamic=true,omega=0.25"
    assert card.locator(".command").inner_text() == f"--decoder {spec} --steer tone.safetensors:-2,layers=2"
    page.get_by_label("Remove this decoder").first.click()
    page.select_option("#add", "written out …")
    page.click("#add-button")
    run(page)  # the empty field stops it
    assert scripted.asked == []
    page.locator(".card").last.get_by_label("Decoder", exact=True).last.fill("ritual:alpha=2+vcd")
    run(page)
    page.get_by_text("1 of 3 failed").wait_for()
    steered, lol, written = scripted.asked[0].cards
    assert steered.steering[0].strength == 1.5
    assert lol.spec().options == {"omega": 0.25, "layers": [1, 2], "dynamic": True}
    assert lol.steering[0].strength == -2.0
    assert written.spec().name == "ritual+vcd"


def test_errors_of_the_server_are_shown(scripted: Scripted, open_page: OpenPage) -> None:
    with serving(scripted) as server:
        page = open_page(server, fragment="#token=wrong")
        page.get_by_text("open the whole address").wait_for()
        page = open_page(server)
        page.locator(".card").first.wait_for()
        page.fill("#max_new_tokens", "5")
        page.evaluate("document.getElementById('max_new_tokens').max = ''")
        page.fill("#max_new_tokens", "99999")
        run(page)
        page.get_by_text("max_new_tokens is 99999").wait_for()
        page.get_by_text("Dismiss").click()
        assert page.locator("#alert").is_hidden()
        page.context.set_offline(True)
        run(page)
        page.get_by_text("truthkit app does not answer").wait_for()


_GIVE = """(name) => {
    const data = new DataTransfer();
    const bytes = Uint8Array.from(atob('%s'), (one) => one.charCodeAt(0));
    data.items.add(new File([bytes], `${name}.png`, { type: 'image/png' }));
    const event = name === 'drop' ? new DragEvent('drop', { dataTransfer: data, bubbles: true })
                                  : new ClipboardEvent('paste', { clipboardData: data, bubbles: true });
    document.getElementById(name === 'drop' ? 'cards' : 'prompt').dispatchEvent(event);
}"""


def test_images_are_dropped_pasted_and_removed(scripted_page: Any, scripted: Scripted) -> None:
    page = scripted_page
    stream = io.BytesIO()
    Image.new("RGB", (5, 4), "red").save(stream, "PNG")
    give = _GIVE % base64.b64encode(stream.getvalue()).decode()
    for name in ("drop", "paste"):
        page.evaluate(give, name)
        page.get_by_alt_text(f"{name}.png").wait_for()
    page.get_by_label("Remove drop.png").click()
    assert page.evaluate("document.activeElement.id") == "files"
    run(page)
    page.get_by_text("1 of 2 failed").wait_for()
    (image,) = map(read_image, scripted.asked[0].images.read())
    assert image.size == (5, 4)
    page.click("#scene")
    page.get_by_alt_text("scene.png").wait_for()
    assert page.locator("#thumbs li").count() == 1


def test_an_image_on_a_narrow_screen(engine: Engine, open_page: OpenPage, tmp_path: Path) -> None:
    """With the real model: dropped into RITUAL, its sheet shown, coloured by the vector, and nothing too wide."""
    file = tmp_path / "scene.png"
    render(held_out(1, seed=1)[0]).save(file)
    (tmp_path / "no image.png").write_bytes(b"<svg/>")
    with serving(engine) as server:
        page = open_page(server, width=360)
        page.locator(".card select").first.select_option("ritual")
        page.fill("#max_new_tokens", "8")
        page.set_input_files("#files", [str(tmp_path / "no image.png")])
        page.get_by_label("Remove no image.png").wait_for()
        run(page, "Describe the picture.")
        page.get_by_text("is no image that Pillow").wait_for()
        page.get_by_label("Remove no image.png").click()
        page.set_input_files("#files", [str(file)])
        page.get_by_label("Remove scene.png").wait_for()
        run(page, "Describe the picture.")
        page.locator("#status").filter(has_text=re.compile("Done after")).wait_for()
        assert page.locator("#alert").is_hidden()
        assert page.evaluate("scrollY") > 0  # down to the answers
        assert page.locator(".sheet img").count() == 7
        assert page.locator(".sheet .drawn").count() == 1
        assert page.locator(".card").nth(1).locator(".token").count() == 8
        page.select_option("#mode", "projection")
        assert page.locator(".token[data-side]").count() == 16
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.locator(".token").nth(3).click()
        box = page.locator("#detail").bounding_box()
        assert box["x"] == 0
        assert round(box["y"] + box["height"]) == 800
