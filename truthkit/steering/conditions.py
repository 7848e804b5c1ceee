"""Where steering acts: conditions that a token or a whole row has to meet, beside its position.

| condition | a token is steered if | known |
| --- | --- | --- |
| `Cosine(d, above=0.1)` | the cosine of its own state with `d` is above 0.1 | at each token |
| `Cosine(d, above=0.1, of="last")` | that of its prompt's last token is | once per row, from the prompt on |
| `Cosine(d, above=0.1, of="mean")` | that of its prompt's mean state is | once per row, from the prompt on |
| `Entropy(above=1.0)` | it was chosen from scores with an entropy above 1 nat | at each token |

Each row of a batch is judged for itself, and each view of a decoder by its own states. Several in a tuple must all
hold. `positions` says which tokens may be steered at all, so the two compose.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch

from truthkit.errors import ArgumentError
from truthkit.hf.sites import resolve_layers


@dataclass(frozen=True, eq=False)
class Cosine:
    """A state's cosine with a direction lies above, or below, a threshold.

    With `of="mean"` and `projected=True` this is the condition of CAST (Lee et al., *Programming Refusal with
    Conditional Activation Steering*, arXiv 2409.05907, and its released code): the similarity of the prompt's mean
    state h with tanh(ĉ·(ĉᵀh)). A layer number of that code means what goes into a block, ours what comes out. Without
    `projected`, our default, it is the plain cosine, which keeps its sign.

    Args:
        direction: (features,), one for all layers; or directions by layer, as a `SteeringVector` has them.
        above: the cosine must be larger than this, in [-1, 1].
        below: and smaller than this.
        of: "token": each token's own state. "last": that of the prompt's last token, for the whole row. "mean": the
            mean over the prompt's tokens, for the whole row.
        layer: where the state is read, at the site that is steered, before that layer is; none behind the first layer
            that is steered. None: each steered layer looks at its own states.
        projected: compare with tanh of the state's projection on the direction, as CAST's code does.

    Raises:
        ArgumentError: no threshold, or one out of range, or an unknown `of`, or a direction that has no length.
    """

    direction: torch.Tensor | Mapping[int, torch.Tensor] | Any
    above: float | None = None
    below: float | None = None
    of: Literal["token", "last", "mean"] = "token"
    layer: int | None = None
    projected: bool = False

    def __post_init__(self) -> None:
        _check_range(self, "Cosine", -1.0, 1.0)
        if self.of not in ("token", "last", "mean"):
            raise ArgumentError(f'of is {self.of!r}; expected "token", "last" or "mean".')
        for one in self._given().values():
            if one.dim() != 1 or not bool(one.isfinite().all()) or not bool(one.any()):
                raise ArgumentError(
                    f"direction has shape {tuple(one.shape)}; expected (features,), of finite numbers, not all 0."
                )

    def _given(self) -> dict[Any, torch.Tensor]:
        by_layer = getattr(self.direction, "directions", self.direction)
        if isinstance(by_layer, Mapping) and by_layer:
            return dict(by_layer)
        if not isinstance(by_layer, torch.Tensor):
            raise ArgumentError(f"direction is {by_layer!r:.80}; expected a tensor, tensors by layer, or a vector.")
        return {None: by_layer}

    def units(self, layers: tuple[int, ...], count: int, width: int) -> dict[int, torch.Tensor]:
        """For each layer that is read the direction at length 1, (features,), float64.

        Args:
            layers: those that are steered.
            count: how many blocks the model has.
            width: how many features the site has.

        Raises:
            ArgumentError: a layer has no direction, or is behind the first steered one; or the width is another.
        """
        read = layers if self.layer is None else resolve_layers([self.layer], count)
        if read[0] > min(layers) and self.layer is not None:
            raise ArgumentError(
                f"a condition reads layer {read[0]}, behind layer {min(layers)}, which is steered by it; read one that "
                "is not behind the first steered layer."
            )
        given = self._given()
        by_layer = {None if layer is None else layer % count: one for layer, one in given.items()}
        found = {layer: by_layer.get(None, by_layer.get(layer)) for layer in read}
        for layer, one in found.items():
            if one is None:
                raise ArgumentError(
                    f"a condition has no direction for layer {layer}, only for {list(by_layer)}; pass layer= to read "
                    "one of these, or give a direction for every steered layer."
                )
            if len(one) != width:
                raise ArgumentError(f"a condition's direction has {len(one)} features; this site has {width}.")
        wide = {layer: one.detach().double() for layer, one in found.items() if one is not None}
        return {layer: one / one.norm() for layer, one in wide.items()}


@dataclass(frozen=True)
class Entropy:
    """A token is steered where the scores that it was chosen from had an entropy above, or below, a threshold.

    A gate of the kind that decoders have (entropy-gated contrasts), applied to steering: our reading. The scores are
    those that `generate` gets, before its processors; a decoder's, where one is on. Prompts are not steered, for no
    token of theirs was chosen; and `generate` must choose one token at a time.

    Args:
        above: the entropy must be larger than this, in nats, 0 or more.
        below: and smaller than this.

    Raises:
        ArgumentError: no threshold, or one out of range.
    """

    above: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        _check_range(self, "Entropy", 0.0, math.inf)


Condition: TypeAlias = Cosine | Entropy
Conditions: TypeAlias = "Condition | tuple[Condition, ...] | None"


def all_of(where: Conditions) -> tuple[Condition, ...]:
    """The conditions as a tuple.

    Raises:
        ArgumentError: something else was given.
    """
    given = () if where is None else where if isinstance(where, tuple) else (where,)
    for one in given:
        if not isinstance(one, Cosine | Entropy):
            raise ArgumentError(f"where is {one!r:.80}; expected Cosine(...), Entropy(...), a tuple of these, or None.")
    return given


def between(values: torch.Tensor, condition: Condition) -> torch.Tensor:
    """Which of the values lie within the condition's thresholds; of the same shape, bool."""
    inside = None if condition.above is None else values > condition.above
    if condition.below is None:
        assert inside is not None
        return inside
    under = values < condition.below
    return under if inside is None else inside & under


def _check_range(condition: Any, name: str, least: float, most: float) -> None:
    given = {side: getattr(condition, side) for side in ("above", "below") if getattr(condition, side) is not None}
    if not given:
        raise ArgumentError(f"{name} has no threshold; pass above= or below=.")
    for side, value in given.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not least <= value <= most:
            span = f"in [{least:g}, {most:g}]" if math.isfinite(most) else f"of {least:g} or more"
            raise ArgumentError(f"{side} is {value!r} in {name}; expected a number {span}.")
    if len(given) == 2 and not condition.above < condition.below:
        raise ArgumentError(f"above is {condition.above!r} and below {condition.below!r}: no value is between them.")
