"""The demo. Oracle: marks and counts that a reader made; the exact sign test written out; one whole quick run."""

from __future__ import annotations

import io
import re
from math import comb
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from recipes import demo
from recipes.demo_parts import amateur, claims, memory, pictures, steering
from recipes.demo_parts.screen import Result, closing, compared, figures
from truthkit.detection.detect import Detection, TokenScore
from truthkit.output import Output
from truthkit.scenes import held_out


def printed(thing: object, width: int = 100) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(thing)
    return console.export_text()


def test_results_in_figures_and_words() -> None:
    pairs = [(0.0, 1.0)] * 7 + [(1.0, 1.0)] * 2 + [(1.0, 0.0)]
    one = compared("M", "right ↑", ("3 of 10", "9 of 10"), pairs)
    assert (one.better, one.worse, one.items) == (7, 1, 10)
    assert one.chance == pytest.approx(2 * (comb(8, 0) + comb(8, 1)) / 2**8)
    verdicts = {(7, 1): "leans better", (8, 0): "better", (0, 6): "worse", (1, 2): "leans worse", (3, 3): "even"}
    for (better, worse), said in verdicts.items():
        assert Result("M", "right", "", "", better, worse, 20).verdict == said
    assert Result("M", "right", "", "", 0, 0, 20).verdict == "even"
    lines = printed(figures([one, Result("M", "lost ↓", "1", "1", 0, 0, 10)])).splitlines()
    assert re.split(r"\s{2,}", lines[1].strip()) == ["M: right ↑", "3 of 10", "9 of 10", "7 of 10", "1", "7 of 100"]
    assert re.split(r"\s{2,}", lines[2].strip())[-1] == "–"
    table = printed(closing([("Part", one), ("Part", one), ("Other", one)]), 80)
    assert table.count("Part") == 1
    assert table.count("7 : 1") == 3
    assert max(map(len, table.splitlines())) <= 80


def test_what_is_asked() -> None:
    texts = [one.text for one in memory.SAYINGS]
    assert texts == sorted(texts)
    for saying in memory.SAYINGS:
        item = memory._item(saying)
        assert item.choices == (f" {saying.asked}.", f" {saying.known}.")
        assert item.prompt == item.context + saying.text
    for question in amateur.QUESTIONS:
        lengths = [len(choice.split()) for choice in question[1:]]
        assert max(lengths) - min(lengths) <= 2, question
    asked = claims.claims()
    assert len({one.question for one in asked}) == 16
    assert asked[3] == (
        "What is the capital of Canada?",
        "The capital of Canada is Ottawa.",
        "The capital of Canada is Paris.",
    )
    words = [sorted(" ".join(getattr(one, side) for one in asked).split()) for side in ("true", "false")]
    assert words[0] == words[1]  # what false claims are made of, true ones are made of too


def test_marks() -> None:
    assert [steering.mood(text) for text in ("A lovely day!", "It hurt. I love it. Sad.", "Cats.", "hats")] == [
        1,
        -1,
        0,
        0,
    ]
    listed = set(steering.GLAD.split()) & set(steering.SAD.split())
    assert not listed
    (scene,) = held_out(1, seed=3)
    there, absent = scene.names[0], scene.absent_partners[0]
    counted = pictures.count(scene, f"There is a {there} and a {absent}.")
    assert counted.invented == [absent]
    assert counted.missing == list(scene.names[1:])


def test_the_suspected_word() -> None:
    said = "It was Jane Austen."
    for start, shown in ((6, "It was [Jane] Austen."), (7, "It was [Jane] Austen."), (12, "It was Jane [Austen]."),
                         (0, "[It] was Jane Austen.")):  # fmt: skip
        tokens = (TokenScore(0, 2, 0.5 if start else 2.0), TokenScore(start, start + 3, 1.0))
        found = claims.suspected(Detection("?", said, 0.0, tokens))
        assert isinstance(found, Text)
        assert found.plain == shown


def test_one_part_on_the_model(smollm2: Any, capsys: pytest.CaptureFixture[str]) -> None:
    model, tokenizer = smollm2
    (cad, lead, *_) = memory.show(Output(width=80), model, tokenizer, quick=True)
    assert (cad.method, cad.items, lead.items) == ("CAD", 3, 3)
    out = capsys.readouterr().out
    assert out.count("louder than music, not words") == 1
    assert "CAD: instruction followed ↑" in out


@pytest.mark.slow
def test_a_quick_run(smollm2: Any, capsys: pytest.CaptureFixture[str]) -> None:
    demo.main(["--quick"])
    out = " ".join(capsys.readouterr().out.split())
    for number, stage in enumerate(demo.STAGES, start=1):
        assert f"{number} of 6: {stage.part.title}" in out
        assert out.count(stage.part.title) >= 3  # heading, closing table, time
    assert re.search(r"It took \d+ s, of them \d+ s of CPU time", out)
