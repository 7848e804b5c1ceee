"""A report's page, Markdown and picture: complete, escaped, and drawn by a browser without scripts or network."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

import truthkit as tk
from tests.evaluation.report.cases import RIGHT, pope_task, write_run, wrong_at
from truthkit import cli
from truthkit.evaluation.report import gather, write_report
from truthkit.evaluation.report.markdown import escaped
from truthkit.evaluation.report.plane import ticks
from truthkit.markup import Markup, element

NASTY = (
    "<script>alert(1)</script><img src=x onerror=alert(2)> \"a\" 'b' & | `c` **d** [e](javascript:f) \u202eg\x1b[31m"
)


@pytest.fixture
def nasty(tmp_path: Path) -> Path:
    """Runs in which every text that can be is hostile."""
    task = pope_task(tmp_path / "data", text=NASTY)
    answers = [f"{answer[:-1]} {NASTY}." for answer in wrong_at(1, 2)]
    write_run(task, tmp_path / "runs" / "a", answers, model=NASTY)
    write_run(task, tmp_path / "runs" / "b<b>", [f"{answer} {NASTY}" for answer in RIGHT], model=NASTY, text=NASTY)
    (tmp_path / "data" / "images" / "0.jpg").unlink()
    return tmp_path / "runs"


class Reader(HTMLParser):
    """Tags, attributes, and text of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_nothing_in_a_page_is_markup_that_was_text(nasty: Path, tmp_path: Path) -> None:
    write_report(gather([nasty]), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    reader = Reader(page)
    assert reader.open == []
    assert "script" not in reader.tags
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    for name, value in reader.attributes:
        if name in ("src", "href"):
            assert re.match(r"data:image/(jpeg|png);base64,|#s\d+$", value or "")
    assert "<script>alert(1)</script>" in reader.text
    assert "\\u202eg\\x1b[31m" in reader.text
    assert not re.search("[\u202e\x1b\0]", page)
    policy = next(value for name, value in reader.attributes if name == "content" and "default-src" in str(value))
    assert str(policy).startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline';")
    assert not re.search(r"https?:|url\(|@import", page)
    assert "The image 0.jpg is not there any more" in reader.text
    assert reader.tags.count("img") == 1  # items 1 and 2 flipped; the image of 1 is gone


def test_elements() -> None:
    made = element(
        "p", "<b>", Markup("<i></i>"), None, element("br"), class_='"x"', aria_label="y", hidden=True, id=None
    )
    assert made == '<p class="&quot;x&quot;" aria-label="y" hidden>&lt;b&gt;<i></i><br></p>'


def test_markdown_is_escaped(nasty: Path, tmp_path: Path) -> None:
    write_report(gather([nasty]), tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    bare = re.sub(r"\\.", "", text)  # what is left when escaped characters are taken out
    assert "<" not in bare
    assert "`" not in bare
    assert "[" not in bare
    tables = [line for line in bare.splitlines() if line.startswith("|")]
    assert len(tables) > 10
    for above, line in pairwise(bare.splitlines()):
        assert not (above.startswith("|") and line.startswith("|")) or above.count("|") == line.count("|")
    assert "\u202e" not in text


def test_markdown_of_one_text() -> None:
    assert escaped("a|b\n<c> *d* http://e www.f") == "a\\|b \\<c\\> \\*d\\* http:\\//e www\\.f"


def test_page_of_one_run(tmp_path: Path) -> None:
    write_run(pope_task(tmp_path / "data"), tmp_path / "run", RIGHT)
    write_report(gather([tmp_path / "run"]), tmp_path / "report.html")
    text = Reader((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "POPE with tiny" in text
    assert "Every metric" in text
    for part in ("Against the baseline", "against cost", "flipped"):
        assert part not in text


@pytest.mark.parametrize("name", ["report.png", "report.svg"])
def test_picture(name: str, nasty: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra plots is not installed")
    write_report(gather([nasty]), tmp_path / name)
    if name.endswith("png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 1000
            assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 10
    else:
        assert "<script>alert(1)" not in (tmp_path / name).read_text(encoding="utf-8")


def test_ticks() -> None:
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert ticks(0.5, 0.5)[0] <= 0.5 < ticks(0.5, 0.5)[-1]
    assert ticks(0.81, 0.94) == pytest.approx([0.8, 0.85, 0.9, 0.95])


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = pope_task(tmp_path / "data")
    for name, answers in (("greedy", RIGHT), ("vcd", wrong_at(1))):
        write_run(task, tmp_path / "runs" / name, answers, text=name)
    capsys.readouterr()
    page, text = tmp_path / "report.html", tmp_path / "report.md"
    assert cli.main(["report", str(tmp_path / "runs"), "--out", str(page), "--out", str(text), "--flips", "1"]) == 0
    assert capsys.readouterr().out == f"{page}\n{text}\n2 runs in 1 section; it carries 1 warning\n"
    assert page.stat().st_size > text.stat().st_size > 1000


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        ("report.docx", 2, "a report ends in .html, .md, .png, .svg or .pdf"),
        ("none/report.html", 1, "there is no folder none"),
        ("folder.html", 2, "folder.html is a folder"),
    ],
)
def test_bad_files(
    out: str,
    error: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.html").mkdir()
    assert cli.main(["report", ".", "--out", out]) == error
    assert message in capsys.readouterr().err


def test_without_matplotlib(nasty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("truthkit.figures.find_spec", lambda _name: None)
    with pytest.raises(tk.MissingExtraError, match=r"truthkit\[plots\]"):
        write_report(gather([nasty]), tmp_path / "report.png")


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_in_a_browser(nasty: Path, tmp_path: Path) -> None:
    """Chromium finds no more elements than the page has, runs nothing, and draws bars and text in both schemes."""
    write_report(gather([nasty]), tmp_path / "report.html")
    page = (tmp_path / "report.html").as_uri()
    base = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]

    def chromium(*options: str) -> str:
        done = subprocess.run([*base, *options, page], capture_output=True, text=True, timeout=120, check=True)  # type: ignore[list-item]
        return done.stdout

    found = Reader(chromium("--dump-dom"))
    written = Reader((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert found.tags == written.tags
    assert found.text.split() == written.text.split()
    papers = []
    for scheme in (1, 0):  # light, dark
        shot = tmp_path / f"{scheme}.png"
        chromium(
            f"--screenshot={shot}",
            "--window-size=1000,1400",
            "--hide-scrollbars",
            f"--blink-settings=preferredColorScheme={scheme}",
        )
        with Image.open(shot) as opened:
            picture = opened.convert("RGB")
        colours = picture.getcolors(1 << 24) or []
        papers.append(max(colours)[1])
        blue = sum(n for n, (r, g, b) in colours if b > r + 60 and b > g + 30)
        assert len(colours) > 100
        assert blue > 5000
    assert papers == [(255, 255, 255), (20, 22, 26)]
