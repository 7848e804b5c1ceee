"""Which layer and how strong: tried on held-out data, with a guard on fluency, and one on what is to be preferred.

The guard on fluency is the mean Kullback–Leibler divergence, per token of given texts, of the steered model's
next-token distribution from the unsteered one's. All strengths of a layer run as rows of one batch. The other one: a
preference may not grow by making both sides of the pairs less likely, only the negative ones more so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from truthkit.activations.positions import Positions
from truthkit.errors import ArgumentError
from truthkit.hf.sites import input_device
from truthkit.hf.wrapping import plain_model
from truthkit.statistics.intervals import bootstrap
from truthkit.steering.extraction.encoding import EncodedPairs
from truthkit.steering.vector import SteeringVector
from truthkit.text.tokens import text_ids, text_tokenizer


@dataclass(frozen=True)
class Effect:
    """What steering does to pairs, in nats per token.

    Attributes:
        value: how much more likely positive sides are than negative ones, under steering.
        gain: by how much that is more than without.
        low, high: 95 % bootstrap interval of the gain, over groups of pairs; infinite where there is one group only.
        positive: how much more likely positive sides are than without.
    """

    value: float
    gain: float
    low: float
    high: float
    positive: float


@dataclass(frozen=True)
class Trial:
    """One layer and strength.

    Attributes:
        layer: the layer that was steered.
        strength: how strongly.
        effect: what was to be raised; None where a guard ruled the trial out.
        divergence: mean KL divergence from the unsteered model, in nats per token.
        positive: how much more likely it makes positive sides, in nats per token; None where that was not measured.
    """

    layer: int
    strength: float
    effect: float | None
    divergence: float
    positive: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON values only."""
        return asdict(self)


def divergences(
    model: Any,
    processor: Any,
    vector: SteeringVector,
    texts: Sequence[str | Sequence[int]],
    *,
    layer: int,
    strengths: Sequence[float],
    positions: Positions = "all",
) -> list[float]:
    """Mean KL(unsteered ‖ steered) per token of `texts`, in nats, for every strength."""
    tokenizer, plain = text_tokenizer(processor, "texts"), plain_model(model)
    device = input_device(plain)
    total, tokens = torch.zeros(len(strengths), dtype=torch.float64), 0
    for text in texts:
        ids = torch.tensor([text_ids(tokenizer, text) if isinstance(text, str) else list(text)], device=device)
        rows = ids.expand(len(strengths), -1)
        with torch.no_grad():
            before = plain(input_ids=ids, use_cache=False).logits[0].float().log_softmax(dim=-1)
            steering = vector.steer(
                model,
                layers=layer,
                strength=list(strengths),
                positions=positions,
                processor=processor,
                allow_other_model=True,
            )
            with steering:
                after = plain(input_ids=rows, use_cache=False).logits
        for row, logits in enumerate(after):
            total[row] += (before.exp() * (before - logits.float().log_softmax(dim=-1))).sum().double().cpu()
        tokens += ids.shape[1]
    return (total / tokens).tolist()


def choose(
    model: Any,
    processor: Any,
    vector: SteeringVector,
    effect: Callable[[], float | Effect],
    *,
    layers: Sequence[int],
    strengths: Sequence[float],
    texts: Sequence[str | Sequence[int]],
    max_divergence: float = 0.5,
    positions: Positions = "all",
) -> tuple[Trial, list[Trial]]:
    """The layer and strength with the greatest effect among those that leave the model fluent, and all trials.

    Args:
        model: the model to steer.
        processor: its tokenizer or processor.
        vector: the vector.
        effect: what to raise, measured on data that the vector was not fitted on; called while the steering is on.
            An `Effect` that makes positive sides less likely rules the trial out.
        layers: the layers to try, one at a time.
        strengths: the strengths to try at each.
        texts: ordinary texts, or their token ids, for the fluency guard.
        max_divergence: trials that move the model further than this, in nats per token, are not measured [our choice].
        positions: which tokens are steered.

    Raises:
        ArgumentError: no trial passes the guards.
    """
    trials = []
    for layer in layers:
        moved = divergences(model, processor, vector, texts, layer=layer, strengths=strengths, positions=positions)
        for strength, divergence in zip(strengths, moved, strict=True):
            found, positive = None, None
            if divergence <= max_divergence:
                with vector.steer(
                    model,
                    layers=layer,
                    strength=strength,
                    positions=positions,
                    processor=processor,
                    allow_other_model=True,
                ):
                    made = effect()
                found, positive = (made.value, made.positive) if isinstance(made, Effect) else (made, None)
                if positive is not None and positive < 0:
                    found = None
            trials.append(Trial(vector.number(layer), float(strength), found, divergence, positive))
    allowed = [trial for trial in trials if trial.effect is not None]
    if not allowed and (spoilt := [trial.positive for trial in trials if trial.positive is not None]):
        raise ArgumentError(
            "every trial that leaves the model fluent makes the positive sides less likely (at least by "
            f"{-max(spoilt):.3g} nats per token), so none steers towards them; try smaller or negative strengths, "
            "other positions, or more pairs."
        )
    if not allowed:
        least = min(trial.divergence for trial in trials)
        raise ArgumentError(
            f"every trial moves the model by more than max_divergence={max_divergence} nats per token (the least by "
            f"{least:.3g}); try smaller strengths."
        )
    return max(allowed, key=lambda trial: trial.effect or 0.0), trials


def preference(model: Any, encoded: EncodedPairs, pairs: Sequence[int]) -> float:
    """How much more likely the model finds positive sides than negative ones: a ready-made effect for `choose`.

    The mean, over the pairs named, of the difference in mean log-probability per token; with a prompt, per token of the
    answers. In nats per token.
    """
    sides = likelihoods(model, encoded, pairs)
    return float((sides[:, 0] - sides[:, 1]).mean())


@torch.no_grad()
def likelihoods(model: Any, encoded: EncodedPairs, pairs: Sequence[int]) -> torch.Tensor:
    """Mean log-probability per token (with a prompt, of the answer) of both sides; (pairs, 2), float64, in nats."""
    plain = plain_model(model)
    found = torch.zeros(len(pairs), 2, dtype=torch.float64)
    for number, pair in enumerate(pairs):
        for side in (0, 1):
            ids, prompt = encoded.ids[2 * pair + side], encoded.prompts[2 * pair + side]
            start = max(1, prompt if prompt < len(ids) else 1)
            inputs = encoded.inputs(2 * pair + side, plain)
            logits = plain(**inputs, use_cache=False).logits[0, start - 1 : -1].float()
            picked = logits.log_softmax(dim=-1).gather(1, inputs["input_ids"][0, start:, None].to(logits.device))
            found[number, side] = float(picked.mean())
    return found


def effect_on(before: torch.Tensor, after: torch.Tensor, groups: Sequence[int]) -> Effect:
    """What changed between two results of `likelihoods`, (pairs, 2) each; pairs of a group are drawn together."""
    value, unsteered = (sides[:, 0] - sides[:, 1] for sides in (after, before))
    gains = value - unsteered
    low, high = -math.inf, math.inf
    if len(set(groups)) > 1:
        counts = torch.stack([gains, torch.ones_like(gains)], dim=1).numpy()
        low, high = bootstrap(counts, lambda total: {"gain": total[..., 0] / total[..., 1]}, groups)["gain"]
    return Effect(float(value.mean()), float(gains.mean()), low, high, float((after - before)[:, 0].mean()))
