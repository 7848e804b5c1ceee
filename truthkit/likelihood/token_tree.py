"""Rows of tokens that begin alike as one row of a model's batch: a tree, read depth first.

Each beginning that several rows share is in the tree once. A node sees the nodes that it goes on from and itself, and
its position is that of its token in the rows: so its logits are those of every row through it. The same is done for
drafts in speculative decoding: X. Miao and others, *SpecInfer* (arXiv 2305.09781), section 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch


@dataclass
class TokenTree:
    """Rows laid out as one.

    Attributes:
        ids: each node's token, depth first.
        depths: each node's place in its rows.
        paths: for each row, by its number, the nodes of its tokens.
    """

    ids: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    paths: dict[int, list[int]] = field(default_factory=dict)

    def add(self, number: int, row: Sequence[int], same: int) -> None:
        """Add a row whose first `same` tokens are those of the row that was added last."""
        before = self.paths[next(reversed(self.paths))][:same] if same else []
        self.paths[number] = [*before, *range(len(self.ids), len(self.ids) + len(row) - same)]
        self.ids += row[same:]
        self.depths += range(same, len(row))

    def sight(self) -> torch.Tensor:
        """Which nodes (second dimension) each node sees; (nodes, nodes), bool."""
        ends = torch.zeros(len(self.ids), dtype=torch.long)
        for path in self.paths.values():
            ends[path] = path[-1] + 1
        node = torch.arange(len(ends))
        return (node[None] <= node[:, None]) & (node[:, None] < ends[None])


def token_trees(rows: Mapping[int, Sequence[int]], most: int) -> Iterator[TokenTree]:
    """Trees of at most `most` nodes, or of one row, that together hold all `rows`, by number; none of them is empty."""
    tree = TokenTree()
    last: Sequence[int] = ()
    for number, row in sorted(rows.items(), key=lambda item: tuple(item[1])):
        same = common_length((last, row), len(row))
        if tree.ids and len(tree.ids) + len(row) - same > most:
            yield tree
            tree, same = TokenTree(), 0
        tree.add(number, row, same)
        last = row
    if tree.ids:
        yield tree


def common_length(rows: Sequence[Sequence[int]], most: int) -> int:
    """How many first tokens all rows share, at most so many."""
    length = 0
    for column in zip(*rows, strict=False):  # to the end of the shortest
        if length == most or len(set(column)) > 1:
            break
        length += 1
    return length
