"""The beams of one prompt: what they are, which tokens they go on with, where they go back.

All of it is on the CPU, in float64. Shapes: n live beams with t tokens of response each, k candidates of each beam.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch.nn.functional import pad

from truthkit.decoding.opera.overtrust import column_products, most_frequent, over_trust

BEGINNING = 10
"""For how many tokens a lack of attention to the image is the penalty; none of them is a summary token."""

REMEMBERED = 512
"""How many steps back a roll-back may go."""

Stops = Callable[[torch.Tensor], torch.Tensor]
"""Says of responses, shape (count, length), which of them end there, shape (count,), bool."""


@dataclass(frozen=True)
class Settings:
    """What a call asks for; see `truthkit.decoding.opera.search.opera`.

    Attributes:
        scale, threshold, candidates, weight: scale_factor, threshold, num_attn_candidates, penalty_weights.
        beams: num_beams.
        ends: how many tokens end a sequence.
        room: new tokens at most.
        length_penalty, early_stopping: of the generation config.
    """

    scale: float
    threshold: int
    candidates: int
    weight: float
    beams: int
    ends: int = 0
    room: int = 0
    length_penalty: float = 1.0
    early_stopping: bool | str = False

    @property
    def kept(self) -> int:
        """Continuations that are looked at in each step, as in transformers: enough where some of them end."""
        return max(2, 1 + self.ends) * self.beams

    @property
    def looked_up(self) -> int:
        """Continuations of each beam that may be needed, now or after roll-backs."""
        return self.kept + self.beams * self.candidates


@dataclass(frozen=True)
class Hypothesis:
    """A response that ended: its score with length penalty, and its tokens, shape (length,)."""

    score: float
    tokens: torch.Tensor


@dataclass
class Step:
    """The live beams after t tokens.

    Attributes:
        tokens: shape (n, t).
        scores: shape (n,).
        slots: where each token's keys and values are, counted from the prompt's end, shape (n, t).
        columns: log products of the attention columns, shape (n, t).
        places: each earlier step's summary token, by its number in the response, shape (n, t).
        finished: the best hypotheses so far, best first.
        log_probs, ids: the most probable next tokens, best first, shape (n, looked up).
        taken: which of these were tried, same shape.
        place: this step's summary token, shape (n,).
    """

    tokens: torch.Tensor
    scores: torch.Tensor
    slots: torch.Tensor
    columns: torch.Tensor
    places: torch.Tensor
    finished: tuple[Hypothesis, ...] = ()
    log_probs: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    ids: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    taken: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    place: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def depth(self) -> int:
        """How many tokens of response there are."""
        return self.tokens.shape[1]


@dataclass(frozen=True)
class Attention:
    """How the tokens that a prompt's beams fed look back, in the last block: maximum over heads, each row's sum 1.

    Attributes:
        before: at the response's tokens before them, shape (count, t).
        own: at themselves, shape (count,).
        images: at all image tokens, shape (count,).
    """

    before: torch.Tensor
    own: torch.Tensor
    images: torch.Tensor


class PromptBeams:
    """Beam search over the response to one prompt.

    A round is `fed`, a forward over these tokens, `saw`, and `expects` with the logits of the tokens that `saw` kept.
    What is fed are the candidates of all beams; after a roll-back it is the tokens that were chosen anew.

    Args:
        settings: of the call.
        stops: the stopping criteria.
    """

    def __init__(self, settings: Settings, stops: Stops):
        self._settings, self._stops = settings, stops
        nothing, numbers = torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, 0, dtype=torch.float64)
        self._step = Step(nothing, numbers.sum(1), nothing, numbers, nothing)
        self._past: dict[int, Step] = {}
        self._anew: Step | None = None
        self._times: dict[int, int] = {}
        self.done = False
        self.rolled_back = 0

    @property
    def hypotheses(self) -> tuple[Hypothesis, ...]:
        """The responses, once `done`."""
        return self._step.finished

    @property
    def waits(self) -> bool:
        """Whether tokens that were chosen anew are to be read before any logits are expected."""
        return self._anew is not None

    @property
    def tokens(self) -> torch.Tensor:
        """The live beams' responses, shape (n, t)."""
        return self._step.tokens

    @property
    def end(self) -> int:
        """How many slots behind the prompt are in use."""
        return 0 if self._step.slots.numel() == 0 else int(self._step.slots.max()) + 1

    def fed(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens to be read next, shape (count,), and the slots of those before each, shape (count, t)."""
        step = self._step
        if self._anew is not None:
            return self._anew.tokens[:, -1], self._anew.slots
        ids = step.ids[:, : self._settings.candidates]
        return ids.flatten(), step.slots.repeat_interleave(ids.shape[1], dim=0)

    def expects(self, log_probs: torch.Tensor, ids: torch.Tensor) -> None:
        """Take the most probable next tokens of every live beam, best first, both of shape (n, looked up)."""
        step = self._step
        step.log_probs, step.ids = log_probs, ids
        step.taken = torch.zeros_like(ids, dtype=torch.bool)

    def saw(self, attention: Attention, slot: int) -> torch.Tensor:
        """Go on, or back, now that the tokens that were fed have been read.

        Args:
            attention: theirs.
            slot: where the first token that is kept will be.

        Returns:
            Which of them are kept, in the order of the live beams; their logits are expected.
        """
        if self._anew is not None:
            step, self._anew = self._anew, None
            step.columns = column_products(step.columns, attention.before, attention.own, self._settings.scale)
            self._advance(step, slot)
            return torch.arange(len(step.scores))
        return self._decide(attention, slot)

    def _decide(self, attention: Attention, slot: int) -> torch.Tensor:
        step, settings = self._step, self._settings
        shape = len(step.scores), -1
        log_probs = step.log_probs[:, : settings.candidates]
        repeated = step.columns.repeat_interleave(log_probs.shape[1], dim=0)
        columns = column_products(repeated, attention.before, attention.own, settings.scale)
        penalty, place = over_trust(columns)
        if step.depth < BEGINNING:
            penalty = -attention.images
        step.place = most_frequent(place.view(shape))
        if (earlier := self._goes_back_to(step)) is not None and self._choose_anew(earlier):
            return torch.empty(0, dtype=torch.long)
        scores = log_probs - settings.weight * penalty.view(shape)
        scores = scores.log_softmax(dim=-1).nan_to_num(nan=-torch.inf, neginf=-torch.inf)
        chosen, parents, which = self._choose(step, step.scores[:, None] + scores)
        kept = parents * log_probs.shape[1] + which
        chosen.columns = columns[kept]
        self._advance(chosen, slot)
        return kept

    def _goes_back_to(self, step: Step) -> Step | None:
        """The earlier step from which tokens are to be chosen anew; None to go on."""
        place, settings = int(most_frequent(step.place)), self._settings
        overlap = (step.places == place).sum(dim=1) + (step.place == place)
        if place < BEGINNING or not bool((overlap >= settings.threshold).all()):
            return None
        for depth in (place + 1, place):
            if self._times.get(depth, 0) < settings.candidates:
                return self._past.get(depth)
        return None

    def _choose_anew(self, step: Step) -> bool:
        """Choose among what was not tried at an earlier step; false if nothing is left there."""
        left = (step.scores[:, None] + step.log_probs).masked_fill(step.taken, -torch.inf)
        if not bool(left.isfinite().any()):
            return False
        self._times[step.depth] = self._times.get(step.depth, 0) + 1
        self.rolled_back += 1
        self._past = {depth: one for depth, one in self._past.items() if depth < step.depth}
        self._step = step
        chosen, parents, _ = self._choose(step, left)
        chosen.columns = step.columns[parents]
        if self._ended(chosen):
            self._step, self.done = chosen, True
        else:
            self._anew = chosen
        return True

    def _choose(self, step: Step, totals: torch.Tensor) -> tuple[Step, torch.Tensor, torch.Tensor]:
        """The beams that go on from `step`, without columns and their own slots; their parents, their tokens' numbers.

        Args:
            step: the current one, or an earlier one.
            totals: scores of continuations, shape (n, k).
        """
        settings, width = self._settings, totals.shape[1]
        best, order = totals.flatten().sort(descending=True, stable=True)
        count = min(int(best.isfinite().sum()), settings.kept)
        best, parents, which = best[:count], order[:count] // width, order[:count] % width
        tokens = torch.cat([step.tokens[parents], step.ids[parents, which][:, None]], dim=1)
        stopped = self._stops(tokens).cpu()
        scores = best / float(tokens.shape[1]) ** settings.length_penalty
        new = [Hypothesis(float(scores[i]), tokens[i]) for i in range(min(count, settings.beams)) if stopped[i]]
        finished = sorted((*step.finished, *new), key=lambda one: -one.score)[: settings.beams]
        live = (~stopped).nonzero()[: settings.beams, 0]
        parents, which = parents[live], which[live]
        step.taken[parents, which] = True
        places = torch.cat([step.places, step.place[:, None]], dim=1)[parents]
        chosen = Step(tokens[live], best[live], step.slots[parents], torch.empty(0), places, tuple(finished))
        return chosen, parents, which

    def _advance(self, step: Step, slot: int) -> None:
        """Make `step` the current one, its newest tokens in the slots from `slot` on."""
        own = torch.arange(slot, slot + len(step.scores))[:, None]
        step.slots = torch.cat([step.slots, own], dim=1)
        self._past[self._step.depth] = self._step
        self._past.pop(self._step.depth - REMEMBERED, None)
        self._step = step
        self.done = self._ended(step)

    def _ended(self, step: Step) -> bool:
        """Whether no beam is left, or none can become better than what has finished."""
        settings, finished = self._settings, step.finished
        if not len(step.scores):
            return True
        if len(finished) < settings.beams:
            return False
        never = settings.early_stopping == "never" and settings.length_penalty > 0
        length = settings.room if never else step.depth
        possible = float(step.scores[0]) / float(length) ** settings.length_penalty
        return settings.early_stopping is True or possible <= finished[-1].score


def padded(rows: list[torch.Tensor], width: int, fill: int = 0) -> torch.Tensor:
    """Rows of several lengths, shape (length, ...), as one tensor of shape (rows, width, ...)."""
    return torch.stack([pad(row, (0, 0) * (row.dim() - 1) + (0, width - len(row)), value=fill) for row in rows])
