"""How long a study's runs will take."""

from __future__ import annotations

from truthkit.study.pace import Asked, Pace


def test_a_slow_set_says_nothing_of_another() -> None:
    pace = Pace()
    pace.learn(Asked("slow", "large", 10), 100.0)
    pace.learn(Asked("quick", "small", 1000), 1.0)
    assert pace.ahead([Asked("quick", "small", 3000), Asked("slow", "large", 5)]) == 53.0


def test_a_set_without_runs_goes_by_its_model() -> None:
    pace = Pace()
    assert pace.ahead([Asked("one", "small", 10)]) is None
    pace.learn(Asked("one", "small", 10), 1.0)
    pace.learn(Asked("two", "small", 10), 3.0)
    assert pace.ahead([Asked("three", "small", 10)]) == 2.0
    assert pace.ahead([Asked("three", "large", 10)]) is None
    assert pace.ahead([]) == 0.0
