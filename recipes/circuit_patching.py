"""Patching of attention heads, a layer's heads side by side, behind a beginning that is read once.

Prompts and their others are alike up to a token; whatever lies before it is the same in both, so every patched run
starts there, or at the last token where only that is patched, from the keys and values of the tokens before.

Source: K. Wang and others, *Interpretability in the Wild*, arXiv 2211.00593: path patching as in its section on
discovering the circuit, other heads frozen, MLPs computed anew.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any

import torch
from circuit_prompts import Batch

import truthkit as tk
from truthkit.hf.attention import Asked, asking
from truthkit.hf.ownership import Block
from truthkit.hf.sites import decoder_blocks, head_features, input_device, text_decoder

Head = tuple[int, int]
"""Layer and number."""


class Patching:
    """One batch on one model: what its heads give, and what patched runs give.

    Args:
        model: a text model that the bundled attention implementations run ("sdpa" or "eager").
        batch: the prompts.
    """

    def __init__(self, model: Any, batch: Batch):
        self.model, self.batch = model, batch
        self.layers = len(decoder_blocks(model))
        self.heads = int(model.config.get_text_config(decoder=True).num_attention_heads)
        self.device = input_device(model)
        self.own, self.others = self._heads_of(batch.ids), self._heads_of(batch.other)
        self._begun: dict[int, Any] = {}

    @torch.no_grad()
    def _heads_of(self, ids: torch.Tensor) -> torch.Tensor:
        """What all heads give at the tokens from `start` on, (layers, items, tokens, features)."""
        with tk.Capture(self.model, site="heads") as capture:
            self.model(ids.to(self.device), use_cache=False, logits_to_keep=1)
        return torch.stack([capture[at].view(*ids.shape, -1)[:, self.batch.start :] for at in range(self.layers)])

    @torch.no_grad()
    def _beginning(self, start: int) -> Any:
        """The cache of the tokens before `start`."""
        if start not in self._begun:
            cache = tk.GrowingCache(config=self.model.config.get_text_config(decoder=True))
            self.model(self.batch.ids[:, :start].to(self.device), cache=cache, use_cache=True, logits_to_keep=1)
            self._begun[start] = cache
        return self._begun[start]

    @torch.no_grad()
    def logits(self, start: int, copies: int, *blocks: Any) -> torch.Tensor:
        """The next token's logits (items × copies, vocabulary), with the tokens from `start` on run in the blocks.

        Args:
            start: the first token that is run.
            copies: how often each item is run, side by side.
            blocks: entered in this order: what comes first sees what a head gives before the next ones change it.
        """
        cache = copy.deepcopy(self._beginning(start))
        if copies > 1:
            cache.batch_repeat_interleave(copies)
        ids = self.batch.ids[:, start:].repeat_interleave(copies, dim=0).to(self.device)
        with ExitStack() as stack:
            for block in blocks:
                entered = stack.enter_context(block)
                if isinstance(entered, tk.Capture | tk.Steering):
                    entered.reads("answer")  # the beginning was read outside
            return self.model(ids, cache=cache, use_cache=True, logits_to_keep=1).logits[:, -1].float()

    def plain(self, *blocks: Any) -> torch.Tensor:
        """The next token's logits, one row per item, with `blocks` around the last token."""
        return self.logits(self.last, 1, *blocks)

    @property
    def last(self) -> int:
        """The number of the last token."""
        return self.batch.ids.shape[1] - 1

    def leads(self, logits: torch.Tensor) -> torch.Tensor:
        """The right answer's logit less the mean of the wrong ones', (rows,)."""
        answers = self.batch.answers.to(logits.device).repeat_interleave(len(logits) // len(self.batch.items), dim=0)
        found = logits.gather(1, answers)
        return (found[:, 0] - found[:, 1:].mean(dim=1)).cpu()

    def _swapped(self, layer: int, tokens: slice) -> torch.Tensor:
        """A layer's heads at some tokens, one copy of an item for each head, which there is the other prompt's."""
        rows = self.own[layer][:, tokens].repeat_interleave(self.heads, dim=0).clone()
        others = self.others[layer][:, tokens]
        for head in range(self.heads):
            part = head_features(self.model, head)
            rows[head :: self.heads, :, part] = others[:, :, part]
        return rows

    def _change(self, logits: torch.Tensor) -> torch.Tensor:
        """Of the lead, (items, heads)."""
        return (self.leads(logits).view(-1, self.heads) - self._lead[:, None]).double()

    @cached_property
    def _lead(self) -> torch.Tensor:
        return self.leads(self.plain())

    # -- three ways to patch -------------------------------------------------------------------------------------------

    def activations(self, layer: int) -> torch.Tensor:
        """How the lead changes where one head of a layer gives, at all tokens, what it gives for the other prompt.

        Returns:
            (items, heads), float64.
        """
        patch = tk.Steering(self.model, {layer: self._swapped(layer, slice(None))}, mode="patch", site="heads")
        return self._change(self.logits(self.batch.start, self.heads, patch))

    def _frozen(self, layer: int) -> tk.Steering:
        """All heads of the last token as they were, but one of a layer's."""
        last = slice(-1, None)
        as_they_were = {
            at: self.own[at][:, -1].repeat_interleave(self.heads, dim=0) for at in range(self.layers) if at != layer
        }
        vectors = {**as_they_were, layer: self._swapped(layer, last)[:, 0]}
        return tk.Steering(self.model, vectors, mode="patch", site="heads")

    def to_logits(self, layer: int) -> torch.Tensor:
        """The same along the direct path: at the last token, through MLPs but through no other head.

        Elsewhere than at the last token no direct path leads to the logits.
        """
        return self._change(self.logits(self.last, self.heads, self._frozen(layer)))

    def to_heads(self, layer: int, receivers: Sequence[Head]) -> torch.Tensor:
        """The same along the direct paths to what `receivers` read at the last token, and from them on all paths."""
        later = [(at, head) for at, head in receivers if at > layer]
        if not later:
            return torch.zeros(len(self.batch.items), self.heads, dtype=torch.float64)
        capture = tk.Capture(self.model, sorted({at for at, _ in later}), site="heads")
        self.logits(self.last, self.heads, capture, self._frozen(layer))
        given = [self.patch((at, head), capture[at]) for at, head in later]
        return self._change(self.logits(self.last, self.heads, *given))

    def patch(self, head: Head, states: torch.Tensor) -> tk.Steering:
        """A head that gives what it gives in `states`, (rows, features) or (features,) of all heads of its layer."""
        part = head_features(self.model, head[1])
        return tk.Steering(self.model, {head[0]: states[..., part]}, mode="patch", site="heads", features=part)


class _Attending:
    """Heads that at the last token attend to given ones alone, to each alike; see `truthkit.hf.attention.Asking`."""

    def __init__(self, block: Block, heads: Mapping[int, list[int]], places: torch.Tensor):
        self.block, self._heads, self._places = block, heads, places

    def asked(self, layer: int, _queries: int, _keys: int) -> list[Asked]:
        """What is asked of a layer."""
        if layer not in self._heads:
            return []

        def only(scores: torch.Tensor, rows: slice) -> torch.Tensor:
            places = self._places[rows].to(scores.device)[:, None, None]
            changed, lowest = scores.clone(), torch.finfo(scores.dtype).min
            alike = torch.zeros_like(scores[:, self._heads[layer]])
            changed[:, self._heads[layer]] = alike.masked_fill(~places, lowest)
            return changed

        return [Asked(slice(None), slice(-1, None), scores=only)]


@contextmanager
def attending(model: Any, heads: Sequence[Head], places: torch.Tensor) -> Iterator[None]:
    """Make heads attend, at the last token, to the tokens that `places`, (rows, width), marks, to each alike."""
    block = Block("attending")
    by_layer = {at: [head for other, head in heads if other == at] for at, _ in heads}
    with block.open(), asking(text_decoder(model), _Attending(block, by_layer, places)):
        yield


def over_layers(
    runs: Sequence[Patching], layers: int, act: Callable[[Patching, int], torch.Tensor], step: Callable[[], None]
) -> torch.Tensor:
    """`act` on every batch and layer; (items, layers, heads), items in the order of their list."""
    count = sum(len(run.batch.items) for run in runs)
    found = torch.empty(count, layers, runs[0].heads, dtype=torch.float64)
    for run in runs:
        for layer in range(layers):
            found[torch.tensor(run.batch.items), layer] = act(run, layer)
            step()
    return found
