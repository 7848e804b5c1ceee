"""Stages are run once, and again when what they depend on has changed or what they made is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recipes.stages import Stages


def test_once_and_again(tmp_path: Path) -> None:
    said: list[str] = []
    runs: list[int] = []

    def result(decides: dict[str, Any], **also: Any) -> Any:
        stages = Stages(tmp_path / "new", decides, said.append)
        got = stages.run("one", lambda: {"layers": {1: len(runs)}, "runs": runs.append(1)}, "data seed", **also)
        assert stages.kept("one") == got
        return got["layers"]

    first = {"data": ["a", Path("b")], "seed": 0, "other": 1}
    assert result(first) == {"1": 0}
    assert result(first) == result(first | {"other": 2}) == {"1": 0}
    assert len(said) == 1
    assert result(first | {"seed": 1}) == {"1": 1}
    assert result(first | {"seed": 1}, size=3) == {"1": 2}
    assert len(runs) == 3


def test_it_goes_on_with_what_is_there_unless_the_settings_are_others(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    partial = tmp_path / "adapter.partial"

    def killed() -> None:
        partial.mkdir(exist_ok=True)
        (partial / f"step-{len(list(partial.iterdir()))}").touch()
        raise KeyboardInterrupt

    for seed, steps in ((0, 1), (0, 2), (1, 1)):
        stages = Stages(tmp_path, {"seed": seed}, print)
        with pytest.raises(KeyboardInterrupt):
            stages.run("train", killed, "seed", adapter)
        assert len(list(partial.iterdir())) == steps
    assert stages.run("train", lambda: adapter.mkdir() or 5, "seed", adapter) == 5
    assert stages.run("train", lambda: 6, "seed", adapter) == 5
    adapter.rmdir()
    assert stages.run("train", lambda: adapter.mkdir() or 7, "seed", adapter) == 7
    other = Stages(tmp_path, {"seed": 2}, print)
    assert other.run("train", lambda: adapter.exists(), "seed", adapter) is False
