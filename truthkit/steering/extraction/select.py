"""Which layer and how strong: tried on held-out data, with a guard on fluency.

The guard is the mean Kullback–Leibler divergence, per token of given texts, of the steered model's next-token
distribution from the unsteered one's. All strengths of a layer run as rows of one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from truthkit.activations.positions import Positions
from truthkit.errors import ArgumentError
from truthkit.hf.sites import input_device
from truthkit.hf.wrapping import plain_model
from truthkit.steering.extraction.encoding import EncodedPairs
from truthkit.steering.vector import SteeringVector
from truthkit.text.tokens import text_ids, text_tokenizer


@dataclass(frozen=True)
class Trial:
    """One layer and strength.

    Attributes:
        layer: the layer that was steered.
        strength: how strongly.
        effect: what was to be raised; None where the guard already ruled the trial out.
        divergence: mean KL divergence from the unsteered model, in nats per token.
    """

    layer: int
    strength: float
    effect: float | None
    divergence: float

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
    effect: Callable[[], float],
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
        layers: the layers to try, one at a time.
        strengths: the strengths to try at each.
        texts: ordinary texts, or their token ids, for the fluency guard.
        max_divergence: trials that move the model further than this, in nats per token, are not measured [our choice].
        positions: which tokens are steered.

    Raises:
        ArgumentError: no trial passes the guard.
    """
    trials = []
    for layer in layers:
        moved = divergences(model, processor, vector, texts, layer=layer, strengths=strengths, positions=positions)
        for strength, divergence in zip(strengths, moved, strict=True):
            found = None
            if divergence <= max_divergence:
                with vector.steer(
                    model,
                    layers=layer,
                    strength=strength,
                    positions=positions,
                    processor=processor,
                    allow_other_model=True,
                ):
                    found = effect()
            trials.append(Trial(vector.number(layer), float(strength), found, divergence))
    fluent = [trial for trial in trials if trial.effect is not None]
    if not fluent:
        least = min(trial.divergence for trial in trials)
        raise ArgumentError(
            f"every trial moves the model by more than max_divergence={max_divergence} nats per token (the least by "
            f"{least:.3g}); try smaller strengths."
        )
    return max(fluent, key=lambda trial: trial.effect or 0.0), trials


def preference(model: Any, encoded: EncodedPairs, pairs: Sequence[int]) -> float:
    """How much more likely the model finds positive sides than negative ones: a ready-made effect for `choose`.

    The mean, over the pairs named, of the difference in mean log-probability per token; with a prompt, per token of the
    answers.
    """
    plain = plain_model(model)
    total = 0.0
    for pair in pairs:
        for sign, text in ((1.0, 2 * pair), (-1.0, 2 * pair + 1)):
            ids, prompt = encoded.ids[text], encoded.prompts[text]
            start = prompt if prompt < len(ids) else 1
            inputs = encoded.inputs(text, plain)
            with torch.no_grad():
                logits = plain(**inputs, use_cache=False).logits[0, start - 1 : -1].float()
            picked = logits.log_softmax(dim=-1).gather(1, inputs["input_ids"][0, start:, None].to(logits.device))
            total += sign * float(picked.mean())
    return total / len(pairs)
