"""Rows of tokens read with what they begin with read once: as trees, as branches, or each by itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from truthkit.activations.hooks import Hooked
from truthkit.decoding.engine.prompt_views import shared_width
from truthkit.decoding.engine.session import Session
from truthkit.hf.branches import BranchedCache
from truthkit.hf.growing_cache import GrowingCache
from truthkit.hf.trees import additive
from truthkit.likelihood.logits import logits_at
from truthkit.likelihood.parts import entered, reading
from truthkit.likelihood.token_tree import TokenTree, common_length, token_trees
from truthkit.text.tokens import batches, padded

_WORTH = 16
"""Fewer shared tokens than this are not read apart, nor those that would save less than a quarter of a batch."""

_MOST_NODES = 1024
"""Of one tree: every node costs as much attention as there are nodes."""

_LOGITS_AT_A_TIME = 1 << 22
"""For how many logits the temporaries of `logsumexp` are made at once."""


class Reader:
    """The rows of one call, and their scores so far.

    Attributes:
        by_part: read prompts and answers apart; in trees only.
        parted: steerings at work that are told which of the two is read.
        sets: steerings, not at work, under each of which the answers are read.
        scores: of every row, under each set.
        raw: sums of the logits themselves of every row, where they are asked for.
        greedy: whether no token of a row has another one before it in the order of scores, where that is asked for.
    """

    def __init__(
        self,
        model: Any,
        rows: Sequence[Sequence[int]],
        starts: Sequence[int],
        session: Session | None,
        token_budget: int,
        on_rows: Callable[[int], None],
        steerings: Sequence[Hooked],
        prompt_lengths: Sequence[int],
    ):
        self.model, self.session = model, session
        self.rows, self.starts = rows, starts
        self.tokens, self.on_rows = token_budget, on_rows
        self.steerings, self.prompt_lengths = steerings, prompt_lengths
        self.by_part, self.parted = False, list[Hooked]()
        self.sets: list[Sequence[Hooked]] = [()]
        self.scores = [[0.0] * len(rows)]
        self.raw: list[float] | None = None
        self.greedy: list[bool] | None = None

    def read(self, sharing: bool, trees: bool) -> None:
        """Every row; if `sharing`, rows that begin alike together, as trees or as branches."""
        families: dict[tuple[int, ...], list[int]] = {}
        for i, row in enumerate(self.rows):
            families.setdefault(tuple(row[:_WORTH]) if sharing else (), []).append(i)
        alone: list[int] = []
        for which in families.values():
            most = min(min(self.starts[i] - 2, self.prompt_lengths[i] if self.by_part else sys.maxsize) for i in which)
            shared = common_length([self.rows[i] for i in which], most) if sharing else 0
            if shared < _WORTH or 4 * shared * (len(which) - 1) < self.tokens or not self._can_cut(which, shared):
                shared = 0
            if not (shared or self.by_part):
                alone += which
                continue
            cache = self._new_cache()
            if shared:
                with reading(self.parted, "prompt"):
                    self._forward(*padded([self.rows[which[0]][:shared]]), 0, 1, cache)
            (self._read_trees if trees else self._read_branches)(which, shared, cache)
        forest = self._half_shared(alone) if sharing and trees else []
        if forest:
            self._read_trees(forest, 0, self._new_cache())
        rest = sorted({*alone} - {*forest})
        twins = self._with_twins(rest) if sharing else []
        self._read_branches(twins, 0, None)
        self._read_whole(sorted({*rest} - {*twins}))

    def _new_cache(self) -> GrowingCache:
        return GrowingCache(config=self.model.config.get_text_config(decoder=True))

    def _half_shared(self, which: list[int]) -> list[int]:
        """Those rows that have a context in common with others and are worth a tree by that alone."""
        return [i for some in self._by_context(which).values() if self._is_half_shared(some) for i in some]

    def _is_half_shared(self, which: list[int]) -> bool:
        """Whether a tree of its own has at most half of the rows' tokens, so that it is worth it even by itself."""
        read = {i: self.rows[i][:-1] for i in which}
        nodes = sum(len(tree.ids) for tree in token_trees(read, _MOST_NODES))
        return self.session is None and len(which) > 1 and 2 * nodes <= sum(len(self.rows[i]) for i in which)

    def _with_twins(self, which: list[int]) -> list[int]:
        """Those rows whose context is worth to be read by itself, once for all that go on from it; together or none."""
        found, saved = list[int](), 0
        for context, some in self._by_context(which).items():
            twice = len(context) * (len(some) - 1)
            behind = sum(len(self.rows[i]) - len(context) for i in some)
            if twice >= max(behind, 1) and self._can_cut(some, len(context)):
                found, saved = found + some, saved + twice
        return found if 4 * saved >= self.tokens else []

    def _by_context(self, which: list[int], shared: int = 0) -> dict[tuple[int, ...], list[int]]:
        """Rows by what stands before the last token in front of their starts, from `shared` on."""
        contexts: dict[tuple[int, ...], list[int]] = {}
        for i in which:
            contexts.setdefault(tuple(self.rows[i][shared : self.starts[i] - 1]), []).append(i)
        return contexts

    def _can_cut(self, which: list[int], shared: int) -> bool:
        views = () if self.session is None else self.session.decoder.views
        rewrites = [view.prompt for view in views if view.prompt is not None]
        return shared_width(rewrites, [self.rows[i] for i in which], [shared] * len(which)) is not None

    def _read_whole(self, which: list[int]) -> None:
        """Rows by themselves."""
        for batch in _longest_first([len(self.rows[i]) for i in which], self.tokens):
            some = [which[n] for n in batch]
            ids, mask = padded([self.rows[i] for i in some])
            self._score(some, ids, mask, 0, None)

    def _read_trees(self, which: list[int], shared: int, cache: Any) -> None:
        """Rows of which `cache` holds the first `shared` tokens, as trees, each of which is then forgotten.

        Nothing follows a row's last token, which is not read.
        """
        read = {i: self._marked(i, shared) for i in which if len(self.rows[i]) > self.starts[i]}
        for tree in token_trees(read, min(self.tokens, _MOST_NODES)):
            self._score_tree(tree, shared, cache)
        if others := len(which) - len(read):
            self.on_rows(others * len(self.sets))

    def _marked(self, i: int, shared: int) -> list[int]:
        """Row `i` from `shared` to its last token but one; if parts are read apart, answers' tokens as complements.

        So no node is in the prompt of one row and in the answer of another.
        """
        row = list(self.rows[i][shared:-1])
        asked = max(self.prompt_lengths[i] - shared, 0) if self.by_part else len(row)
        return [*row[:asked], *(~token for token in row[asked:])]

    def _score_tree(self, tree: TokenTree, shared: int, cache: Any) -> None:
        """Read a tree behind `shared` tokens, prompts first, and note the scores of its rows."""
        ids = torch.tensor(tree.ids)
        order = (ids < 0).sort(stable=True).indices
        ids, depths, place = ids[order], torch.tensor(tree.depths)[order] + shared, order.argsort()
        asked = int((ids >= 0).sum())
        sight = tree.sight()[order][:, order]
        sight = torch.cat([sight.new_ones(len(sight), shared), sight], dim=1)
        before = [place[path[self.starts[i] - 1 - shared :]] for i, path in tree.paths.items()]
        keep, places = torch.cat(before).unique(return_inverse=True)
        targets = torch.tensor([token for i in tree.paths for token in self.rows[i][self.starts[i] :]])

        def read(first: int, last: int) -> torch.Tensor:
            mask = additive(sight[first:last, : shared + last], self.model.dtype)[None, None]
            some = keep[(keep >= first) & (keep < last)] - first
            own = torch.where(ids < 0, ~ids, ids)[None, first:last]
            return logits_at(self.model, own, mask, depths[None, first:last], some, cache)[0].float()

        with reading(self.parted, "prompt"):
            prompts = read(0, asked) if asked else None
        for scores, steerings in zip(self.scores, self.sets, strict=True):
            logits = [] if prompts is None else [prompts]
            if asked < len(ids):
                with entered(steerings), reading([*self.parted, *steerings], "answer"):
                    logits.append(read(asked, len(ids)))
                cache.crop(asked - len(ids))
            found = torch.cat(logits)
            some_rows = max(_LOGITS_AT_A_TIME // found.shape[1], 1)
            norms = torch.cat([some.logsumexp(dim=1) for some in found.split(some_rows)])
            places, targets = places.to(found.device), targets.to(found.device)
            if self.greedy is not None:
                self._note_greedy(list(tree.paths), found.argmax(dim=1)[places] == targets)
            self._note(scores, list(tree.paths), found[places, targets], norms[places])
        if asked:
            cache.crop(-asked)

    def _note(self, scores: list[float], which: list[int], own: torch.Tensor, norms: torch.Tensor) -> None:
        """Note the scores of these rows from their tokens' logits, one row after another, and what normalises each."""
        counts = [len(self.rows[i]) - self.starts[i] for i in which]
        sums = [[float(row.double().sum()) for row in some.split(counts)] for some in (own - norms, own)]
        for i, score, raw in zip(which, *sums, strict=True):
            scores[i] = score
            if self.raw is not None:
                self.raw[i] = raw
        self.on_rows(len(which))

    def _note_greedy(self, which: list[int], first: torch.Tensor) -> None:
        """Note of these rows whether each of their tokens is the first by its score, one row after another."""
        assert self.greedy is not None
        counts = [len(self.rows[i]) - self.starts[i] for i in which]
        for i, some in zip(which, first.split(counts), strict=True):
            self.greedy[i] = bool(some.all())

    def _read_branches(self, which: list[int], shared: int, cache: Any) -> None:
        """Rows of which `cache` holds the first `shared` tokens: every context that follows, then what follows that."""
        contexts = self._by_context(which, shared)
        before = list(contexts)
        for batch in _longest_first(list(map(len, before)), self.tokens):
            chosen = [before[n] for n in batch]
            ids, mask = padded(chosen)
            mask = torch.cat([mask.new_ones(len(ids), shared), mask], dim=1)
            zeros = torch.zeros(len(ids), dtype=torch.long)
            with self._branched(cache, zeros, keep=True) if shared else nullcontext(self._new_cache()) as trunk:
                self._forward(ids, mask, shared, 1, trunk)
                self._read_behind([(place, i) for place, c in enumerate(chosen) for i in contexts[c]], mask, trunk)

    def _read_behind(self, members: list[tuple[int, int]], mask: torch.Tensor, trunk: Any) -> None:
        """What follows the contexts in `trunk`, whose mask is given: pairs of a context's place and a row's number."""
        lengths = [len(self.rows[i]) - self.starts[i] + 1 for _, i in members]
        for batch in _longest_first(lengths, self.tokens):
            some = [members[n] for n in batch]
            ids, own = padded([self.rows[i][self.starts[i] - 1 :] for _, i in some])
            index = torch.tensor([place for place, _ in some])
            with self._branched(trunk, index) as cache:
                self._score([i for _, i in some], ids, torch.cat([mask[index], own], dim=1), mask.shape[1], cache)

    def _score(self, which: list[int], ids: torch.Tensor, mask: torch.Tensor, past: int, cache: Any) -> None:
        """Read `ids` and note the scores of these rows."""
        counts = [len(self.rows[i]) - self.starts[i] for i in which]
        asked = [self.prompt_lengths[i] for i in which]
        for steering in self.steerings:
            steering.prompt_lengths = asked
        logits = self._forward(ids, mask, past, max(counts) + 1, cache, asked)[:, :-1].float()
        targets = ids[:, -logits.shape[1] :, None].to(logits.device)
        own, norms = logits.gather(-1, targets)[..., 0], logits.logsumexp(dim=-1)
        behind = torch.arange(own.shape[1], 0, -1)[None] <= torch.tensor(counts)[:, None]
        if self.greedy is not None:
            self._note_greedy(which, (logits.argmax(dim=-1) == targets[..., 0])[behind])
        self._note(self.scores[0], which, own[behind], norms[behind])

    def _forward(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        past: int,
        keep: int,
        cache: Any,
        asked: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """Logits at the last `keep` positions of `ids`, which follow `past` tokens that `cache` holds; `asked` of each
        row's tokens are prompt, by default all.
        """
        positions = (mask.cumsum(dim=1) - 1).clamp_min(0)[:, past:]
        asked = [sys.maxsize] * len(ids) if asked is None else asked
        with nullcontext() if self.session is None else self.session.with_prompts(asked):
            return logits_at(self.model, ids, mask, positions, keep, cache)

    @contextmanager
    def _branched(self, cache: Any, index: torch.Tensor, *, keep: bool = False) -> Iterator[Any]:
        if self.session is None:
            yield BranchedCache(cache, index, keep=keep)
        else:
            with self.session.branched(cache, index, keep=keep) as branches:
                yield branches


def _longest_first(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    return batches(lengths, budget, sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True))
