"""Trees of tokens. Oracle: what each row sees of itself."""

from __future__ import annotations

import random

import pytest

from truthkit.likelihood.token_tree import token_trees


@pytest.mark.parametrize("most", [1, 6, 15, 1000])
def test_trees_hold_every_row_and_nothing_twice(most: int) -> None:
    for seed in range(5):
        check(seed, most)


def check(seed: int, most: int) -> None:
    drawn = random.Random(seed)
    rows = [[drawn.randrange(3) for _ in range(drawn.randrange(1, 7))] for _ in range(20)]
    found: list[int] = []
    for tree in token_trees(dict(enumerate(rows)), most):
        sight = tree.sight()
        beginnings = set()
        for number, path in tree.paths.items():
            assert [tree.ids[node] for node in path] == rows[number]
            assert [tree.depths[node] for node in path] == list(range(len(path)))
            for place, node in enumerate(path):
                assert sight[node].nonzero().flatten().tolist() == path[: place + 1]
                beginnings.add(tuple(rows[number][: place + 1]))
        assert len(tree.ids) == len(beginnings)
        assert len(tree.ids) <= most or len(tree.paths) == 1
        found += tree.paths
    assert sorted(found) == list(range(len(rows)))
