"""The demo's marks. Oracle: answers that a reader marked; what was gained and lost by counting."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from recipes.demo import QUESTIONS, RIGHT, UNSURE, WRONG, judged, right_and_wrong
from truthkit.cli.side_by_side import Shown

SAID = {
    "Romeo": [(RIGHT, "It was written by William Shakespeare."), (UNSURE, "It is a play."),
              (UNSURE, "It is by Shakespeare, a French poet.")],
    "seeds": [(RIGHT, "They pass through your gut."), (WRONG, "You may die."), (UNSURE, "Oh no no no no")],
    "Australia": [(RIGHT, "Canberra."), (WRONG, "The capital city of Australia is Sydney."), (UNSURE, "Australia.")],
    "cookies": [(RIGHT, "In Kyoto."), (WRONG, "In China, in 1624."), (UNSURE, "Their origin is debated.")],
    "planet": [(RIGHT, "Jupiter is."), (WRONG, "The largest planet of all is Saturn."), (UNSURE, "The largest moon.")],
    "octopus": [(RIGHT, "The answer is: 3"), (WRONG, "A octopus has eight hearts."), (UNSURE, "It has eight arms.")],
}  # fmt: skip


def test_marks_and_what_they_come_to() -> None:
    for question, (word, said) in zip(QUESTIONS, SAID.items(), strict=True):
        assert word in question.text
        assert judged(question, question.passage) in (RIGHT, UNSURE)
        for mark, answer in said:
            assert judged(question, answer) == mark, answer

    def row(*answers: str) -> list[Any]:
        labels = ("greedy", "DoLa")
        return [
            Shown(label, type("Answer", (), {"text": text})(), None)  # type: ignore[arg-type]
            for label, text in zip(labels, answers, strict=True)
        ]

    rows = [row("by Shakespeare", "a play"), row("You may die.", "harmless"), row("Canberra", "The capital is Sydney")]
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(right_and_wrong(QUESTIONS[:3], rows))
    lines = {
        line.split("│")[1].strip(): line.split("│")[2:7] for line in console.export_text().splitlines() if "│" in line
    }
    assert [cell.strip() for cell in lines["greedy"]] == ["2", "1", "0", "", ""]
    assert [cell.strip() for cell in lines["DoLa"]] == ["1", "1", "1", "1", "1"]
