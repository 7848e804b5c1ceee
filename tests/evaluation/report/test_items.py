"""Every item on the page: rows, filters that need no script, invented words marked."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import truthkit as tk
from tests.evaluation.report.cases import pope_task, write_run, wrong_at
from tests.evaluation.report.test_page import CHROMIUM, Reader
from truthkit import cli
from truthkit.evaluation.report import gather, write_report
from truthkit.evaluation.report.flips import all_asked, said
from truthkit.evaluation.report.items import items
from truthkit.evaluation.report.markdown import _said
from truthkit.evaluation.report.marking import marked, pieces, unmarked


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Twelve questions: greedy wrong at 1 and 3, vcd at 3 only."""
    task = pope_task(tmp_path / "data")
    write_run(task, tmp_path / "runs" / "greedy", wrong_at(1, 3))
    write_run(task, tmp_path / "runs" / "vcd", wrong_at(3), text="vcd")
    return tmp_path / "runs"


def rows(page: str) -> list[set[str]]:
    """The classes of the browser's rows."""
    body = page.split('<details class="browse"')[1].split("<tbody>")[1].split("</tbody>")[0]
    return [set(found.split()) for found in re.findall(r'<tr(?: class="([^"]*)")?>', body)]


def test_rows_and_filters(runs: Path, tmp_path: Path) -> None:
    write_report(gather([runs]), tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    found = rows(page)
    assert len(found) == 12
    assert found[1] == {"flip", "w0", "k1"}
    assert found[3] == {"wrong", "w0", "w1", "k1"}
    assert found[0] == {"right", "k0"}
    text = Reader(page).text
    for part in ("12 items to browse", "flipped between runs 1", "right in all 10", "wrong in vcd 1", "adversarial 6"):
        assert part in text
    buttons = set(re.findall(r'class="on-(\w+)"', page))
    assert buttons == {"flip", "right", "wrong", "w0", "w1", "k0", "k1"}
    for name in buttons:  # each has a rule of its own in the style sheet
        assert f".browse:has(.on-{name}:checked) tbody tr:not(.{name}){{display:none}}" in page


def test_as_many_as_wanted_flipped_ones_first(runs: Path, tmp_path: Path) -> None:
    (section,) = gather([runs], items=2).sections
    assert [one.flipped for one in section.items] == [False, True]  # in the order of the data
    assert "2 items to browse of 12, flipped ones first" in str(items(section, 0))
    (section,) = gather([runs], items=0).sections
    assert items(section, 0) is None
    with pytest.raises(tk.ArgumentError, match="items is -1"):
        gather([runs], items=-1)
    words = ["report", str(runs), "--out", str(tmp_path / "r.html"), "--items"]
    assert cli.main([*words, "-1"]) == 2
    assert cli.main([*words, "3"]) == 0
    assert len(rows((tmp_path / "r.html").read_text())) == 3


def test_items_that_are_neither_right_nor_wrong() -> None:
    one = {"key": "1", "prompt": "Go on.", "output": "a"}
    found = all_asked({"greedy": [one, one | {"key": "2"}], "vcd": [one | {"output": "b"}, one | {"key": "2"}]})
    assert [(asked.flipped, [answer.correct for answer in asked.answers]) for asked in found] == [
        (True, [None, None]),
        (False, [None]),
    ]
    assert said({"output": {"answers": ["Yes", "No"], "scores": [0.25, 2]}}) == "Yes [score 0.25]\nNo [score 2]"


@pytest.mark.parametrize(
    ("text", "invented", "found"),
    [
        ("Two dogs and a Dog.", ["dog"], ["dogs", "Dog"]),
        ("A hotdog, a hot  dog stand.", ["hot dog"], ["hot  dog"]),
        ("Knives, people and glasses", ["knife", "person", "glass"], ["Knives", "people", "glasses"]),
        ("A baby elephant", ["elephant"], ["elephant"]),
        ("A <b>cat</b> & a cat's toy", ["cat"], ["cat", "cat"]),
        ("She is seated, tied and skiing", ["seat", "tie", "ski"], ["seated", "tied", "skiing"]),
        ("A man with a tie, tied", ["tie"], ["tie"]),
        ("Nothing here", ["cat", ""], []),
        ("", ["cat"], []),
    ],
)
def test_invented_words_are_found_in_the_text(text: str, invented: list[str], found: list[str]) -> None:
    parts = list(pieces(text, invented))
    assert "".join(piece for piece, _ in parts) == text
    assert [piece for piece, mark in parts if mark] == found
    html = marked(text, invented)
    assert html.count("<mark>") == len(found)
    assert "<b>" not in html
    assert all(name in unmarked(text, invented) for name in invented if not found)


def test_invented_words_in_markdown() -> None:
    assert _said("A *dog*\nand a cat", ["cat", "dog"]) == "A \\***dog**\\* and a **cat**"
    assert _said("", []) == "(nothing)"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.slow
def test_filters_in_a_browser(runs: Path, tmp_path: Path) -> None:
    """A checked button hides the other rows, without a script: seen in what a browser prints of the page."""
    write_report(gather([runs], flips=0), tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text().replace('<details class="browse"', '<details open class="browse"')

    def shown(checked: str) -> int:
        one = page.replace(f'class="on-{checked}"', f'class="on-{checked}" checked')
        # A script of the test's own measures; the page's policy allows none, so it is left out here.
        policy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", one)
        script = (
            "<script>document.title = [...document.querySelectorAll('.browse tbody tr')]"
            ".filter(row => row.getClientRects().length).length</script>"
        )
        (tmp_path / "one.html").write_text(policy.replace("</body>", f"{script}</body>"))
        command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'p'}"]
        done = subprocess.run(
            [*command, "--dump-dom", (tmp_path / "one.html").as_uri()],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        return int(re.findall(r"<title>(\d+)</title>", done.stdout)[0])

    assert [shown(name) for name in ("none", "flip", "wrong", "k0", "w0")] == [12, 1, 1, 6, 2]
