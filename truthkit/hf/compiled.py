"""Hooks and `torch.compile`: compiled code does not see hooks that come after it, and says nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch


def is_compiled(given: Any, model: Any) -> bool:
    """Whether the user compiled `model`, or a part of it.

    Args:
        given: the model as the user has it, possibly wrapped by `torch.compile`.
        model: the plain model.
    """
    return (given is not model and hasattr(given, "_orig_mod")) or _compiled_in_place(model)


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


_LOCK = threading.Lock()
_EAGER: dict[str, Any] = {"open": 0, "stack": ExitStack()}


@contextmanager
def eagerly(compiled: bool) -> Iterator[None]:
    """Whatever is compiled runs uncompiled in this block, so that hooks see it; nothing happens unless `compiled`.

    Torch's stance is one for all threads, and here for all blocks: the last one to go puts it back.
    """
    if not compiled:
        yield
        return
    with _LOCK:
        _EAGER["open"] += 1
        if _EAGER["open"] == 1:
            _EAGER["stack"].enter_context(torch.compiler.set_stance("force_eager"))
    try:
        yield
    finally:
        with _LOCK:
            _EAGER["open"] -= 1
            if not _EAGER["open"]:
                _EAGER["stack"].close()


def _compiled_in_place(model: Any) -> bool:
    return any(module.__dict__.get("_compiled_call_impl") is not None for module in model.modules())
