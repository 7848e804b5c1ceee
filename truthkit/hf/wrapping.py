"""One decoder at a time on a model, and everything put on the model comes off again."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from truthkit.errors import ArgumentError, AttachError, ModelError
from truthkit.hf.ownership import Block

if TYPE_CHECKING:
    from transformers import GenerationMixin, PreTrainedModel

    class GenerativeModel(PreTrainedModel, GenerationMixin):
        """A model that generates, for type checkers."""


_OWNERS: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()


def plain_model(model: Any) -> Any:
    """The `PreTrainedModel` under PEFT and `torch.compile` wrappers: the module whose `generate` really runs."""
    model = getattr(model, "_orig_mod", model)
    if hasattr(model, "peft_config") and hasattr(model, "get_base_model"):
        model = model.get_base_model()
    return model


_HANDS_OVER = {"blip-2", "instructblip"}
"""Model types whose `generate` puts image features among the embeddings and calls the language model's own."""


def language_half(model: Any) -> Any:
    """The model whose `generate` runs the decoding loop: mostly `model` itself."""
    return model.language_model if model.config.model_type in _HANDS_OVER else model


def owner_of(model: nn.Module) -> str | None:
    """The decoder that is attached to `model` now."""
    return _OWNERS.get(model)


@contextmanager
def sole_owner(model: nn.Module, name: str) -> Iterator[None]:
    """Mark `model` as used by the decoder `name`.

    Raises:
        AttachError: another decoder is attached; leave its `with` block first.
    """
    if (other := _OWNERS.get(model)) is not None:
        raise AttachError(
            f"{name} cannot be attached: this model already runs under {other}. Two decoders on one model would each "
            f"rewrite the other's logits; leave the `with {other}(...)` block first."
        )
    _OWNERS[model] = name
    try:
        yield
    finally:
        _OWNERS.pop(model, None)


Make = Callable[[Callable[..., Any]], Callable[..., Any]]
"""Makes a method from the one that it replaces."""


NO_COPY = (
    "the model cannot be copied inside of a truthkit block, because its {} is replaced there and the copy's would run "
    "the original; leave the block first, or copy the model before."
)


class Replaced:
    """What stands on one module in place of a method: the original, and around it a layer for each block that is on.

    Layers come and go in any order, each acts in the threads of its block only, and the last one to go takes this with
    it.
    """

    def __init__(self, module: nn.Module, name: str):
        self._module, self._name = module, name
        self._before = module.__dict__.get(name, self)
        self._original = getattr(module, name)
        self._layers: list[tuple[Make, Block | None]] = []
        functools.update_wrapper(self, self._original)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        method = self._original
        for make, block in tuple(self._layers):
            if block is None or block.here():
                method = make(method)
        return method(*args, **kwargs)

    def __deepcopy__(self, _memo: Any) -> Any:
        raise AttachError(NO_COPY.format(self._name))

    def add(self, layer: tuple[Make, Block | None]) -> None:
        """Put a layer around all others."""
        self._layers.append(layer)

    def remove(self, layer: tuple[Make, Block | None]) -> None:
        """Take a layer away, and with the last one what stands on the module, if it is still this."""
        self._layers = [one for one in self._layers if one is not layer]
        if self._layers or self._module.__dict__.get(self._name) is not self:
            return
        if self._before is self:
            del self._module.__dict__[self._name]
        else:
            self._module.__dict__[self._name] = self._before


_LOCK = threading.Lock()


@contextmanager
def replaced_method(module: nn.Module, name: str, make: Make, block: Block | None = None) -> Iterator[None]:
    """Shadow the method `name` on this one instance by `make(original)`, and restore what was there before.

    Args:
        module: the instance.
        name: of the method.
        make: makes the replacement.
        block: in whose threads it is replaced; None is all.
    """
    layer = (make, block)
    with _LOCK:
        found = module.__dict__.get(name)
        replaced = found if isinstance(found, Replaced) else Replaced(module, name)
        module.__dict__[name] = replaced
        replaced.add(layer)
    try:
        yield
    finally:
        with _LOCK:
            replaced.remove(layer)


def keep_mask_flat(original: Callable[..., Any]) -> Callable[..., Any]:
    """A `prepare_inputs_for_generation` that leaves the mask 2-D, so that padding stays visible to hooks.

    The 4-D mask that `generate` would make fits its own batch only; the model makes one itself.
    """

    @functools.wraps(original)
    def prepare(*args: Any, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> Any:
        inputs = original(*args, attention_mask=attention_mask, **kwargs)
        if inputs.get("attention_mask") is not None:  # a recurrent model drops it after the prompt
            inputs["attention_mask"] = attention_mask
        return inputs

    return prepare


def refuse_guidance(model: Any, name: str, kwargs: Mapping[str, Any]) -> None:
    """Refuse a call of `generate` that asks the model about a second text beside the one that is generated.

    Args:
        model: whose call it is.
        name: of the block, in the message.
        kwargs: of the call.

    Raises:
        ArgumentError: `guidance_scale` is on, in the call or in its configuration.
    """
    config = kwargs.get("generation_config") or model.generation_config
    guidance = kwargs.get("guidance_scale", getattr(config, "guidance_scale", None))
    if guidance not in (None, 1):
        raise ArgumentError(
            f"guidance_scale={guidance}, of the call or of a generation_config, cannot be used with {name}: it asks "
            "the model about a second text beside the one that is generated. Pass guidance_scale=None, or leave "
            f"{name} out."
        )


def refuse_continuous_batching(original: Callable[..., Any]) -> Callable[..., Any]:
    """A `generate_batch` that says why it cannot be used."""

    @functools.wraps(original)
    def generate_batch(*_args: Any, **_kwargs: Any) -> Any:
        raise ModelError(
            "continuous batching packs all requests into one row, where neither views nor steered tokens can be told "
            "apart; use model.generate."
        )

    return generate_batch
