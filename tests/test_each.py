"""The table of cases tries all of them and names those that fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.each import each


@each("one, two", [(1, 1), (2, 2)])
def test_with_a_fixture(one: int, two: int, tmp_path: Path) -> None:
    assert tmp_path.is_dir()
    assert one == two


def test_failures_are_named() -> None:
    tried = []

    @each("number", [1, 2, 3])
    def odd(number: int) -> None:
        tried.append(number)
        assert number == 2

    with pytest.raises(ExceptionGroup, match="2 of 3 cases") as found:
        odd()
    assert tried == [1, 2, 3]
    assert [one.__notes__ for one in found.value.exceptions] == [["case: number=1"], ["case: number=3"]]
