"""Conditions at work: what each row's tokens met in the forwards of one `with` block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import Any, Protocol

import torch

from truthkit.activations.capture import wide
from truthkit.activations.hooks import hook_states
from truthkit.activations.tracking import Tracker
from truthkit.errors import ArgumentError
from truthkit.hf.ownership import Block
from truthkit.hf.sites import decoder_blocks, site_width
from truthkit.hf.wrapping import language_half, replaced_method
from truthkit.steering.conditions import Condition, Cosine, Entropy, between


class Gate(Protocol):
    """One condition at work.

    Attributes:
        of_whole_prompt: whether it judges a row by all of its prompt.
    """

    of_whole_prompt: bool

    def attach(self, stack: ExitStack, block: Block) -> None:
        """Put on what it needs, for the threads of `block`; `stack` takes it off."""

    def begin(self) -> None:
        """What is to be done on the host before a forward, whose tokens the tracker knows."""

    def open(self, layer: int, hidden: torch.Tensor, chosen: torch.Tensor | None) -> torch.Tensor:
        """Which tokens meet the condition, shape (rows or 1, width or 1, 1), bool; traced in compiled decode steps.

        Args:
            layer: that is steered.
            hidden: its states, (rows, width, features).
            chosen: which tokens are to be steered, (rows, width, 1); None is all.
        """


def gate_for(condition: Condition, model: Any, layers: tuple[int, ...], site: str, tracker: Tracker) -> Gate:
    """The gate of a condition on a steering of `layers` at `site`.

    Raises:
        ArgumentError: the condition's directions or layer do not fit.
    """
    if isinstance(condition, Entropy):
        return EntropyGate(condition, model, tracker)
    units = condition.units(layers, len(decoder_blocks(model)), site_width(model, site))
    kind = TokenGate if condition.of == "token" else PromptGate
    return kind(condition, units, model, site, tracker)


class _CosineGate(ABC):
    """What the two kinds share: the similarity, and reading a layer that is named."""

    def __init__(self, condition: Cosine, units: dict[int, torch.Tensor], model: Any, site: str, tracker: Tracker):
        self.condition, self.tracker = condition, tracker
        self._units, self._model, self._site = units, model, site
        self._ready: dict[int, torch.Tensor] = {}
        self._layer = next(iter(units)) if condition.layer is not None else None

    def attach(self, stack: ExitStack, block: Block) -> None:
        stack.callback(self._ready.clear)
        if self._layer is not None:
            read = decoder_blocks(self._model)[self._layer]
            stack.callback(hook_states(read, self._site, self._read, block).remove)

    @abstractmethod
    def _read(self, given: torch.Tensor) -> None:
        """Take in the states of the layer that is named."""

    def _states(self, given: torch.Tensor) -> torch.Tensor:
        return given if given.dim() == 3 else given.view(*self.tracker.shape, -1)

    def _similarity(self, layer: int, states: torch.Tensor) -> torch.Tensor:
        """Shape (..., features) to (...)."""
        states = wide(states)
        if (unit := self._ready.get(layer)) is None:
            unit = self._ready[layer] = self._units[layer].to(states.device, states.dtype)
        tiny = torch.finfo(states.dtype).tiny
        along, length = states @ unit, states.norm(dim=-1).clamp_min(tiny)
        if not self.condition.projected:
            return along / length
        towards = torch.tanh(along[..., None] * unit)
        return (states * towards).sum(dim=-1) / (length * towards.norm(dim=-1).clamp_min(tiny))


class TokenGate(_CosineGate):
    """`Cosine` of each token's own state."""

    of_whole_prompt = False
    _now: torch.Tensor

    def begin(self) -> None:
        pass

    def _read(self, given: torch.Tensor) -> None:
        assert self._layer is not None
        self._now = between(self._similarity(self._layer, self._states(given)), self.condition)[..., None]

    def open(self, layer: int, hidden: torch.Tensor, _chosen: torch.Tensor | None) -> torch.Tensor:
        if self._layer is not None:
            return self._now.to(hidden.device)
        return between(self._similarity(layer, hidden), self.condition)[..., None]


class PromptGate(_CosineGate):
    """`Cosine` of the prompt's last or mean state, once for the row.

    Rows keep their places: beams change theirs within an item only, and an item's beams share the prompt. What was
    found is kept with the text.
    """

    of_whole_prompt = True

    def begin(self) -> None:
        kept = self.tracker.memory.setdefault(self, {"found": {}, "sums": {}, "views": self.tracker.views})
        rows = self.tracker.shape[0]
        self._kept, self._now = kept, {}
        for layer, found in kept["found"].items():
            if len(found) != rows:
                if rows % len(found) or kept["views"] != self.tracker.views:
                    raise ArgumentError(
                        "where looks at whole prompts, and a view of this decoder reads its own apart from the others; "
                        'use Cosine(..., of="token"), or a decoder whose views have prompts of one length.'
                    )
                found = found.repeat_interleave(rows // len(found), dim=0)
            self._now[layer] = found

    def _read(self, given: torch.Tensor) -> None:
        assert self._layer is not None
        if self._layer not in self._now:
            self._judge(self._layer, self._states(given))

    def open(self, layer: int, hidden: torch.Tensor, chosen: torch.Tensor | None) -> torch.Tensor:
        at = layer if self._layer is None else self._layer
        if at not in self._now and self._layer is None:
            self._judge(at, hidden)
        if at in self._now:
            return self._now[at].to(hidden.device)
        if chosen is None or bool(chosen.any()):
            raise ArgumentError(
                "where looks at whole prompts, but tokens are to be steered before a prompt's last token was read: it "
                'is read in chunks, or not at all. Use positions="generated", or leave out prefill_chunk_size.'
            )
        return hidden.new_zeros(1, 1, 1, dtype=torch.bool)

    def _judge(self, layer: int, states: torch.Tensor) -> None:
        """Take in the prompt's states, and decide if its last token is among them in every row."""
        tokens = self.tracker.tokens
        end = torch.minimum(tokens.prompt, tokens.given)
        inside, last = tokens.real & (tokens.number < end), tokens.real & (tokens.number == end - 1)
        if self.condition.of == "mean":
            state = self._mean(layer, states, inside, end, bool(last.any()))
        else:
            state = states[torch.arange(len(states)), last.long().argmax(dim=1).to(states.device)]
        if bool(last.any(dim=1).all()):
            met = between(self._similarity(layer, state), self.condition)[:, None, None]
            self._kept["found"][layer] = self._now[layer] = met

    def _mean(
        self, layer: int, states: torch.Tensor, inside: torch.Tensor, end: torch.Tensor, last: bool
    ) -> torch.Tensor:
        weight = inside.to(states.device)[..., None]
        total, count = self._kept["sums"].get(layer, (0.0, 0))
        total = total + torch.where(weight, wide(states), 0.0).sum(dim=1)
        count = count + inside.sum(dim=1, keepdim=True)
        self._kept["sums"][layer] = (total, count)
        if last and not torch.equal(count, end.to(count.device)):
            raise ArgumentError(
                'where looks at the mean over whole prompts, but a part of them was in the cache before; use of="last".'
            )
        return total / count.to(total.device).clamp_min(1)


class EntropyGate:
    """`Entropy` of the scores that each row's last token was chosen from.

    Beams change places between forwards: a row's last token was chosen by the row, of the same item, whose text was
    the same but for this token.
    """

    of_whole_prompt = True

    def __init__(self, condition: Entropy, model: Any, tracker: Tracker):
        self.condition, self.tracker, self._model = condition, tracker, language_half(model)
        self._ids: torch.Tensor | None = None
        self._found: tuple[torch.Tensor, torch.Tensor] | None = None
        self._met: torch.Tensor | None = None
        self._now: torch.Tensor

    def attach(self, stack: ExitStack, block: Block) -> None:
        stack.callback(self._forget)
        for name, make in (
            ("generate", self._anew),
            ("prepare_inputs_for_generation", self._noting_ids),
            ("_update_model_kwargs_for_generation", self._noting_scores),
        ):
            stack.enter_context(replaced_method(self._model, name, make, block))

    def _forget(self) -> None:
        self._ids, self._found, self._met = None, None, None

    def _anew(self, original: Any) -> Any:
        def generate(*args: Any, **kwargs: Any) -> Any:
            self._forget()
            try:
                return original(*args, **kwargs)
            finally:
                self._forget()

        return generate

    def _noting_ids(self, original: Any) -> Any:
        def prepare(input_ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            self._ids = input_ids
            return original(input_ids, *args, **kwargs)

        return prepare

    def _noting_scores(self, original: Any) -> Any:
        def update(outputs: Any, *args: Any, **kwargs: Any) -> Any:
            assert self._ids is not None
            scores = wide(outputs.logits[:, -1])
            self._found = self._ids, torch.special.entr(scores.softmax(dim=-1)).sum(dim=-1)
            return original(outputs, *args, **kwargs)

        return update

    def begin(self) -> None:
        self._follow()
        tracker, met = self.tracker, self._met
        if met is not None and tracker.after_prompt and tracker.shape[1] == 1:
            self._now = met[tracker.caller_row.to(met.device), -1][:, None, None]
            return
        tokens = tracker.tokens
        at = torch.where(tokens.real, tokens.number - tokens.prompt, -1)
        if bool((at >= (0 if met is None else met.shape[1])).any()):
            raise ArgumentError(
                "where=Entropy(...) needs the scores that each token was chosen from, so it works inside generate "
                "only, one token at a time: not in a forward over a given answer, nor with an assistant or "
                "prompt_lookup_num_tokens."
            )
        if met is None:
            self._now = torch.zeros_like(tokens.real)[..., None]
            return
        rows = met[tracker.caller_row.to(met.device)].to(at.device)  # without a cache all tokens are read again
        self._now = (rows.gather(1, at.clamp_min(0)) & (at >= 0))[..., None]

    def _follow(self) -> None:
        """Take in what the last token of every row was chosen from."""
        if self._found is None or self._ids is None:
            return
        (before, entropy), now, items = self._found, self._ids, self.tracker.items
        self._found = None
        met = between(entropy, self.condition)[:, None]
        if not len(before) == len(now) == items:
            same = (now[:, None, : before.shape[1]] == before[None]).all(dim=-1)
            item, item_before = (torch.arange(len(ids), device=now.device) * items // len(ids) for ids in (now, before))
            parent = (same & (item[:, None] == item_before[None])).long().argmax(dim=1)
            met = met[parent.to(met.device)]
            self._met = None if self._met is None else self._met[parent.to(met.device)]
        self._met = met if self._met is None else torch.cat([self._met, met], dim=1)

    def open(self, _layer: int, hidden: torch.Tensor, _chosen: torch.Tensor | None) -> torch.Tensor:
        return self._now.to(hidden.device)
