"""Log-probabilities of given texts under a model and a decoder, with what they begin with read once for all.

Choices share their question, and questions behind one few-shot prompt share that. What a family of rows begins with is
read first, and what follows as trees of tokens, in which every other beginning that is shared is once too
(`truthkit.likelihood.token_tree`). Where attention cannot take a tree, each context is read in a row, and what goes on
from it in further rows (`truthkit.hf.branches`).

Steering that changes prompts otherwise than answers leaves a tree in one piece: the nodes of prompts are read in one
forward, those of answers in another. Several steerings of answers thus share the prompts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from truthkit.activations.hooks import Hooked
from truthkit.decoding.engine.prompt_views import shared_width
from truthkit.decoding.engine.session import Session
from truthkit.hf.branches import BranchedCache, takes_branches
from truthkit.hf.growing_cache import GrowingCache
from truthkit.hf.packed_attention import packed_attention
from truthkit.hf.room import check_room
from truthkit.hf.sites import text_decoder
from truthkit.hf.trees import additive, takes_trees
from truthkit.hf.wrapping import plain_model
from truthkit.likelihood.logits import logits_at
from truthkit.likelihood.parts import acts_by_part, acts_on_answers, entered, reading
from truthkit.likelihood.token_tree import TokenTree, common_length, token_trees
from truthkit.text.tokens import batches, padded

_WORTH = 16
"""Fewer shared tokens than this are not read apart, nor those that would save less than a quarter of a batch."""

_MOST_NODES = 1024
"""Of one tree: every node costs as much attention as there are nodes."""

_LOGITS_AT_A_TIME = 1 << 22
"""For how many logits the temporaries of `logsumexp` are made at once."""


def log_probabilities(
    model: Any,
    rows: Sequence[Sequence[int]],
    starts: Sequence[int],
    session: Session | None = None,
    *,
    token_budget: int = 512,
    share_prefix: bool = True,
    on_rows: Callable[[int], None] = lambda _count: None,
    steerings: Sequence[Hooked] = (),
    prompt_lengths: Sequence[int] | None = None,
) -> list[float]:
    """The log-probability of each row from its start on: the sum over its tokens, natural logarithm.

    Args:
        model: a causal language model; under a decoder its logits are the decoder's.
        rows: token ids.
        starts: for each row the first position that counts, at least 1.
        session: of the decoder that the caller has attached to `model`, or None.
        token_budget: how many tokens, padding and shared ones aside, are read at a time.
        share_prefix: read the rows' common beginning once, and what rows have in common before their starts.
        on_rows: called with the number of rows that were just done.
        steerings: those at work on the model. Those that act at the tokens of a passage, say, need every row whole, so
            nothing is shared under them.
        prompt_lengths: how many of each row's tokens are prompt to them; None is `starts`.

    Raises:
        ArgumentError: a row has more tokens than the model has room for.
    """
    if not rows:
        return []
    lengths = starts if prompt_lengths is None else prompt_lengths
    reader = _Reader(model, rows, starts, session, token_budget, on_rows, (), lengths)
    _read(reader, steerings, share_prefix=share_prefix)
    return reader.scores[0]


def log_probabilities_and_scores(
    model: Any,
    rows: Sequence[Sequence[int]],
    starts: Sequence[int],
    session: Session,
    *,
    token_budget: int = 512,
    share_prefix: bool = True,
    steerings: Sequence[Hooked] = (),
) -> tuple[list[float], list[float]]:
    """`log_probabilities` under a decoder, and beside them the sums of its own scores, not normalised at each token.

    The second are what the released code of DoLa and ICD sums (`post_softmax=False`). The formula is taken of
    log-probabilities, also where its paper writes it with logits. Arguments and errors are as there.
    """
    if not rows:
        return [], []
    reader = _Reader(model, rows, starts, session, token_budget, lambda _count: None, (), starts)
    reader.raw = [0.0] * len(rows)
    with session.of_log_probabilities():
        _read(reader, steerings, share_prefix=share_prefix)
    return reader.scores[0], reader.raw


def log_probabilities_and_greedy(
    model: Any,
    rows: Sequence[Sequence[int]],
    starts: Sequence[int],
    session: Session | None = None,
    *,
    token_budget: int = 512,
    share_prefix: bool = True,
    on_rows: Callable[[int], None] = lambda _count: None,
    steerings: Sequence[Hooked] = (),
) -> tuple[list[float], list[bool]]:
    """`log_probabilities`, and beside each whether greedy search would write the row from its start on.

    Arguments and errors are as there.
    """
    if not rows:
        return [], []
    reader = _Reader(model, rows, starts, session, token_budget, on_rows, (), starts)
    reader.greedy = [True] * len(rows)
    _read(reader, steerings, share_prefix=share_prefix)
    return reader.scores[0], reader.greedy


def _read(reader: _Reader, steerings: Sequence[Hooked], *, share_prefix: bool) -> None:
    """All rows, with what can be shared under decoder and steerings shared."""
    model, session = reader.model, reader.session
    check_room(model, max(map(len, reader.rows)), "a text, its prompt included,", "shorten it")
    plain = plain_model(model)
    choosy = [steering for steering in steerings if steering.positions != "all" or steering.of_whole_prompt]
    by_part = session is None and all(map(acts_by_part, choosy)) and takes_branches(plain) and takes_trees(plain)
    parted = choosy if by_part and share_prefix else []
    choosy = [] if parted else choosy
    reader.steerings, reader.parted, reader.by_part = choosy, parted, bool(parted)
    try:
        if session is not None:
            reader.read(share_prefix and not choosy and session.takes_branches, session.takes_trees)
        else:
            with packed_attention(text_decoder(plain)):
                reader.read(share_prefix and not choosy and takes_branches(plain), takes_trees(plain))
    finally:
        for steering in choosy:
            steering.prompt_lengths = None


def log_probabilities_under(
    model: Any,
    rows: Sequence[Sequence[int]],
    starts: Sequence[int],
    sets: Sequence[Sequence[Hooked]],
    *,
    prompt_lengths: Sequence[int],
    token_budget: int = 512,
    on_rows: Callable[[int], None] = lambda _count: None,
) -> list[list[float]]:
    """`log_probabilities` under each of several sets of steerings, () for none; what they leave as it is is read once.

    Args:
        model: as in `log_probabilities`.
        rows: as there.
        starts: as there.
        token_budget: as there.
        sets: steerings that are not on: each set is on while it is asked for.
        prompt_lengths: how many of each row's tokens are prompt to them.
        on_rows: called with the number of rows that were just done under one set.

    Raises:
        ArgumentError: a row has more tokens than the model has room for.
    """
    plain = plain_model(model)
    together = [n for n, some in enumerate(sets) if all(map(acts_on_answers, some))]
    if not rows or len(together) < 2 or not (takes_branches(plain) and takes_trees(plain)):
        together = []
    found: list[list[float]] = [[] for _ in sets]
    if together:
        check_room(model, max(map(len, rows)), "a text, its prompt included,", "shorten it")
        reader = _Reader(model, rows, starts, None, token_budget, on_rows, (), prompt_lengths)
        reader.sets, reader.by_part = [sets[n] for n in together], True
        reader.scores = [[0.0] * len(rows) for _ in together]
        with packed_attention(text_decoder(plain)):
            reader.read(True, True)
        for n, scores in zip(together, reader.scores, strict=True):
            found[n] = scores
    for n in sorted({*range(len(sets))} - {*together}):
        with entered(sets[n]) as steerings:
            found[n] = log_probabilities(
                model,
                rows,
                starts,
                token_budget=token_budget,
                on_rows=on_rows,
                steerings=steerings,
                prompt_lengths=prompt_lengths,
            )
    return found


class _Reader:
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
