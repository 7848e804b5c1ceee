"""The detectors by name, and how one is written: `probe:vector=probe.safetensors,layer=12`. Without torch."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from truthkit.detection.agreement import ViewAgreement
from truthkit.detection.detector import Detector
from truthkit.detection.eigenscore import EigenScore
from truthkit.detection.likelihoods import MeanEntropy, MeanLogProb, MinLogProb
from truthkit.detection.lookback import Lookback
from truthkit.detection.p_true import PTrue
from truthkit.detection.probe import Probe
from truthkit.errors import ArgumentError, did_you_mean
from truthkit.written import split_name

_ALL: tuple[type[Detector], ...] = (
    MeanLogProb,
    MinLogProb,
    MeanEntropy,
    PTrue,
    Probe,
    EigenScore,
    Lookback,
    ViewAgreement,
)

DETECTORS: dict[str, type[Detector]] = {one.name: one for one in _ALL}


def find_detector(method: str | Detector, **options: Any) -> Detector:
    """A detector by its name, with options; or as it is written, `name:option=value,option=value`.

    Raises:
        ArgumentError, NotAvailableError: there is no such method or option, or a value cannot be had.
    """
    if isinstance(method, Detector):
        if options:
            raise ArgumentError(f"{next(iter(options))} was given beside a detector that is built; build it with that.")
        return method
    name, written = split_name(method)
    if name not in DETECTORS:
        close = did_you_mean(name, DETECTORS)
        raise ArgumentError(f"method is {name!r}{close}; expected one of {', '.join(DETECTORS)}.")
    kind = DETECTORS[name]
    accepted = _options(kind)
    given = {**dict(written), **options}
    for key, value in given.items():
        if key not in accepted:
            listed = ", ".join(accepted) or "no options"
            raise ArgumentError(f"method {name!r} takes no {key!r}{did_you_mean(key, accepted)}; it takes {listed}.")
        if isinstance(value, str):
            given[key] = _read(name, key, value, accepted[key].annotation)
    return kind(**given)


def _options(kind: type[Detector]) -> dict[str, inspect.Parameter]:
    if "__init__" not in vars(kind):
        return {}
    found = inspect.signature(kind.__init__).parameters
    return {name: one for name, one in found.items() if one.kind is one.KEYWORD_ONLY}


def _read(name: str, key: str, value: str, annotation: str) -> Any:
    """A written value by the first word of its annotation, which is text: the modules import no torch for it."""
    kinds: dict[str, Any] = {"int": int, "float": float, "Path": Path, "Literal": str}
    kind = next(kinds[word] for word in kinds if annotation.startswith(word))
    try:
        return kind(value)
    except ValueError:
        wanted = "an integer" if kind is int else "a number"
        raise ArgumentError(f"option {key!r} of method {name!r} is {value!r}; expected {wanted}.") from None
