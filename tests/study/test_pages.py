"""A study's page, tables and pictures: complete, escaped in every form, and the figures those of study.json."""

from __future__ import annotations

import csv
import io
import math
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import truthkit as tk
from tests.each import each
from tests.evaluation.report.test_page import Reader
from tests.study.documents import LONG, Document, against, document, eval_set, many, row, write
from truthkit.study.pages import forest, heat_map, latex, plane, summary, words, write_pages
from truthkit.study.pages.contents import EvalSet, Study
from truthkit.study.pages.csv_table import csv_table
from truthkit.study.pages.drawing import label
from truthkit.study.pages.latex import escaped
from truthkit.study.pages.markdown import markdown
from truthkit.study.pages.page import page
from truthkit.study.pages.reading import read_study

NASTY = (
    "<script>alert(1)</script> \"a\" 'b' & | `c` **d** [e](javascript:f) \\input{g} $x_1^2$ 50% #h ~ {\u202ei\x1b[31m\n"
)
TEXTS = ("report.html", "table.md", "table.csv", "table.tex")
PICTURES = ("forest.png", "plane.png", "tasks.png")


def study(folder: Path, found: Document) -> Study:
    return read_study(write(folder, found))


def lines(study: Study) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_table(study))))


def read(page: str) -> Reader:
    """A page without the places where labels may break."""
    return Reader(page.replace("<wbr>", ""))


def text_of(study: Study) -> str:
    return read(page(study)).text


@pytest.fixture
def nasty(tmp_path: Path) -> Study:
    """A study in which every text that can be is hostile."""
    one = eval_set(f"set {NASTY}", NASTY, task=NASTY, model=NASTY, metric=NASTY, data_sha256={NASTY: NASTY})
    beside = against(NASTY, effect_name=NASTY)
    rows = [
        row("greedy", of=one["id"]),
        row(NASTY, "method", of=one["id"], said=NASTY, folder=NASTY, steer=NASTY, verdict="better", cost=2.0)
        | {"method": NASTY, "against": {"greedy": beside, "strongest control": beside}, "metrics": {NASTY: 0.25}}
        | {"chosen_from": [{"decoder": NASTY, "value": 0.5, "n": 3}]},
        row(f"=1+1{NASTY}", "control", of=one["id"], control_of=[NASTY], against={"greedy": beside}),
    ]
    found = document([one], rows, looks=[{"when": NASTY, "set": one["id"], "part": "test", "rows": [NASTY]}] * 2)
    found["study"] |= {"name": NASTY, "note": NASTY}
    found["provenance"] = {NASTY: NASTY, "command": NASTY, "versions": {NASTY: NASTY}, "hardware": [NASTY]}
    return study(tmp_path, found)


def test_nothing_in_a_page_is_markup_that_was_text(nasty: Study) -> None:
    made = page(nasty)
    reader = read(made)
    assert reader.open == []
    assert "script" not in reader.tags
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert all(re.match(r"#s\d+$", value or "") for name, value in reader.attributes if name in ("src", "href"))
    assert reader.text.count("<script>alert(1)</script>") > 20
    assert not re.search("[\u202e\x1b\0]", made)
    assert not re.search(r"https?:|url\(|@import", made)
    policy = next(value for name, value in reader.attributes if name == "content" and "default-src" in str(value))
    assert str(policy).startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline';")


def test_markdown_is_escaped(nasty: Study) -> None:
    bare = re.sub(r"\\.", "", markdown(nasty))
    assert not set("<`[\u202e\x1b") & set(bare)
    tables = [line for line in bare.splitlines() if line.startswith("|")]
    assert len(tables) == 5
    for above, line in pairwise(bare.splitlines()):
        assert not (above.startswith("|") and line.startswith("|")) or above.count("|") == line.count("|")


def test_csv_has_no_formulas_and_whole_figures(nasty: Study) -> None:
    found = lines(nasty)
    assert len(found) == 3
    assert all(None not in line for line in found)
    assert found[2]["label"].startswith("'=1+1<script>")
    for line in found:
        for name, cell in line.items():
            assert not cell.startswith(("=", "+", "@", "\t")), name
            assert not cell.startswith("-") or float(cell) < 0
    assert [cell for name, cell in found[1].items() if name.startswith("metric: <script>")] == ["0.25"]


COMMANDS = """begin end centering scriptsize tiny caption label toprule midrule bottomrule multicolumn emph
textbf textbackslash textasciicircum textasciitilde textless textgreater textbar ldots pm times uparrow downarrow cdot
setlength tabcolsep linewidth raggedright allowbreak alpha beta lambda"""


def check_latex(text: str) -> None:
    """Braces and environments are balanced, every line of a table has as many cells, and only known commands occur."""
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    body = "\n".join(lines)
    assert not re.search(r"(?<!\\)[%#]|[\u0080-\U0010ffff\x1b]", body)
    depth = 0
    for piece in re.findall(r"\\.|[{}]", body):
        depth += {"{": 1, "}": -1}.get(piece, 0)
        assert depth >= 0
    assert depth == 0
    assert re.sub(r"\\\$", "", body).count("$") % 2 == 0
    for name in ("table*", "tabular"):
        assert body.count(f"\\begin{{{name}}}") == body.count(f"\\end{{{name}}}")
    assert set(re.findall(r"\\([a-z]+)", body.replace("\\\\", ""))) <= set(COMMANDS.split())
    width = 0
    for line in lines:
        if spec := re.match(r"\\begin\{tabular\}\{@\{\}((?:l|p\{0\.24\\linewidth\})l+r+)@\{\}\}$", line):
            width = len(re.sub(r"p\{.*?\}", "l", spec[1]))
        elif line.endswith(r"\\") and "multicolumn" not in line:
            assert len(re.findall(r"(?<!\\)&", line)) == width - 1


def test_latex_is_escaped_and_balanced(nasty: Study, tmp_path: Path) -> None:
    check_latex(latex.latex(nasty))
    check_latex(latex.latex(study(tmp_path / "many", many(7, 12))))
    assert escaped("50% & {a_b} #1 \\input é 日 −1") == (r"50\% \& \{a\_b\} \#1 \textbackslash{}input e ? $-$1")


PDFLATEX = shutil.which("pdflatex")


@pytest.mark.slow
@pytest.mark.skipif(PDFLATEX is None, reason="no pdflatex")
@pytest.mark.parametrize("which", ["nasty", "many"])
def test_latex_compiles(which: str, nasty: Study, tmp_path: Path) -> None:
    found = nasty if which == "nasty" else study(tmp_path / "many", many(7, 12))
    (tmp_path / "table.tex").write_text(latex.latex(found), encoding="utf-8")
    head = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\\input{table}\\end{document}"
    (tmp_path / "all.tex").write_text(head, encoding="utf-8")
    done = subprocess.run(
        [str(PDFLATEX), "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-2000:]


def test_figures_are_those_of_the_file(tmp_path: Path) -> None:
    found = many(7, 4)
    expected_rows = {(one["set"], one["label"]): one for one in found["rows"]}
    made = lines(study(tmp_path, found))
    assert sorted((line["set"], line["label"]) for line in made) == sorted(expected_rows)
    for line in made:
        expected = expected_rows[line["set"], line["label"]]
        assert all(line[name] == expected[name] for name in ("decoder", "role", "verdict", "folder"))
        for name in ("value", "low", "high", "cost", "seconds_per_item"):
            assert _same(line[name], expected[name])
        for column, key in (("greedy", "greedy"), ("control", "strongest control")):
            other = expected["against"][key] or {}
            for name in ("difference", "low", "high", "p", "p_holm", "p_bh", "effect", "smallest_detectable"):
                assert _same(line[f"{column}_{name}"], other.get(name))


def _same(cell: str, figure: float | None) -> bool:
    return cell == "" if figure is None else float(cell) == figure


def test_the_page_says_the_figures(tmp_path: Path) -> None:
    """By hand: 0.6123 is 61.2 %, 0.031 three points one, with signs, intervals, and p in words."""
    beside = against("topn:n=1", -0.004, 0.01, verdict="no evidence", p_holm=0.6)
    method = row("cad:alpha=1", "method", verdict="no evidence", cost=1.21)
    method["against"] = {"greedy": against(), "strongest control": beside}
    text = text_of(study(tmp_path, document(rows=[row(), method])))
    assert "61.259.1 to 63.3" in text
    assert "+3.1 points from greedy (+1.1 to +5.1; p = 0.012)" in text
    assert "−0.4 points from topn:n=1 (−1.4 to +0.6; p = 0.6), its strongest control" in text
    assert "Better than greedy, but not shown to be better than the strongest control" in text
    assert "1 result of 1 method on 1 test set: 0 better than greedy and than the strongest control, 0 worse" in text
    assert "chance 50.0 %" in text
    assert "2,027 test items" in text
    assert "1.21 ×" in text
    assert "read once (2026-11-30 10:00 UTC)" in text
    assert "truthkit study study.toml --out small" in text


def test_equals_greedy_is_not_called_better(tmp_path: Path) -> None:
    """Of every kind of row one, each told where it belongs; a better one without a control says so."""
    rows = [row()]
    for name, verdict, greedy, control in (
        ("both", "better", "better", against("topn")),
        ("alone", "better", "better", None),
        ("half", "no evidence", "better", against("topn", verdict="no evidence")),
        ("bad", "worse", "worse", None),
        ("same", "equivalent", "equivalent", None),
        ("none", "no evidence", "no evidence", None),
    ):
        sides = {"greedy": against(verdict=greedy), "strongest control": control}
        rows.append(row(name, "method", verdict=verdict, against=sides))
    found = study(tmp_path, document(rows=rows))
    told = {group.title: [line.split(" ")[0].rstrip(":") for line in group.lines] for group in summary.groups(found)}
    assert told == {
        "Better than greedy and than the strongest control": ["both"],
        "Better than greedy, the only control there is": ["alone"],
        "Better than greedy, but not shown to be better than the strongest control": ["half"],
        "Worse than greedy": ["bad"],
        "Equivalent to greedy": ["same"],
        "No evidence either way": ["none"],
    }
    assert summary.overall(found).startswith(
        "6 results of 6 methods on 1 test set: 1 better than greedy and than the strongest control, 1 better than "
        "greedy, the only control there is, 1 worse than greedy, 1 equivalent to greedy, 2 without evidence either way."
    )


def test_what_has_to_be_known(tmp_path: Path) -> None:
    one = eval_set(test=12, clusters=12, chance=0.6)
    rows = [row(n=12), row("cad", "method", n=11, verdict="worse", against={"greedy": against()}, test_looks=2)]
    late = {"when": "2026-12-01T09:00:00+0000", "set": one["id"], "part": "test", "rows": ["cad"], "stage": 2}
    found = document([one], rows)
    found["looks"].append(late)
    told = " ".join(summary.caveats(study(tmp_path, found)))
    assert "the test items were read twice (2026-11-30 10:00 UTC and 2026-12-01 09:00 UTC)" in told
    assert "This concerns cad." in told
    assert "12 test items are few" in told
    assert "contains chance 60.0 %: the model hardly does this task" in told
    assert "not all of the 12 test items are in the figures of cad." in told
    assert "Held against greedy alone, for want of another control: cad." in told


@each(
    "value, sign, text",
    [
        (0.0, "0.0", "0"),
        (-0.05, "−5.0", "−5"),
        (0.025, "+2.5", "+2.5"),
        (-0.0001, "0.0", "−0.01"),
        (math.nan, "–", "+nan"),
    ],
)
def test_differences_as_written(value: float, sign: str, text: str, tmp_path: Path) -> None:
    scale = study(tmp_path, document()).sets[0].scale
    assert scale.difference(value) == sign
    assert words.tick(scale, value) == text


def _first(folder: Path, found: Document) -> EvalSet:
    return study(folder, found).sets[0]


def test_the_axis_holds_intervals_zero_and_margin(tmp_path: Path) -> None:
    cad = row("cad", "method", against={"greedy": against(difference=0.08, half=0.01)})
    at = forest.axis(_first(tmp_path, document(rows=[row(), cad])))
    assert at[0] <= -0.02 < 0.09 <= at[-1]
    none = row("cad", "method", against={"greedy": against(difference=None, low=None, high=None)})
    at = forest.axis(_first(tmp_path, document([eval_set(margin=None)], [row(), none])))
    assert at[0] <= 0.0 < at[-1]


def test_plane_labels_the_frontier_of_many(tmp_path: Path) -> None:
    rows = [row(value=0.5)]
    rows += [row(f"m{i}", "method", value=0.5 + 0.001 * i, cost=1 + 0.1 * i) for i in range(1, 20)]
    rows += [row(f"bad{i}", "method", value=0.4, cost=2 + 0.1 * i) for i in range(10)]
    found = plane.plane(_first(tmp_path, document(rows=rows)))
    assert found is not None
    assert {name for name in found.labels if name} == {"greedy", *(f"m{i}" for i in range(1, 20))}
    assert plane.plane(_first(tmp_path, document())) is None


def test_a_method_has_one_line_in_the_map(tmp_path: Path) -> None:
    """By its entry, or by its name where a set has it once; otherwise by its label."""
    two = [eval_set(), eval_set("pope@x", "POPE")]
    rows = [
        row("cad:alpha=1", "method", entry="cad", against={"greedy": against()}),
        row("cad:alpha=2", "method", entry="cad", of="pope@x", against={"greedy": against(difference=-0.01)}),
        row("dola:layers=low", "method", against={"greedy": against(verdict="")}),
        row("dola:layers=high", "method", of="pope@x", against={"greedy": against()}),
        row("icd:alpha=1", "method", against={"greedy": against()}),
        row("icd:alpha=2", "method", against={"greedy": against()}),
        row("topn", "control", against={"greedy": against(p_holm=None, verdict="")}),
    ]
    whole = study(tmp_path, document(two, rows))
    found = heat_map.grid(whole)
    assert found is not None
    assert found.names == ["cad", "dola", "icd:alpha=1", "icd:alpha=2", "topn"]
    assert [[cell.label if cell else None for cell in line] for line in found.cells[:3]] == [
        ["cad:alpha=1", "cad:alpha=2"],
        ["dola:layers=low", "dola:layers=high"],
        ["icd:alpha=1", None],
    ]
    said = [heat_map.text(whole, whole.sets[0], line[0]) for line in found.cells]
    assert said[0] == ("+3.1∗", "not judged")
    assert said[4] == ("+3.1", "control")
    assert heat_map.text(whole, whole.sets[1], None) == ("", "not run")
    assert found.strength(whole, 1, found.cells[0][1]) == pytest.approx(-0.01 / 0.031)  # type: ignore[arg-type]


def test_sets_of_one_title_are_told_apart(tmp_path: Path) -> None:
    sets = [eval_set("a"), eval_set("b", model="other"), eval_set("c", "POPE"), eval_set("d", "FACTOR")]
    assert [one.name for one in study(tmp_path, document([*sets, eval_set("e", "FACTOR")], [])).sets] == [
        "MemoTrap, SmolLM2-135M-Instruct",
        "MemoTrap, other",
        "POPE",
        "FACTOR, d",
        "FACTOR, e",
    ]


NOTHING = dict.fromkeys(against(), None) | {"label": "greedy"}
UNKNOWN: Any = dict.fromkeys(("value", "low", "high", "seconds_per_item", "cost"), math.nan)


@each(
    "found",
    [
        document(),
        document([], []),
        document([eval_set(test=1, clusters=1, development=1, chance=None, margin=None)], [row(n=1, **UNKNOWN)]),
        document(
            rows=[row(), row("cad", "method", against={"greedy": dict.fromkeys(against(), None) | {"label": "a"}})]
        ),
        document(rows=[row(), row("topn", "control", against={"greedy": against(p_holm=None, verdict="")})]),
        document(rows=[], looks=[], provenance={}),
    ],
)
def test_little_is_enough(found: Document, tmp_path: Path) -> None:
    """One row, none, no methods, figures that are not known: everything is written, and no NaN is shown."""
    written = write_pages(write(tmp_path / "study", found))
    text = "".join(path.read_text(encoding="utf-8") for path in written if path.suffix != ".png")
    assert not re.search(r"\b(nan|NaN|None|inf)\b", text)
    check_latex((tmp_path / "study" / "table.tex").read_text(encoding="utf-8"))


def test_two_hundred_rows(tmp_path: Path) -> None:
    whole = study(tmp_path, many(1, 134))
    assert len(lines(whole)) == 202
    text = text_of(whole)
    assert re.search(r"And \d+ more, in the tables\.", text)
    assert "and and" not in text
    assert all(one.label in text for one in whole.sets[0].rows)
    assert len(summary.groups(whole)[0].lines) <= 13


def test_everything_is_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra plots is not installed")
    written = write_pages(write(tmp_path, many(2, 4)))
    assert [path.name for path in written] == [*TEXTS, *PICTURES]
    for name in PICTURES:
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 900
            assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 50
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["study.json", *TEXTS, *PICTURES])


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("truthkit.figures.find_spec", lambda _name: None)
    (tmp_path / "forest.png").write_bytes(b"of yesterday")
    written = write_pages(write(tmp_path, document()))
    assert [path.name for path in written] == list(TEXTS)
    assert not (tmp_path / "forest.png").exists()


def test_labels_of_pictures() -> None:
    assert label("cad:alpha=1") == "cad:alpha=1"
    first, second = label(LONG).split("\n")
    assert LONG.startswith(first.split("…")[0])
    assert LONG.endswith(second)
    assert max(map(len, (first, second))) <= 38


@each(
    "change, message",
    [
        ({"study": {}}, r"'study' of .*study.json has no 'name'"),
        ({"rows": [row(of="other")]}, "row 1 is of the set 'other', which is none of its sets"),
        ({"rows": [row(role="hero")]}, "role is 'hero'; expected baseline, method, control"),
        ({"rows": [row(verdict="great")]}, "verdict is 'great'; expected better, worse"),
        ({"rows": [row(value="much")]}, "'value' of .* is 'much'; expected a number or null"),
        ({"rows": [row(against={"greedy": {"label": "greedy"}})]}, "a comparison of .* has no 'difference'"),
        ({"rows": [row(against=[])]}, "expected an object"),
    ],
)
def test_what_is_no_study(change: Document, message: str, tmp_path: Path) -> None:
    with pytest.raises(tk.ArgumentError, match=message):
        write_pages(write(tmp_path, document() | change))


def test_no_study(tmp_path: Path) -> None:
    with pytest.raises(tk.NotAvailableError, match=r"there is no study\.json"):
        write_pages(tmp_path)


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_in_a_browser(nasty: Study, tmp_path: Path) -> None:
    """Chromium finds no more elements than the page has, in both schemes and widths a picture of the right paper."""
    (tmp_path / "report.html").write_text(page(nasty), encoding="utf-8")
    base = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]

    def chromium(*options: str) -> str:
        command = [*base, *options, (tmp_path / "report.html").as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    assert read(chromium("--dump-dom")).tags == read(page(nasty)).tags
    papers = []
    for scheme, width in ((1, 1280), (0, 390)):
        shot = tmp_path / f"{scheme}.png"
        chromium(
            f"--screenshot={shot}", f"--window-size={width},1400", f"--blink-settings=preferredColorScheme={scheme}"
        )
        with Image.open(shot) as picture:
            papers.append(max(picture.convert("RGB").getcolors(1 << 24) or [])[1])
    assert papers == [(255, 255, 255), (20, 22, 26)]
