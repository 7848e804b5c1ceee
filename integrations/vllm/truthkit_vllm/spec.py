"""Decoders and vectors written as text, as truthkit writes them: `cad:alpha=0.5`, `v.safetensors:layers=14`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


def number(text: str) -> float:
    """A finite number; ValueError if it is none."""
    if not math.isfinite(value := float(text)):
        raise ValueError
    return value


def cutoff(text: str) -> float:
    """A plausibility cut-off in [0, 1]; ValueError if it is none."""
    if not 0.0 <= (value := number(text)) <= 1.0:
        raise ValueError
    return value


def at_least_zero(text: str) -> float:
    """A finite number, 0 or more; ValueError if it is none."""
    if (value := number(text)) < 0:
        raise ValueError
    return value


def share(text: str) -> float:
    """A number above 0, 1 at most; ValueError if it is none."""
    if not 0.0 < (value := number(text)) <= 1.0:
        raise ValueError
    return value


def count(text: str) -> int:
    """A whole number, 1 or more; ValueError if it is none."""
    if (value := int(text)) < 1:
        raise ValueError
    return value


def whole(text: str) -> int:
    """A whole number, 0 or more; ValueError if it is none."""
    if (value := int(text)) < 0:
        raise ValueError
    return value


def truth(text: str) -> bool:
    """`true` or `false`; KeyError if it is neither."""
    return {"true": True, "false": False}[text.lower()]


def numbers(text: str) -> tuple[int, ...]:
    """Layer numbers, `10+12+-1` or `8-20` with both ends; ValueError if they are none."""
    found: list[int] = []
    for part in text.split("+"):
        first, dash, last = part.strip().partition("-")
        found += range(int(first), int(last) + 1) if first and dash else [int(part)]
    return tuple(found)


def exits(text: str) -> str | tuple[int, ...]:
    """Layers of early exits: "low", "high", "all", or layer numbers; ValueError if it is none of them."""
    return text if text in ("low", "high", "all") else numbers(text)


def exits_or_depth(text: str) -> str | tuple[int, ...] | None:
    """The same, or None, written "none", for the decoder's own share of the depth."""
    return None if text.lower() == "none" else exits(text)


def prompt_only(text: str) -> str:
    """The amateur that is a prompt; ValueError if it is another one."""
    if text != "prompt":
        raise ValueError
    return text


@dataclass(frozen=True)
class Options:
    """What a decoder takes: how each option is read, and what it is where it is not written."""

    readers: Mapping[str, Callable[[str], Any]]
    defaults: Mapping[str, Any]


DECODERS = {
    "dola": Options({"layers": exits, "beta": cutoff, "norm": truth}, {"layers": "high", "beta": 0.1, "norm": True}),
    "sled": Options(
        {
            "layers": exits,
            "evolution_rate": at_least_zero,
            "evolution_scale": count,
            "steps": count,
            "evolution_lower_bound": number,
            "norm": truth,
        },
        {
            "layers": "all",
            "evolution_rate": 2.0,
            "evolution_scale": 10,
            "steps": 10,
            "evolution_lower_bound": -100.0,
            "norm": False,
        },
    ),
    "deco": Options(
        {"layers": exits_or_depth, "alpha": number, "top_p": share, "top_k": whole, "norm": truth},
        {"layers": None, "alpha": 0.6, "top_p": 0.9, "top_k": 20, "norm": True},
    ),
    "cad": Options({"alpha": number, "beta": cutoff}, {"alpha": 0.5, "beta": 0.0}),
    "icd": Options({"amateur": prompt_only, "lam": number, "beta": cutoff}, {"amateur": None, "lam": 1.0, "beta": 0.1}),
}

EXITS = ("dola", "sled", "deco")
"""Those that read early exits inside the model, and are the engine's."""

SIBLINGS = ("cad", "icd")
"""Those whose views are requests of their own."""

_NOT_OPTIONS = {"amateur_prompt": "the second prompt of each pair has it"}

_NOT_HERE = {
    "contrastive_search": "it compares candidates before one is chosen",
    "opera": "it rolls beams back",
    "ritual_plus": "it asks the model about the image first",
}


def decoder(text: str) -> tuple[str, dict[str, Any]]:
    """Name and options of a decoder, all of them.

    Raises:
        ValueError: no such decoder or option here, or a value of the wrong kind.
    """
    name, _, rest = text.strip().partition(":")
    if name not in DECODERS:
        why = f" ({_NOT_HERE[name]})" if name in _NOT_HERE else ""
        raise ValueError(f"decoder {name!r} is not available in vLLM{why}; expected one of {', '.join(DECODERS)}.")
    known = DECODERS[name]
    return name, {**known.defaults, **_read(rest, known.readers, f"decoder {name!r}")}


def vector(text: str) -> tuple[str, dict[str, Any]]:
    """Path and options of a vector file, `path:layers=14`.

    Raises:
        ValueError: no such option, or a value of the wrong kind.
    """
    path, colon, rest = text.strip().rpartition(":")
    if not colon or "=" not in rest:
        path, rest = text.strip(), ""
    return path, _read(rest, {"layers": numbers}, f"vector {path!r}")


def _read(text: str, readers: Mapping[str, Callable[[str], Any]], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        key, _, value = map(str.strip, part.partition("="))
        if key not in readers:
            why = f" ({_NOT_OPTIONS[key]})" if key in _NOT_OPTIONS else ""
            raise ValueError(f"{where} has no option {key!r} in vLLM{why}; its options are {', '.join(readers)}.")
        if key in found:
            raise ValueError(f"option {key!r} of {where} is given twice.")
        try:
            found[key] = readers[key](value)
        except (ValueError, KeyError) as error:
            raise ValueError(f"option {key!r} of {where} is {value!r}; expected {_KINDS[readers[key]]}.") from error
    return found


_KINDS: dict[Callable[[str], Any], str] = {
    number: "a number",
    cutoff: "a number from 0 to 1",
    at_least_zero: "a number, 0 or more",
    share: "a number above 0, 1 at most",
    count: "a whole number, 1 or more",
    truth: "true or false",
    numbers: "layer numbers joined by +",
    exits: "low, high, all, or layer numbers joined by +",
    exits_or_depth: "low, high, all, none, or layer numbers joined by +",
    prompt_only: "prompt; an adapter is named by the second request itself",
}
