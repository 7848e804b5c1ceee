"""Which decoders there are: truthkit's own, those of other packages, and those of this program.

truthkit's own are the classes with a `name` in `truthkit.decoding.methods`, and in a few modules elsewhere. Another
package names its class in the entry-point group `truthkit.decoders`; a program's own class is there once it has been
defined.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from typing import Any

from truthkit import plugins
from truthkit.decoding.described import Described, classes_with_a_name, described, described_class
from truthkit.decoding.engine.registry import DECODERS
from truthkit.decoding.source import submodules
from truthkit.errors import ArgumentError, NotAvailableError

GROUP = "truthkit.decoders"
"""The entry-point group; a value is `package.module:Class`."""

PLAIN = ("greedy", "sample")
"""The model alone: its most probable token each time, or one drawn from its distribution."""

_ELSEWHERE = (
    "truthkit.decoding.contrastive_search.search",
    "truthkit.decoding.opera.search",
    "truthkit.steering.vista",
)


def decoders() -> dict[str, Described]:
    """Every decoder by its name; none of their modules is imported for it, and a plug-in that is broken is left out."""
    installed = _built_in() | _plugged_in()
    defined = {name: described_class(one) for name, one in DECODERS.items() if name not in installed}
    return installed | defined


def decoder_class(name: str) -> Any:
    """The class of a decoder, whose module is imported now.

    Raises:
        NotAvailableError: another package's module cannot be imported.
    """
    known = decoders()[name]
    if name in DECODERS:
        return DECODERS[name]
    try:
        module = import_module(known.module)
    except Exception as error:
        if known.module.startswith("truthkit."):
            raise
        reason = f"{type(error).__name__}: {error}"
        raise NotAvailableError(f"decoder {name!r} cannot be had, as {known.module} fails: {reason}") from error
    return DECODERS.get(name) or getattr(module, known.class_name)


@cache
def _built_in() -> dict[str, Described]:
    found = [
        described(module, class_name)
        for module in (*submodules("truthkit.decoding.methods"), *_ELSEWHERE)
        for class_name in classes_with_a_name(module)
    ]
    return {one.name: one for one in found}


@cache
def _plugged_in() -> dict[str, Described]:
    found: dict[str, Described] = {}
    for entry_point in plugins.entry_points(GROUP):
        try:
            one = described(entry_point.module, entry_point.attr)
            _check_name(one.name, found)
        except Exception as error:  # whatever is wrong with it, the rest of truthkit works
            plugins.left_out(entry_point, error)
        else:
            found[one.name] = one
    return found


def _check_name(name: str, found: dict[str, Described]) -> None:
    if not re.fullmatch(r"[a-z]\w*", name):
        raise ArgumentError(f"its name is {name!r}; expected a small letter, then letters, digits and underscores")
    if name in PLAIN or name in _built_in():
        raise ArgumentError(f"truthkit has a decoder {name!r} of its own")
    if name in found:
        raise ArgumentError(f"{found[name].module} has a decoder {name!r} too")
