"""Hooks and `torch.compile`: compiled code does not see hooks that come after it, and says nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from truthkit.errors import AttachError


def refuse_compiled(given: Any, model: Any) -> None:
    """Raise if compiled code of `model`, or of a part of it, may exist already.

    Args:
        given: the model as the user has it, possibly wrapped by `torch.compile`.
        model: the plain model.

    Raises:
        AttachError: it does.
    """
    wrapped = given is not model and hasattr(given, "_orig_mod")
    if wrapped or _compiled_in_place(model) or model.__dict__.get("_compiled_call") is not None:
        raise AttachError(
            "this model is compiled already, and compiled code would pass the hooks by in silence. Enter the block "
            "first and compile inside it (torch.compile(model)), use the uncompiled model, or bake the vector."
        )


_SETTING = "skip_nnmodule_hook_guards"


class _OfThread(threading.local):
    """Torch keeps its settings per thread: what this one's was before its blocks, and how many of those are open."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {"open": 0}


_HERE = _OfThread()


@contextmanager
def guarded_compilation() -> Iterator[None]:
    """Code that `torch.compile` makes in this block notices when hooks come off later, and is made anew then.

    Blocks may be left in any order; the last one to go puts the setting back (the thread's next one, where another
    thread left it).
    """
    import torch._dynamo.config as config

    state = _HERE.state
    state.setdefault("before", getattr(config, _SETTING))
    state["open"] += 1
    setattr(config, _SETTING, False)
    try:
        yield
    finally:
        state["open"] -= 1
        if not state["open"] and state is _HERE.state:
            setattr(config, _SETTING, state.pop("before"))


@contextmanager
def eagerly(model: Any) -> Iterator[None]:
    """Whatever is compiled of `model` runs uncompiled, so that hooks see it."""
    if not _compiled_in_place(model):
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def _compiled_in_place(model: Any) -> bool:
    return any(module.__dict__.get("_compiled_call_impl") is not None for module in model.modules())
