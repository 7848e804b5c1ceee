"""Decode steps of `generate` as one compiled graph each, with all that the blocks on a model do in them.

For the tokens after the prompt `generate` takes what the model's `get_compiled_call` returns, if the cache is static
and the device, or a `compile_config`, asks for it. Code from outside of a block does not know the block's hooks, and
code made inside would outlive them. So in a block the model hands out `Steps`: the hooks' work that looks at the host
is done before each step, the rest is traced with the model, and the code belongs to the decoder or the steering, for
which it is kept from one block to the next. What the model itself had compiled stays as it was.
"""

from __future__ import annotations

import copy
import functools
import itertools
import types
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from transformers.cache_utils import StaticLayer

from truthkit.hf.compiled import eagerly
from truthkit.hf.room import context_length
from truthkit.hf.spread import is_spread
from truthkit.hf.step_parts import Arguments, Part, Widening
from truthkit.hf.wrapping import replaced_method

BIAS_FROM_MASK = {"bloom", "falcon"}
"""Model types that make ALiBi's bias from the mask, which must then be as long as a static cache."""


def _step(model: Any, views: Widening | None, inputs: Arguments, given: Arguments) -> tuple[Any, Any]:
    """What is compiled."""
    if views is None:
        return model(**inputs), None
    return views.narrow(model(**views.widen(inputs, given)), given)


_NUMBERS = itertools.count()


def _anew() -> Callable[..., Any]:
    """`_step` with a code object and a name of its own, for torch keeps compiled code and what it learnt by them."""
    code = _step.__code__.replace(co_name=f"step_{next(_NUMBERS)}")
    return types.FunctionType(code, _step.__globals__)


_COMPILED: weakref.WeakKeyDictionary[Any, list[tuple[Any, Callable[..., Any]]]] = weakref.WeakKeyDictionary()


class _Parts(list[Part]):
    """Those that take part in the steps of one model now, in the order of entry.

    Attributes:
        said: why steps run uncompiled, so far.
        compiled: whether the user compiled the model, all of which runs uncompiled but the steps.
    """

    def __init__(self, compiled: bool) -> None:
        super().__init__()
        self.said: set[str] = set()
        self.compiled = compiled


_PARTS: weakref.WeakKeyDictionary[torch.nn.Module, _Parts] = weakref.WeakKeyDictionary()


@contextmanager
def taking_part(model: Any, part: Part, compiled: bool = False) -> Iterator[None]:
    """Let `part` act in the compiled decode steps of `model`.

    Args:
        model: the plain model.
        part: its share.
        compiled: whether the user compiled the model, which asks for compiled steps as `compile_config` does.
    """

    def get_compiled_call(_original: Callable[..., Any]) -> Callable[..., Any]:
        return functools.partial(_compiled_call, model)

    parts = _PARTS.get(model) or _PARTS.setdefault(model, _Parts(compiled))
    parts.append(part)
    try:
        with ExitStack() as stack:
            stack.enter_context(replaced_method(model, "get_compiled_call", get_compiled_call))
            asked = functools.partial(_when_asked, compiled)
            stack.enter_context(replaced_method(model, "_valid_auto_compile_criteria", asked, part.block))
            yield
    finally:
        parts.remove(part)
        if not parts:
            _PARTS.pop(model, None)


@contextmanager
def uncompiled(model: Any, compiled: bool, part: Part | None = None) -> Iterator[None]:
    """Run a model eagerly, for compiled code from before would pass hooks by in silence; with `part` all but the steps.

    Args:
        model: the plain model.
        compiled: whether the user compiled it.
        part: see `taking_part`.
    """
    with ExitStack() as stack:
        if part is None:
            eager = replaced_method(model, "get_compiled_call", lambda _original: lambda _config: model.__call__)
            stack.enter_context(eager)
        else:
            stack.enter_context(taking_part(model, part, compiled))
        stack.enter_context(eagerly(compiled))
        if compiled:
            warnings.warn(
                "this model is compiled; inside a truthkit block it runs eagerly, all but the decode steps of generate "
                'with cache_implementation="static".',
                stacklevel=5,
            )
        yield


def _when_asked(compiled: bool, original: Callable[..., bool]) -> Callable[..., bool]:
    """A `_valid_auto_compile_criteria` to which a `compile_config` is enough on every device."""

    def valid(model_kwargs: dict[str, Any], generation_config: Any) -> bool:
        from transformers import CompileConfig

        cache = model_kwargs.get("cache")
        asks = CompileConfig() if compiled and getattr(cache, "is_compileable", False) else None
        if (config := generation_config.compile_config or asks) is not None:
            config = generation_config.compile_config = copy.copy(config)
            config._compile_all_devices = True
        return original(model_kwargs, generation_config)

    return valid


def _compiled_call(model: Any, config: Any) -> Callable[..., Any]:
    parts = _PARTS[model]
    if any(part.block.here() for part in parts):
        return Steps(model, config or model._default_compile_config(), parts)
    return model.__call__  # in another thread: what is compiled now would have the hooks of blocks that are not its own


class Steps:
    """The call that `generate` makes for each token after the prompt, in one call of it.

    Args:
        model: the plain model.
        config: transformers' `CompileConfig`.
        parts: of all blocks on the model; those of this thread act.
    """

    def __init__(self, model: Any, config: Any, parts: _Parts):
        self._model, self._config, self._all = model, config, parts
        self._parts = [part for part in parts if part.block.here()]
        self._views: Any = next((part for part in parts if hasattr(part, "widen")), None)
        self._run: Callable[..., Any] | None = None
        self._eager = False
        self._mask: torch.Tensor | None = None

    def __call__(self, **inputs: Any) -> Any:
        ids = inputs.get("input_ids")
        if self._eager or ids is None or ids.shape[1] != 1 or not all(part.has_read for part in self._parts):
            return self._model(**inputs)
        if (reason := self._obstacle(inputs)) is not None:
            return self._eagerly(reason, inputs)
        views = self._views
        rows = len(ids) if views is None else len(ids) * views.count
        wide = functools.cache(lambda: inputs if views is None else views.wide(inputs))
        if self._run is None:
            self._mask = self._static_mask(inputs, rows)
            self._run = self._function()
        try:
            with ExitStack() as stack:
                if self._all.compiled:
                    stack.enter_context(torch.compiler.set_stance("default"))
                for part in self._parts:
                    stack.enter_context(part.step(inputs, rows, wide))
                given = {} if views is None else views.given(inputs, wide)
                outputs, found = self._run(self._model, views, inputs | {"attention_mask": self._mask}, given)
        except _not_one_graph() as error:
            names = " + ".join(part.name for part in self._parts)
            return self._eagerly(f"{names} and this model cannot be one graph ({_cause(error)})", inputs)
        if views is not None:
            views.look(found)
        return outputs

    def _obstacle(self, inputs: Arguments) -> str | None:
        if self._run is None and is_spread(self._model):
            return "several processes hold the model together"
        found = ((part.name, part.obstacle(inputs)) for part in self._parts)
        return next((f"{name} {reason}" for name, reason in found if reason is not None), None)

    def _eagerly(self, reason: str, inputs: Arguments) -> Any:
        self._eager = True
        if reason not in self._all.said:
            self._all.said.add(reason)
            warnings.warn(f"decode steps run uncompiled: {reason}.", stacklevel=2)
        return self._model(**inputs)

    def _static_mask(self, inputs: Arguments, rows: int) -> torch.Tensor | None:
        """The mask over the whole of the cache, in which nothing changes later; None where all of it can be seen."""
        if self._views is not None:
            mask = self._views.mask(inputs)
        elif (mask := inputs.get("attention_mask")) is not None and bool(mask.all()):
            mask = None
        if mask is None and self._model.config.model_type in BIAS_FROM_MASK:
            mask = inputs["input_ids"].new_ones(rows, 1)
        if mask is None:
            return None
        return torch.nn.functional.pad(mask, (0, _columns(self._model, inputs["cache"]) - mask.shape[1]), value=1)

    def _function(self) -> Callable[..., Any]:
        """The compiled `_step`, one for each owner, config, and set of hooks on the model.

        Torch takes no notice of hooks where there was none before, so code for one set must not serve another.
        """
        owner = self._parts[-1].owner if self._views is None else self._views.owner
        known = _COMPILED.setdefault(owner, [])
        key = (self._config, _hooks(self._model))
        if (run := next((run for for_what, run in known if for_what == key), None)) is None:
            run = torch.compile(_anew(), **self._config.to_dict() | {"fullgraph": True})
            known.append((key, run))
        return run


def _not_one_graph() -> tuple[type[Exception], ...]:
    """What torch raises, before anything ran, where it cannot make a graph or compile it."""
    from torch._dynamo import exc

    return exc.TorchDynamoException, getattr(exc, "FailOnRecompileLimitHit", exc.TorchDynamoException)


def _hooks(model: torch.nn.Module) -> tuple[tuple[str, int, int], ...]:
    """How many hooks there are, and where."""
    counted = ((name, len(one._forward_pre_hooks), len(one._forward_hooks)) for name, one in model.named_modules())
    return tuple(one for one in counted if any(one[1:]))


def _columns(model: Any, cache: Any) -> int:
    """How many columns the text in a static cache can come to have; layers with a window hold the last ones."""
    full = [layer.max_cache_len for layer in cache.layers if isinstance(layer, StaticLayer) and not layer.is_sliding]
    return max(full, default=None) or context_length(model) or 0


def _cause(error: Exception) -> str:
    """One line of what went wrong."""
    inner = getattr(error, "inner_exception", error)
    return f"{type(inner).__name__}: {str(inner).strip().partition(chr(10))[0][:200].rstrip('. ')}"
