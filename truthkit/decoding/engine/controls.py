"""The controls of a method: what an honest table puts beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

GREEDY = "greedy"


@dataclass(frozen=True)
class Control:
    """A decoder to run beside another one, on the same items.

    Attributes:
        name: of its folder and its row.
        decoder: as text, as in `truthkit.decoding.spec`.
        sample: whether tokens are drawn.
        cooler: what the run's temperature is divided by.
    """

    name: str
    decoder: str
    sample: bool = False
    cooler: float = 1.0


def model_alone(cooler: float = 1.0, beta: float = 0.0) -> tuple[Control, ...]:
    """The model itself: greedy search, sampling, and the parts of a method that need no view.

    Args:
        cooler: the method's scores would be the model's logits times this if its views saw what the model sees, or
            nothing: much of what it gains may be a lower temperature.
        beta: of the plausibility constraint, which alone brings sampling close to greedy search (arXiv 2504.10020).
    """
    controls = [Control("greedy", GREEDY), Control("sampling", GREEDY, sample=True)]
    if cooler > 1.0:
        controls.append(Control("sampling-cooler", GREEDY, sample=True, cooler=cooler))
    if beta > 0.0:
        controls.append(Control("constraint-alone", f"apc:beta={float(beta)!r}", sample=True))
    return tuple(controls)


def combined(parts: Iterable[Iterable[Control]]) -> tuple[Control, ...]:
    """The controls of methods that are combined, from those of each: every kind once.

    Of several constraints the strictest holds, as in `Together`. What each method multiplies the model's logits by adds
    up, as their differences do: 1 + Σ (cooler − 1).
    """
    every = [control for part in parts for control in part]
    cooler = 1.0 + sum(control.cooler - 1.0 for control in every)
    betas = [_beta(control.decoder) for control in every if control.name == "constraint-alone"]
    known = model_alone(cooler, max(betas, default=0.0))
    names = {control.name for control in known}
    others = {control.name: control for control in every if control.name not in names}
    return (*known, *others.values())


def _beta(decoder: str) -> float:
    return float(decoder.partition("beta=")[2])
