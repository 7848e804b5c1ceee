"""Parts of a task: by content, families whole, nothing in both."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from truthkit.errors import ArgumentError
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.task import Task
from truthkit.evaluation.tasks.memotrap.task import MEMOTRAP
from truthkit.study.split import check_apart, families, said, split


def task(items: list[Item], unit: int = 1) -> Task:
    def score(*_: object) -> None:
        raise AssertionError

    return Task("made up", items, score, "accuracy", unit=unit)  # type: ignore[arg-type]


def prompts(found: Task, numbers: list[int]) -> set[str]:
    return {found.items[number].prompt for number in numbers}


def test_a_part_depends_on_what_is_said_alone() -> None:
    """Another order, other ids, other company: every item goes where it went."""
    items = [Item(str(n), f"question {n}") for n in range(400)]
    first = split(task(items), 0.25)
    assert 70 < len(first.development) < 130
    assert len(first.test) == 400 - len(first.development)
    assert not set(first.development) & set(first.test)
    shuffled = random.Random(1).sample(items, 300)
    renamed = task([Item(f"other {n}", item.prompt) for n, item in enumerate(shuffled)])
    again = split(renamed, 0.25)
    developed = prompts(task(items), first.development)
    assert prompts(renamed, again.development) == developed & {item.prompt for item in shuffled}
    assert split(task(items), 0.25, seed=1) != first
    few = split(task(items), 0.25, limit=50, development_limit=10)
    assert (len(few.test), len(few.development)) == (50, 10)
    assert set(few.test) < set(first.test)
    assert set(few.development) < set(first.development)
    assert split(task(items), 0.0).development == []
    assert split(task(items), 1.0).test == []


def test_families_stay_together(tmp_path: Path) -> None:
    """One question with two passages, one picture under two names, and units of neighbours."""
    passages = [Item(str(n), f"passage {n}. who is {n // 2}?", context=f"passage {n}. ") for n in range(40)]
    assert families(task(passages)) == [[n, n + 1] for n in range(0, 40, 2)]
    pictures = []
    for n in range(20):
        path = tmp_path / f"{n}.png"
        Image.new("RGB", (4, 4), (10 * (n // 2), 0, 0)).save(path)
        pictures.append(Item(str(n), "is there a cat?", (str(path),)))
    assert families(task(pictures)) == [[n, n + 1] for n in range(0, 20, 2)]
    assert said(pictures[0]) == said(pictures[1]) != said(pictures[2])
    units = task([Item(str(n), f"question {n}") for n in range(20)], unit=2)
    assert families(units) == [[n, n + 1] for n in range(0, 20, 2)]
    for one in (task(passages), task(pictures), units):
        parts = split(one, 0.5)
        assert parts.development
        assert all((n ^ 1) in parts.development for n in parts.development)
        assert all((n ^ 1) in parts.test for n in split(one, 0.5, limit=7).test)


def test_what_is_in_both_parts_is_named(tmp_path: Path) -> None:
    one, other = Item("a 1", "who is it?"), Item("b 7", "Read this. who is it?", context="Read this. ")
    with pytest.raises(
        ArgumentError, match=r"x: items 'a 1' .* and 'b 7' of the test data ask the same .* 1 of 2 test"
    ):
        check_apart([one], [Item("c", "else?"), other], "x")
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(path)
    with pytest.raises(ArgumentError, match="show the same picture"):
        check_apart([Item("1", "a cat?", (str(path),))], [Item("2", "a dog?", (str(path),))], "x")
    check_apart([Item("1", "a cat?")], [Item("2", "a dog?")], "x")


@pytest.mark.slow
def test_no_family_is_most_of_a_benchmark(shared_data: Path) -> None:
    """Real data: what belongs together is a few items, and intervals draw nothing that lies in both parts."""
    found = MEMOTRAP.task(shared_data / "data" / "memotrap")
    assert max(map(len, families(found))) < 20
    parts = split(found, 0.2)
    clusters = []
    for numbers in parts:
        outputs = [{"log_probs": [0.0, 1.0]} for _ in numbers]
        clusters.append(set(found.score(numbers, outputs).clusters))
    assert not clusters[0] & clusters[1]


def test_a_task_may_name_its_families() -> None:
    """As HallusionBench its sets of figures; a part of the task is scored as the whole scores these items."""
    items = [Item(str(n), f"question {n}") for n in range(9)]

    def score(which: Any, outputs: Any) -> Any:
        return list(which), outputs

    whole = Task("made up", items, score, "accuracy", families=tuple(n // 3 for n in range(9)))
    assert families(whole) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    part = whole.part([3, 4, 8], part="test")
    assert part.items == [items[n] for n in (3, 4, 8)]
    assert part.config == {"part": "test"}
    assert families(part) == [[0, 1], [2]]
    assert part.score([0, 2], "ab") == ([3, 8], "ab")
