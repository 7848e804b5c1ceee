"""The page in headless Chromium: what is shown, by which keys, and that nothing becomes markup."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.app.conftest import serving
from tests.each import each
from truthkit.app.engine import Engine
from truthkit.app.events import Emit
from truthkit.app.examples import examples_for
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


def test_a_wrong_field_is_named_where_it_is(scripted_page: Any, scripted: Scripted) -> None:
    """Told while it is typed; at a run nothing is asked of the model, and the first wrong field has the keyboard."""
    page, wrong = scripted_page, f"alpha is too much: {EVIL}"
    page.locator(".card select").nth(1).select_option("vcd")
    card = page.locator(".card").nth(1)
    scripted.refuses = [Problem(None, "context", "a passage is needed"), Problem(1, "alpha", wrong)]
    field = card.get_by_label("alpha", exact=True)
    field.fill("9")
    page.get_by_text("alpha is too much").wait_for()
    assert card.locator(".problem").inner_text() == wrong
    assert field.get_attribute("aria-invalid") == "true"
    assert card.locator(".problem").get_attribute("id") in (field.get_attribute("aria-describedby") or "")
    run(page)
    page.get_by_text("Not run: 2 fields are to be mended.").wait_for()
    assert page.get_by_text("a passage is needed").is_visible()
    assert page.evaluate("document.activeElement.id") == "context"
    assert scripted.asked == []
    assert page.locator("#alert").is_hidden()
    assert page.locator(".answer").all_inner_texts() == ["No answer yet."] * 2
    scripted.refuses = []
    field.fill("2")
    page.keyboard.press("Control+Enter")
    page.get_by_text("1 of 2 failed").wait_for()
    assert page.locator(".problem").count() == 0
    assert field.get_attribute("aria-invalid") is None
    assert scripted.asked[0].cards[1].options == {"alpha": "2"}


def test_sliders_and_fields_move_together(scripted_page: Any, scripted: Scripted) -> None:
    page = scripted_page
    page.locator(".card select").nth(1).select_option("vcd")
    card = page.locator(".card").nth(1)
    slider, field = card.get_by_label("noise step, slider"), card.get_by_label("noise step", exact=True)
    assert (slider.input_value(), field.input_value()) == ("500", "")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert field.input_value() == "501"
    assert card.locator(".command").inner_text().startswith("--decoder vcd:noise_step=501")
    field.fill("20")
    assert slider.input_value() == "20"
    beyond = card.get_by_label("alpha", exact=True)
    beyond.fill("50")  # beyond the slider's end
    assert card.get_by_label("alpha, slider").input_value() == "5"
    run(page)
    page.get_by_text("1 of 2 failed").wait_for()
    assert scripted.asked[0].cards[1].options == {"noise_step": "20", "alpha": "50"}


def test_answers_come_before_their_settings(scripted_page: Any) -> None:
    page = scripted_page
    top = [one.bounding_box()["y"] for one in page.locator(".answer").all()]
    page.locator(".card select").nth(1).select_option("lol")
    assert page.locator(".card").nth(1).locator("details.options").get_attribute("open") is not None
    below = page.locator(".card").nth(1).locator("details.options").bounding_box()
    assert all(one.bounding_box()["y"] < below["y"] for one in page.locator(".answer").all())
    assert abs(page.locator(".answer").first.bounding_box()["y"] - top[0]) < 60


def test_colours_by_number_have_a_legend_with_units(scripted_page: Any) -> None:
    page = scripted_page
    run(page)
    page.get_by_text("1 of 2 failed").wait_for()
    shares = "all => all.map((one) => [one.dataset.side ?? '', Number(one.style.getPropertyValue('--share'))])"
    tokens, legend = page.locator(".card").first.locator(".token"), page.locator("#legend")
    for mode, expected, words in (
        ("far", [["above", 1], ["above", 0], ["above", 1]], "−0.75+0.75 natsln of a token’s probability"),
        ("probability", [["heat", 0.5]] * 3, "100 %0 %probability of the token"),
        ("entropy", [["heat", 1]] * 3, "0 nats1.25 natsentropy of the distribution that the decoder chose from"),
        ("rank", [["heat", 1], ["heat", 0], ["heat", 1]], "12rank of the token in that distribution"),
        ("push", [["", 0]] * 3, "view (1 token)"),
    ):
        page.select_option("#mode", mode)
        assert tokens.evaluate_all(shares) == expected
        assert words in legend.inner_text().replace("\n", "")
    tokens.first.focus()
    detail = page.locator("#detail").inner_text()
    assert "Probability 50.0 % · rank 2 · entropy 1.25 nats · moved by +0.75 nats" in detail


TWO = [
    {"event": "answering", "index": 0},
    token("The cat sat. It was red, all day long"),
    answer(f"The cat sat on the mat, all day {EVIL}", 1),
    {"event": "answering", "index": 1},
    token("The", index=1),
    answer("A cat sat by the mat, all day", 1, index=1),
]


def test_words_that_differ_are_marked_and_said(scripted: Scripted, open_page: OpenPage) -> None:
    scripted._events = TWO
    with serving(scripted) as server:
        page = open_page(server)
        page.locator(".card").first.wait_for()
        page.select_option("#mode", "words")
        run(page)
        page.get_by_text("Done after").wait_for()
        first, second = (page.locator(".words").nth(number) for number in (0, 1))
        assert first.inner_text() == f"The cat sat on the mat, all day {EVIL}"
        assert second.locator("del").all_text_contents() == ["left out: The", "left out: on", f"left out: {EVIL}"]
        assert second.locator("ins").all_text_contents() == ["added: A", "added: by"]
        kept = second.evaluate(
            "one => [...one.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data)"
        )
        assert " ".join("".join(kept).split()) == "cat sat the mat, all day"
        style = "a => [getComputedStyle(a.lastChild).textDecorationLine, getComputedStyle(a, '::before').content[1]]"
        assert second.locator("ins").first.evaluate(style) == ["underline", "+"]
        assert second.locator("del").first.evaluate(style) == ["line-through", "−"]
        assert page.locator(".tokens:visible, .words b, .words img").count() == 0
        page.select_option("#mode", "push")
        assert page.locator(".words:visible").count() == 0
        page.locator(".token").first.wait_for()


@each(
    ("first", "other", "expected"),
    [
        ("a b c", "a b c", [["both", "a b c"]]),
        ("a b c", "a x c", [["both", "a"], ["left", "b"], ["added", "x"], ["both", "c"]]),
        ("", "a", [["added", "a"]]),
        ("a", "", [["left", "a"]]),
        ("b a", "a c", [["left", "b"], ["both", "a"], ["added", "c"]]),
        ("one. two", "three. four", [["left", "one. two"], ["added", "three. four"]]),
        ("to be or not", "not to be", [["added", "not"], ["both", "to be"], ["left", "or not"]]),
        ("今日は晴れ", "今日は雨", [["both", "今日は"], ["left", "晴れ"], ["added", "雨"]]),
    ],
)
def test_differences_by_hand(scripted_page: Any, first: str, other: str, expected: list[list[str]]) -> None:
    runs = scripted_page.evaluate(
        """async ([first, other]) => {
            const { compare } = await import("/difference.js");
            const text = (words) => words.map(({ word, space }, i) => (i ? space : "") + word).join("");
            return compare(first, other).map(({ kind, words }) => [kind, text(words)]);
        }""",
        [first, other],
    )
    assert runs == expected


def test_runs_survive_a_reload(scripted_page: Any, scripted: Scripted) -> None:
    page = scripted_page
    page.click("#scene")
    page.get_by_alt_text("scene.png").wait_for()
    page.locator(".card select").nth(1).select_option("vcd")
    page.locator(".card").nth(1).get_by_label("alpha", exact=True).fill("2.5")
    page.fill("#max_new_tokens", "9")
    run(page, EVIL)
    page.get_by_text("1 of 2 failed").wait_for()
    page.fill("#prompt", "Another.")
    page.reload()
    page.get_by_text("Earlier runs (1)").click()
    page.locator("#runs-list button").click()
    page.get_by_text("The run of").wait_for()
    assert page.input_value("#prompt") == EVIL
    assert page.input_value("#max_new_tokens") == "9"
    assert page.get_by_alt_text("scene.png").count() == 1
    assert page.locator(".card").nth(1).locator(".command").inner_text().startswith("--decoder vcd:alpha=2.5")
    assert page.locator(".tokens").inner_text() == f"{EVIL} and <script>document.title='broken'</script>"
    assert page.locator(".card .error").inner_text() == f"it failed: {EVIL}"
    page.select_option("#mode", "entropy")
    assert page.locator(".token[data-side='heat']").count() == 3
    assert page.locator("#runs b, #runs img, .tokens b").count() == 0
    assert len(scripted.asked) == 1
    page.keyboard.press("Control+Enter")
    page.get_by_text("Earlier runs (2)").wait_for()
    assert scripted.asked[1].images.read() == [scripted.scene()]
    with page.expect_download() as saved:
        page.click("#save-runs")
    runs = json.loads(Path(saved.value.path()).read_text())
    assert [one["prompt"]["prompt"] for one in runs] == [EVIL, EVIL]
    with page.expect_download() as saved:
        page.click("#save")
    assert json.loads(Path(saved.value.path()).read_text())["cards"][1]["options"] == {"alpha": "2.5"}
    page.click("#forget-runs")
    page.reload()
    page.locator(".card").first.wait_for()
    assert page.locator("#runs").is_hidden()


def test_kept_runs_are_bounded(scripted_page: Any) -> None:
    """Of many large ones the newest; images that are large are left out; what cannot be read is none."""
    kept = scripted_page.evaluate(
        """async () => {
            const { keepRun, readRuns } = await import("/history.js");
            const run = (number, image) => ({ at: number, cards: [], prompt: { prompt: "x".repeat(90000), messages: [],
                images: [{ name: "a.png", content: "i".repeat(image) }] } });
            for (let number = 0; number < 24; number += 1) keepRun(run(number, number % 2 ? 140000 : 160000));
            const runs = readRuns();
            const size = localStorage.getItem("truthkit-runs").length;
            localStorage.setItem("truthkit-runs", "{broken");
            return [runs.map((one) => [one.at, one.prompt.images[0].content?.length ?? null]), size, readRuns()];
        }"""
    )
    runs, size, broken = kept
    assert [number for number, _ in runs] == list(range(23, 23 - len(runs), -1))
    assert 10 < len(runs) < 20
    assert all(length == (140_000 if number % 2 else None) for number, length in runs)
    assert size <= 2_000_000
    assert broken == []


def test_a_link_restores_what_was_typed_and_runs_nothing(scripted_page: Any, scripted: Scripted) -> None:
    page = scripted_page
    page.fill("#prompt", f"Wer? Größe “{EVIL}”")
    page.get_by_text("Passage, system message").click()
    page.fill("#context", "A passage.")
    page.check("#sample")
    page.fill("#temperature", "1.25")
    page.locator(".card select").first.select_option("icd")
    page.locator(".card").first.get_by_label("lam", exact=True).fill("0.5")
    page.get_by_label("Remove this decoder").nth(1).click()
    page.click("#link")
    link = page.input_value("#link-text")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/#state=[\w-]+", link)
    assert page.evaluate("document.activeElement.id") == "link-text"
    page.goto(link)  # another fragment of the same page
    page.get_by_text("Restored from the link. Nothing has run.").wait_for()
    assert page.input_value("#prompt") == f"Wer? Größe “{EVIL}”"
    assert (page.input_value("#context"), page.input_value("#temperature")) == ("A passage.", "1.25")
    assert page.locator(".card .command").all_inner_texts()[0].startswith("--decoder icd:lam=0.5")
    assert page.locator(".card").count() == 1
    assert scripted.asked == []
    assert page.locator("main b").count() == 0
    page.goto(link[:-9])
    page.get_by_text("The link is damaged").wait_for()


def test_a_link_waits_for_the_address_of_this_start(scripted: Scripted, open_page: OpenPage) -> None:
    state = base64.urlsafe_b64encode(json.dumps({"prompt": {"prompt": "Who?"}, "cards": []}).encode()).decode()
    with serving(scripted) as server:
        page = open_page(server, fragment=f"#state={state.rstrip('=')}")
        page.get_by_text("What the link restores waits for it in this tab.").wait_for()
        page.goto(server.url)
        page.get_by_text("Restored from the link.").wait_for()
        assert page.input_value("#prompt") == "Who?"
        page.reload()
        page.locator(".card").first.wait_for()
        assert page.input_value("#prompt") == ""


def test_a_conversation_goes_on_with_the_chosen_answer(scripted: Scripted, open_page: OpenPage) -> None:
    scripted._events = TWO
    with serving(scripted) as server:
        page = open_page(server)
        page.locator(".card").first.wait_for()
        run(page, "Where?")
        page.get_by_text("Done after").wait_for()
        page.locator(".card").nth(1).get_by_text("Go on with this answer").click()
        assert page.evaluate("document.activeElement.id") == "prompt"
        run(page, "And then?")
        page.get_by_text("Done after").wait_for()
        said = [
            {"role": "user", "content": "Where?"},
            {"role": "assistant", "content": "A cat sat by the mat, all day"},
        ]
        assert [one.messages for one in scripted.asked] == [[], said]
        assert scripted.asked[1].prompt == "And then?"
        page.locator(".card").first.get_by_text("Go on with this answer").click()
        assert page.locator("#messages li").count() == 4
        assert EVIL in page.locator("#messages").inner_text()
        page.click("#take-back")
        assert page.input_value("#prompt") == "And then?"
        assert page.locator("#messages li").count() == 2
        page.click("#start-over")
        assert page.locator("#conversation").is_hidden()
        assert page.locator("#messages b, #messages img").count() == 0


def test_examples_fill_in_all_of_it(scripted_page: Any, scripted: Scripted) -> None:
    page = scripted_page
    page.get_by_role("button", name="Is it there?").click()
    page.get_by_text("filled in, not run yet").wait_for()
    assert scripted.asked == []
    assert page.evaluate("document.activeElement.id") == "run"
    page.keyboard.press("Enter")
    page.get_by_text("1 of 3 failed").wait_for()
    (request,) = scripted.asked
    (example,) = (one for one in examples_for(scenes=True) if one.title == "Is it there?")
    assert (request.prompt, request.settings["max_new_tokens"]) == (example.prompt, example.new_tokens)
    assert [(one.decoder, one.options) for one in request.cards] == [
        (one.decoder, one.options) for one in example.cards
    ]
    assert request.images.read() == [scripted.scene()]


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
        assert page.locator(".sheet:visible").count() == 0  # folded
        assert page.locator(".sheet .drawn").count() == 1
        assert page.locator(".card").nth(1).locator(".token").count() == 8
        page.select_option("#mode", "projection")
        assert page.locator(".token[data-side]").count() == 16
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.mouse.move(0, 0)  # off the tokens, whose detail opens under it
        page.get_by_text("Tokens against the image").last.click()
        page.get_by_text("in layer 2: most alike is row").wait_for()
        assert page.locator(".patches i").count() == 64
        page.locator(".card").nth(1).locator(".token").nth(4).focus()
        page.get_by_text("(5 of 8) in layer 2").wait_for()
        page.locator(".patch-map select").last.select_option("3")
        page.get_by_text("(5 of 8) in layer 3").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.keyboard.press("Escape")
        page.locator(".token").nth(3).click()
        box = page.locator("#detail").bounding_box()
        assert box["x"] == 0
        assert round(box["y"] + box["height"]) == 800
