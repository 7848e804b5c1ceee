"""Log-probabilities of given texts under a model and a decoder, with what they begin with read once for all.

Choices share their question, and questions behind one few-shot prompt share that. What a family of rows begins with is
read first, and what follows as trees of tokens, in which every other beginning that is shared is once too
(`truthkit.likelihood.token_tree`). Where attention cannot take a tree, each context is read in a row, and what goes on
from it in further rows (`truthkit.hf.branches`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from truthkit.activations.hooks import Hooked
from truthkit.decoding.engine.prompt_views import shared_width
from truthkit.decoding.engine.session import Session
from truthkit.errors import ArgumentError
from truthkit.hf.branches import BranchedCache, takes_branches
from truthkit.hf.growing_cache import GrowingCache
from truthkit.hf.packed_attention import packed_attention
from truthkit.hf.sites import text_decoder
from truthkit.hf.trees import additive, takes_trees
from truthkit.hf.wrapping import plain_model
from truthkit.likelihood.token_tree import TokenTree, common_length, token_trees
from truthkit.text.tokens import padded

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
    batch_tokens: int = 512,
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
        batch_tokens: how many tokens, padding and shared ones aside, are read at a time.
        share_prefix: read the rows' common beginning once, and what rows have in common before their starts.
        on_rows: called with the number of rows that were just done.
        steerings: those at work on the model. Those that act at some tokens only need every row whole, so nothing is
            shared under them.
        prompt_lengths: how many of each row's tokens are prompt to them; None is `starts`.

    Raises:
        ArgumentError: a row has more tokens than the model has room for.
    """
    if not rows:
        return []
    room = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    if room and (most := max(map(len, rows))) > room:
        raise ArgumentError(
            f"a text has {most} tokens, prompt included, but the model has room for {room}; shorten it."
        )
    choosy = [steering for steering in steerings if steering.positions != "all"]
    lengths = starts if prompt_lengths is None else prompt_lengths
    reader = _Reader(model, rows, starts, session, batch_tokens, on_rows, choosy, lengths)
    plain = plain_model(model)
    try:
        if session is not None:
            reader.read(share_prefix and not choosy and session.takes_branches, session.takes_trees)
        else:
            with packed_attention(text_decoder(plain)):
                reader.read(share_prefix and not choosy and takes_branches(plain), takes_trees(plain))
    finally:
        for steering in choosy:
            steering.prompt_lengths = None
    return reader.scores


class _Reader:
    """The rows of one call, and their scores so far."""

    def __init__(
        self,
        model: Any,
        rows: Sequence[Sequence[int]],
        starts: Sequence[int],
        session: Session | None,
        batch_tokens: int,
        on_rows: Callable[[int], None],
        steerings: Sequence[Hooked],
        prompt_lengths: Sequence[int],
    ):
        self.model, self.session = model, session
        self.rows, self.starts = rows, starts
        self.tokens, self.on_rows = batch_tokens, on_rows
        self.steerings, self.prompt_lengths = steerings, prompt_lengths
        self.scores = [0.0] * len(rows)
        self._accepted = inspect.signature(plain_model(model).forward).parameters

    def read(self, sharing: bool, trees: bool) -> None:
        """Every row; if `sharing`, rows that begin alike together, as trees or as branches."""
        families: dict[tuple[int, ...], list[int]] = {}
        for i, row in enumerate(self.rows):
            families.setdefault(tuple(row[:_WORTH]) if sharing else (), []).append(i)
        alone: list[int] = []
        for which in families.values():
            most = min(self.starts[i] for i in which) - 2
            shared = common_length([self.rows[i] for i in which], most) if sharing else 0
            if shared < _WORTH or 4 * shared * (len(which) - 1) < self.tokens or not self._can_cut(which, shared):
                alone += which
                continue
            cache = GrowingCache(config=self.model.config.get_text_config(decoder=True))
            self._forward(*padded([self.rows[which[0]][:shared]]), 0, 1, cache)
            (self._read_trees if trees else self._read_branches)(which, shared, cache)
        self._read_whole(alone)

    def _can_cut(self, which: list[int], shared: int) -> bool:
        views = () if self.session is None else self.session.decoder.views
        rewrites = [view.prompt for view in views if view.prompt is not None]
        return shared_width(rewrites, [self.rows[i] for i in which], [shared] * len(which)) is not None

    def _read_whole(self, which: list[int]) -> None:
        """Rows by themselves."""
        order = sorted(which, key=lambda i: len(self.rows[i]))
        while order:
            some = _batch(order, lambda i: len(self.rows[i]), self.tokens)
            ids, mask = padded([self.rows[i] for i in some])
            self._score(some, ids, mask, 0, None)

    def _read_trees(self, which: list[int], shared: int, cache: Any) -> None:
        """Rows of which `cache` holds the first `shared` tokens, as trees, each of which is then forgotten.

        Nothing follows a row's last token, which is not read.
        """
        read = {i: self.rows[i][shared:-1] for i in which if len(self.rows[i]) > self.starts[i]}
        for tree in token_trees(read, min(self.tokens, _MOST_NODES)):
            self._score_tree(tree, shared, cache)
            cache.crop(-len(tree.ids))
        if others := len(which) - len(read):
            self.on_rows(others)

    def _score_tree(self, tree: TokenTree, shared: int, cache: Any) -> None:
        """Read a tree behind `shared` tokens, and note the scores of its rows."""
        sight = tree.sight()
        sight = torch.cat([sight.new_ones(len(sight), shared), sight], dim=1)
        mask = additive(sight, self.model.dtype)[None, None]
        before = [path[self.starts[i] - 1 - shared :] for i, path in tree.paths.items()]
        keep, places = torch.tensor([node for nodes in before for node in nodes]).unique(return_inverse=True)
        ids, positions = torch.tensor([tree.ids]), torch.tensor([tree.depths]) + shared
        logits = self._call(ids, mask, positions, keep, cache)[0].float()
        some_rows = max(_LOGITS_AT_A_TIME // logits.shape[1], 1)
        norms = torch.cat([some.logsumexp(dim=1) for some in logits.split(some_rows)])
        targets = torch.tensor([token for i in tree.paths for token in self.rows[i][self.starts[i] :]])
        places, targets = places.to(logits.device), targets.to(logits.device)
        each = (logits[places, targets] - norms[places]).split([len(nodes) for nodes in before])
        for i, row in zip(tree.paths, each, strict=True):
            self.scores[i] = float(row.sum())
        self.on_rows(len(tree.paths))

    def _read_branches(self, which: list[int], shared: int, cache: Any) -> None:
        """Rows of which `cache` holds the first `shared` tokens: every context that follows, then what follows that."""
        contexts: dict[tuple[int, ...], list[int]] = {}
        for i in which:
            contexts.setdefault(tuple(self.rows[i][shared : self.starts[i] - 1]), []).append(i)
        order = sorted(contexts, key=len)
        while order:
            chosen = _batch(order, len, self.tokens)
            ids, mask = padded(chosen)
            mask = torch.cat([mask.new_ones(len(ids), shared), mask], dim=1)
            with self._branched(cache, torch.zeros(len(ids), dtype=torch.long), keep=True) as trunk:
                self._forward(ids, mask, shared, 1, trunk)
                self._read_behind([(place, i) for place, c in enumerate(chosen) for i in contexts[c]], mask, trunk)

    def _read_behind(self, members: list[tuple[int, int]], mask: torch.Tensor, trunk: Any) -> None:
        """What follows the contexts in `trunk`, whose mask is given: pairs of a context's place and a row's number."""

        def length(member: tuple[int, int]) -> int:
            return len(self.rows[member[1]]) - self.starts[member[1]] + 1

        members = sorted(members, key=length)
        while members:
            some = _batch(members, length, self.tokens)
            ids, own = padded([self.rows[i][self.starts[i] - 1 :] for _, i in some])
            index = torch.tensor([place for place, _ in some])
            with self._branched(trunk, index) as cache:
                self._score([i for _, i in some], ids, torch.cat([mask[index], own], dim=1), mask.shape[1], cache)

    def _score(self, which: list[int], ids: torch.Tensor, mask: torch.Tensor, past: int, cache: Any) -> None:
        """Read `ids` and note the scores of these rows."""
        counts = [len(self.rows[i]) - self.starts[i] for i in which]
        for steering in self.steerings:
            steering.prompt_lengths = [self.prompt_lengths[i] for i in which]
        logits = self._forward(ids, mask, past, max(counts) + 1, cache)[:, :-1].float()
        targets = ids[:, -logits.shape[1] :, None].to(logits.device)
        each = logits.gather(-1, targets)[..., 0] - logits.logsumexp(dim=-1)
        for row, (i, count) in enumerate(zip(which, counts, strict=True)):
            self.scores[i] = float(each[row, each.shape[1] - count :].sum())
        self.on_rows(len(which))

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, past: int, keep: int, cache: Any) -> torch.Tensor:
        """Logits at the last `keep` positions of `ids`, which follow `past` tokens that `cache` holds."""
        positions = (mask.cumsum(dim=1) - 1).clamp_min(0)[:, past:]
        return self._call(ids, mask, positions, keep, cache)

    def _call(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, keep: int | torch.Tensor, cache: Any
    ) -> torch.Tensor:
        """Logits at the last `keep` positions of `ids`, or at those that it lists."""
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        call: dict[str, Any] = {
            name: value.to(self.model.device) for name, value in inputs.items() if name in self._accepted
        }
        call |= {"use_cache": False} if cache is None else {"cache": cache}
        keep = keep.to(self.model.device) if isinstance(keep, torch.Tensor) else keep
        cuts = "logits_to_keep" in self._accepted
        call |= {"logits_to_keep": keep} if cuts else {}
        with torch.no_grad():
            logits = self.model(**call).logits
        if isinstance(keep, int):
            return logits[:, -keep:]
        return logits if cuts else logits[:, keep]

    @contextmanager
    def _branched(self, cache: Any, index: torch.Tensor, *, keep: bool = False) -> Iterator[Any]:
        if self.session is None:
            yield BranchedCache(cache, index, keep=keep)
        else:
            with self.session.branched(cache, index, keep=keep) as branches:
                yield branches


def _batch(order: list[Any], length: Callable[[Any], int], tokens: int) -> list[Any]:
    """Take the longest off the end of `order`, and as many more as `tokens` allow; at least one."""
    some = [order.pop()]
    while order and (len(some) + 1) * length(some[0]) <= tokens:
        some.append(order.pop())
    return some
