"""How far long work is. Oracle: lines written by hand for a clock that the test turns."""

from __future__ import annotations

import io
import sys
import time

import pytest

from truthkit import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_lines_of_a_log(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    asked = []

    def said() -> str:
        asked.append(bar.n)
        return f"f1 {bar.n / 1000}"

    with progress.progress_bar(1000, "pope", "items", initial=100, said=said) as bar:
        for seconds in (5, 15, 10, 15, 60, 3600):
            clock[0] += seconds
            bar.update(100)
        clock[0] += 5
        bar.update(300)
    assert capsys.readouterr().err.splitlines() == [
        "truthkit: pope: 300 of 1,000 items (30%) in 0:20, about 1:10 left; f1 0.3",  # 200 in 20 s; none of the 100
        "truthkit: pope: 600 of 1,000 items (60%) in 1:45, about 1:24 left; f1 0.6",
        "truthkit: pope: 700 of 1,000 items (70%) in 1:01:45, about 30:52 left; f1 0.7",
        "truthkit: pope: 1,000 of 1,000 items (100%) in 1:01:50; f1 1.0",
    ]
    assert asked == [300, 600, 700, 1000]


def test_short_and_hidden_work_says_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress_bar(2, "detection", "answers") as bar:
        clock[0] += 10
        bar.update(2)
    with progress.progress_bar(2, "detection", "answers", shown=False) as bar:
        clock[0] += 100
        bar.update(2)
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress.progress_bar(4, "training", "steps", initial=1, said=lambda: "loss 1.000") as bar:
        bar.update(3)
    said = sys.stderr.getvalue()
    assert "training" in said
    assert "4/4" in said
    assert "loss 1.000" in said
