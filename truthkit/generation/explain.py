"""Which view pushed each token: a trace of the views' logits, taken in the one pass that generates.

Most methods add and subtract log-probabilities of views, once their layers are chosen. The lead of the emitted token
over the main view's own choice, in nats, then splits exactly into one contribution per view: the view's weight in the
combination times its own log-odds of the two tokens. The weights are read off by differentiating `Decoder.combine`,
which works for any decoder without a word from it. Where a method is not linear in its views, the contributions do not
add up to the lead; the rest is the views' interaction, and is given as that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessor

from truthkit.decoding.engine.loop import Method
from truthkit.decoding.engine.view import ViewLogits

MAIN = "main"

INTERACTION = "interaction"
"""What of a lead no view has by itself."""


@dataclass(frozen=True)
class Candidate:
    """A token with its probability."""

    token_id: int
    token: str
    probability: float


@dataclass(frozen=True)
class ViewTrace:
    """What one view said about one token.

    Attributes:
        name: "main", the auxiliary view's name, "... exits" for a view's early exits, or "main prompt" for how sharply
            the prompt's early exits call for each token.
        layers: the early exits that entered the combination, else empty.
        candidates: the view's most probable tokens. Of several early exits: of their weighted geometric mean.
        contribution: nats in favour of the emitted token against the main view's choice; None where they are the same.
    """

    name: str
    layers: tuple[int, ...]
    candidates: tuple[Candidate, ...]
    contribution: float | None


@dataclass(frozen=True)
class Standing:
    """Where an emitted token stood in the combination that it was chosen from.

    The plausibility constraint is in it; temperature, top-k and top-p of sampling come later and are not.

    Attributes:
        entropy: of the combination, in nats.
        rank: 1 for its most probable token; how many were more probable, and one.
        push: ln of the token's probability in it over that in the main view, in nats: how far the decoder moved it.
    """

    entropy: float
    rank: int
    push: float

    @classmethod
    def of(cls, token: int, combined: torch.Tensor, main: torch.Tensor) -> Standing:
        """`combined` and `main` are logits, shape (vocabulary,)."""
        after, before = combined.log_softmax(dim=-1), main.log_softmax(dim=-1)
        entropy = torch.special.entr(after.exp()).sum()
        return cls(float(entropy), 1 + int((after > after[token]).sum()), float(after[token] - before[token]))


@dataclass(frozen=True)
class Step:
    """One emitted token.

    Attributes:
        token_id, token: what was emitted.
        main_choice: the main view's most probable token.
        views: main first.
        combined: the most probable tokens of the combination, after the plausibility constraint.
        pushed_by: where the emitted token is not the main view's choice: the auxiliary view with the largest
            contribution, their "interaction", or what else decided ("sampling" ...). None where main's own choice was
            emitted.
        probability: of the emitted token in the combination, after the plausibility constraint.
        lead: of the emitted token over the main view's choice in the combination, in nats, before the constraint; None
            where they are the same.
        interaction: what of the lead is no view's contribution; 0 for methods that are linear in their views.
        standing: where the emitted token stood in the combination.
    """

    token_id: int
    token: str
    main_choice: Candidate
    views: tuple[ViewTrace, ...]
    combined: tuple[Candidate, ...]
    pushed_by: str | None
    probability: float
    lead: float | None = None
    interaction: float | None = None
    standing: Standing | None = None


class Trace:
    """Collects a `Step` per token of one row.

    `observe` goes into `Session.observers` and runs at each forward; `emitted` is then called with the token that came.

    Args:
        decode: token ids to text.
        decoder: whose views they are; None for decoding from the main view alone.
        otherwise: what decided where the emitted token is not the most probable of the combination.
        top: how many candidates to keep per view.
    """

    def __init__(
        self, decode: Callable[[list[int]], str], decoder: Method | None = None, *, otherwise: str, top: int = 3
    ):
        self.steps: list[Step] = []
        self._decode, self._decoder, self._otherwise, self._top = decode, decoder, otherwise, top
        self._seen: tuple[list[ViewLogits], torch.Tensor] | None = None

    def observe(self, views: Sequence[ViewLogits], combined: torch.Tensor) -> None:
        """Keep one forward's logits until its token is known; of the last position, first row."""
        self._seen = [_last_position(view) for view in views], combined[0, -1]

    def emitted(self, token: int) -> None:
        """The last forward's token."""
        assert self._seen is not None
        views, combined = self._seen
        choice, runner_up = views[0].logits[0, 0].topk(2).indices.tolist()
        differs = token != choice
        lead, weights = self._weights(views, token, choice if differs else runner_up)
        traces = tuple(
            ViewTrace(
                name,
                layers,
                self._candidates(_log_mean(logits, weight)),
                float((weight * (logits[:, token] - logits[:, choice])).sum()) if differs else None,
            )
            for name, layers, logits, weight in _parts(self._decoder, views, weights)
        )
        pushed_by = self._otherwise if differs else None
        if differs and len(traces) > 1 and token == int(combined.argmax()):
            pushes = {view.name: view.contribution or 0.0 for view in traces[1:]} | {INTERACTION: _rest(lead, traces)}
            pushed_by = max(pushes, key=pushes.__getitem__)
        probability = float(combined.softmax(dim=-1)[token])
        candidates, main_choice = self._candidates(combined), traces[0].candidates[0]
        split = (lead, _rest(lead, traces)) if differs else (None, None)
        standing = Standing.of(token, combined, views[0].logits[0, 0])
        text = self._decode([token])
        self.steps.append(
            Step(token, text, main_choice, traces, candidates, pushed_by, probability, split[0], split[1], standing)
        )

    def _candidates(self, logits: torch.Tensor) -> tuple[Candidate, ...]:
        best = logits.topk(self._top).indices
        pairs = zip(best.tolist(), logits.softmax(dim=-1)[best].tolist(), strict=True)
        return tuple(Candidate(index, self._decode([index]), value) for index, value in pairs if value > 0.0)

    def _weights(self, views: list[ViewLogits], token: int, rival: int) -> tuple[float, list[ViewLogits]]:
        """The lead of `token` over `rival`, and how much each logit counts: (1, 1) and, of exits, (layers, 1, 1)."""
        if self._decoder is None:
            logits = views[0].logits[0, 0]
            return float(logits[token] - logits[rival]), [ViewLogits(torch.ones(1, 1, device=logits.device))]
        with torch.inference_mode(False), torch.enable_grad():
            leaves = [
                ViewLogits(_leaf(view.logits), _leaf(view.exits), view.step, _leaf(view.prompt_entropies))
                for view in views
            ]
            scores = self._decoder.combine(*leaves)[0, 0]
            tensors = [tensor for leaf in leaves for tensor in _tensors(leaf) if tensor is not None]
            lead = scores[token] - scores[rival]
            found = torch.autograd.grad(lead, tensors, allow_unused=True, materialize_grads=True)
        grads = iter(grad[..., token] for grad in found)
        weights = [[None if tensor is None else next(grads) for tensor in _tensors(leaf)] for leaf in leaves]
        return float(lead.detach()), [ViewLogits(own, exits, 0, prompt) for own, exits, prompt in weights]  # type: ignore


class TraceProcessor(LogitsProcessor):
    """Lets a trace see the logits of a method without views; changes nothing."""

    def __init__(self, trace: Trace):
        self._trace = trace

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        self._trace.observe([ViewLogits(scores[:, None])], scores[:, None])
        return scores


def view_names(decoder: Method | None) -> list[str]:
    """A name for each view of `decoder`, main first."""
    return [view.name for view in decoder.views] if decoder else [MAIN]


def _rest(lead: float, traces: Sequence[ViewTrace]) -> float:
    """What the contributions leave of a lead; 0 where it is no more than rounding."""
    parts = [view.contribution or 0.0 for view in traces]
    rest = lead - sum(parts)
    return rest if abs(rest) > 1e-3 * max(1.0, *map(abs, parts)) else 0.0


def _leaf(tensor: Any) -> Any:
    return None if tensor is None else tensor.detach().clone().requires_grad_()


def _tensors(view: ViewLogits) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    return view.logits, view.exits, view.prompt_entropies


def _last_position(view: ViewLogits) -> ViewLogits:
    logits, exits, entropies = _tensors(view)
    last = view.step + logits.shape[1] - 1
    exits = None if exits is None else exits[:, :1, -1:]
    return ViewLogits(logits[:1, -1:], exits, last, None if entropies is None else entropies[:, :1])


def _parts(
    decoder: Method | None, views: list[ViewLogits], weights: list[ViewLogits]
) -> list[tuple[str, tuple[int, ...], torch.Tensor, torch.Tensor]]:
    """Name, layers, logits (n, vocabulary) and weights (n,) of every view, and of its early exits that count."""
    parts: list[tuple[str, tuple[int, ...], torch.Tensor, torch.Tensor]] = []
    for name, view, weight in zip(view_names(decoder), views, weights, strict=True):
        parts.append((name, (), view.logits[0], weight.logits[0]))
        if decoder is not None and view.exits is not None and weight.exits is not None:
            used = weight.exits[:, 0, 0].nonzero().flatten().tolist()
            if used:
                layers = tuple(decoder.layers[i] for i in used)
                parts.append((f"{name} exits", layers, view.exits[used, 0, 0], weight.exits[used, 0, 0]))
        if decoder is not None and view.prompt_entropies is not None and weight.prompt_entropies is not None:
            layers = tuple(one.layer for one in decoder.prompt_exits)
            parts.append((f"{name} prompt", layers, -view.prompt_entropies[:, 0], -weight.prompt_entropies[:, 0]))
    return parts


def _log_mean(logits: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A distribution for several: log-probabilities averaged by absolute weight, shapes (n, vocabulary) and (n,)."""
    if len(weight) == 1:
        return logits[0]
    return (weight.abs() / weight.abs().sum()) @ logits.log_softmax(dim=-1)
