"""Hooks and `torch.compile`: compiled code does not see hooks that come after it, and says nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
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


_LOCK = threading.Lock()
_GUARDED: list[AbstractContextManager[None]] = []
"""The change of torch's setting, once for each block that is open."""


@contextmanager
def guarded_compilation() -> Iterator[None]:
    """Code that `torch.compile` makes in this block notices when hooks come off later, and is made anew then.

    Blocks may be left in any order; the last one to go puts the setting back.
    """
    import torch._dynamo.config as config

    with _LOCK:
        patch = _GUARDED[0] if _GUARDED else config.patch(skip_nnmodule_hook_guards=False)
        if not _GUARDED:
            patch.__enter__()
        _GUARDED.append(patch)
    try:
        yield
    finally:
        with _LOCK:
            _GUARDED.pop()
            if not _GUARDED:
                patch.__exit__(None, None, None)


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
