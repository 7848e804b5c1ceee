"""ITI, inference-time intervention (Li et al., arXiv 2306.03341): a few attention heads, chosen by probes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any, Literal

import torch

from truthkit.activations.positions import Positions, check_positions, describe_positions
from truthkit.decoding.engine.arithmetic import check_finite
from truthkit.errors import ArgumentError
from truthkit.files.versions import versions
from truthkit.hf.room import context_length
from truthkit.hf.sites import decoder_blocks, head_features, resolve_layers, site_width
from truthkit.hf.wrapping import plain_model
from truthkit.models.identities import identity
from truthkit.steering.conditions import Conditions
from truthkit.steering.extraction.encoding import encode_pairs
from truthkit.steering.extraction.held_out import split_groups
from truthkit.steering.extraction.methods import logistic_weights
from truthkit.steering.extraction.pairs import all_pairs
from truthkit.steering.extraction.reading import Reading
from truthkit.steering.fit import model_id
from truthkit.steering.steer import Steering
from truthkit.steering.vector import SteeringVector

Head = tuple[int, int]
"""A layer and the number of one of its attention heads."""


class ITI(Steering):
    """Move the outputs of chosen attention heads along a direction, by parts of how much they vary along it.

        o_h ← o_h + alpha · σ_h · θ_h     for each chosen head, before the output projection

    Source: the paper and its released code, which moves the prompt's last token and the tokens after it. A recipe over
    `Steering` with `site="heads"`; heads that were not chosen have zeros in the vector.

    Args:
        model: a text or image-text model; PEFT wrappers are looked through.
        vector: σ_h · θ_h of the chosen heads, from `iti_vector`, or a file of it read with `SteeringVector.load`.
        alpha: strength; the published value for LLaMA-7B is 15, with 48 heads.
        positions: which tokens; see `truthkit.activations.positions`.
        where: what a token, or its row, must meet to be steered; see `truthkit.steering.conditions`.
        processor: tokenizer or processor, for positions that look at characters.
        allow_other_model: steer another model than the one that the vector was made from.

    Raises:
        ArgumentError: the vector is of another site, or an option makes no sense.
        ModelError: the vector is another model's.

    Example:
        >>> with tk.ITI(model, tk.iti_vector(model, tokenizer, pairs, heads=48)):
        ...     model.generate(**inputs, max_new_tokens=64)
    """

    def __init__(
        self,
        model: Any,
        vector: SteeringVector,
        *,
        alpha: float = 15.0,
        positions: Positions = ("last", "generated"),
        where: Conditions = None,
        processor: Any = None,
        allow_other_model: bool = False,
    ):
        if not isinstance(vector, SteeringVector) or vector.site != "heads":
            raise ArgumentError(
                f"ITI takes a SteeringVector of site 'heads', not {vector!r:.80}; make one with tk.iti_vector."
            )
        vector.check_model(model, allow_other_model=allow_other_model)
        super().__init__(
            model,
            vector.directions,
            strength=check_finite("alpha", alpha),
            positions=positions,
            site="heads",
            where=where,
            processor=processor,
        )


def iti_vector(
    model: Any,
    processor: Any,
    pairs: str | PathLike[str] | Iterable[Any],
    *,
    heads: int | Sequence[Head] = 48,
    direction: Literal["mean", "probe"] = "mean",
    positions: Positions = "last",
    held_out: float = 0.2,
    l2: float = 1.0,
    token_budget: int = 2048,
    seed: int = 0,
) -> SteeringVector:
    """Choose attention heads by held-out probes, and find a direction for each of them.

    Every head gets a logistic probe on its output, fitted without the held-out pairs; the heads whose probes get the
    most held-out sides right are chosen, of equal ones the first. θ_h is the direction between the class means (the
    paper's mass mean shift, the default) or the probe's normal, at length 1, and σ_h the standard deviation of all
    sides' outputs along it (the released code takes it from a second set of texts). The vector has σ_h · θ_h where the
    head's features are, so one file holds it all.

    Args:
        model: a text or image-text model; PEFT wrappers are looked through.
        processor: its tokenizer or processor.
        pairs: as `tk.extract` takes them: true and untrue answers to the same questions, say.
        heads: how many to choose, or (layer, head) of those to take.
        direction: "mean" or "probe".
        positions: which tokens are read; the mean over them stands for the text.
        held_out: the share of pairs to score on, in whole groups, in (0, 1).
        l2: weight of the probes' penalty, l2/2 · |w|²; scikit-learn's C is 1/l2.
        token_budget: how many tokens, padding included, run in one forward.
        seed: of the split.

    Returns:
        A vector of site "heads" with the layers of the chosen heads; `provenance["heads"]` lists layer, head, accuracy
        and σ of each, the best first.

    Raises:
        ArgumentError: heads that do not exist, no pair to hold out, or an option that makes no sense.
        NotAvailableError: there is no such file of pairs.
    """
    plain = plain_model(model)
    blocks, width = len(decoder_blocks(plain)), site_width(plain, "heads")
    count = int(plain.config.get_text_config(decoder=True).num_attention_heads)
    named = _checked_heads(plain, heads, blocks, count)
    if direction not in ("mean", "probe") or not 0 < held_out < 1 or not l2 > 0 or token_budget < 1:
        raise ArgumentError(
            f"direction is {direction!r}, held_out {held_out!r}, l2 {l2!r}, token_budget {token_budget!r}; expected "
            '"mean" or "probe", a share in (0, 1), a positive number, and at least 1.'
        )
    check_positions(positions, processor)
    encoded = encode_pairs(all_pairs(pairs), processor, context_length(plain))
    fit_on, held = split_groups(encoded.groups, held_out, seed=seed)
    if not held:
        raise ArgumentError("no pair can be held out to choose heads by; give pairs of at least two groups.")
    reading = Reading(model, plain, processor, encoded, tuple(range(blocks)), positions, "heads", None)
    states = torch.zeros(blocks, len(encoded.ids), width, dtype=torch.float32)
    for batch in reading.batches(range(len(encoded.ids)), token_budget, whole_pairs=False):
        states[:, batch] = reading.read(batch).float().cpu()
    by_head = states.view(blocks, len(encoded.groups), 2, count, -1)  # sides of a pair lie side by side
    probes = {
        (layer, head): _probe(by_head[layer, :, :, head].double(), fit_on, held, l2)
        for layer in range(blocks)
        for head in range(count)
    }
    ranked = sorted(probes, key=lambda one: -probes[one][1])
    chosen = ranked[:heads] if isinstance(heads, int) else sorted(named, key=lambda one: -probes[one][1])
    directions: dict[int, torch.Tensor] = {}
    listed = []
    for layer, head in chosen:
        sides = by_head[layer, :, :, head].double()
        normal, accuracy = probes[layer, head]
        towards = normal if direction == "probe" else (sides[:, 0] - sides[:, 1]).mean(dim=0)
        unit = towards / towards.norm().clamp_min(torch.finfo(torch.float64).tiny)
        deviation = float((sides @ unit).std(correction=0))
        into = directions.setdefault(layer, torch.zeros(width, dtype=torch.float64))
        into[head_features(plain, head)] = deviation * unit
        listed.append({"layer": layer, "head": head, "accuracy": round(accuracy, 6), "sigma": round(deviation, 6)})
    provenance = {
        "model": {
            **identity(model, processor),
            "id": model_id(plain),
            "type": plain.config.get_text_config(decoder=True).model_type,
            "dtype": str(plain.dtype).removeprefix("torch."),
        },
        "method": "iti",
        "heads": listed,
        "direction": direction,
        "options": {"l2": l2},
        "positions": describe_positions(positions),
        "pairs": {"count": len(encoded.groups), "held_out": len(held), "groups": max(encoded.groups) + 1},
        "seed": seed,
        "hashes": {"pairs": encoded.digest()},
        "versions": versions("torch", "transformers"),
    }
    return SteeringVector(directions, blocks, "heads", json.loads(json.dumps(provenance)))


def _checked_heads(plain: Any, heads: Any, blocks: int, count: int) -> list[Head]:
    """The heads that are named, layers from 0; none where a number of them is asked for."""
    if isinstance(heads, int) and not isinstance(heads, bool):
        if not 1 <= heads <= blocks * count:
            raise ArgumentError(
                f"heads is {heads}; this model has {blocks} layers of {count} heads, so expected 1 to {blocks * count}."
            )
        return []
    if (
        not isinstance(heads, Sequence)
        or not heads
        or not all(isinstance(one, tuple) and len(one) == 2 for one in heads)
    ):
        raise ArgumentError(f"heads is {heads!r:.80}; expected a number, or a list of (layer, head).")
    found = []
    for layer, head in heads:
        head_features(plain, head)
        found.append((resolve_layers([layer], blocks)[0], head % count))
    return list(dict.fromkeys(found))


def _probe(sides: torch.Tensor, fit_on: list[int], held: list[int], l2: float) -> tuple[torch.Tensor, float]:
    """The normal of a head's probe, (features,), and its accuracy on held-out sides; `sides` (pairs, 2, features)."""
    sign = torch.tensor([1.0, -1.0], dtype=sides.dtype)
    weights, intercept = logistic_weights(sides[fit_on].flatten(0, 1), sign.repeat(len(fit_on)), l2)
    right = (sides[held] @ weights + intercept) * sign > 0
    return weights, float(right.double().mean())
