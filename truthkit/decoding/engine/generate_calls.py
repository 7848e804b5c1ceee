"""Calls of `generate` under a decoder: the images of all views first, the request checked, and all forgotten after."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch

from truthkit.decoding.engine.image_inputs import drop_pixels, encoded_already, take_image_inputs
from truthkit.decoding.engine.loop import Loop
from truthkit.decoding.engine.read_before import read_before
from truthkit.errors import ArgumentError
from truthkit.hf.ownership import Block
from truthkit.hf.wrapping import keep_mask_flat, refuse_guidance, replaced_method


def encoding_images(loop: Loop, block: Block, original: Callable[..., Any]) -> Callable[..., Any]:
    """A `generate` before which the images of all views are encoded together."""

    @functools.wraps(original)
    def generate(*args: Any, **kwargs: Any) -> Any:
        block.check()
        if loop.generating or loop.inert or loop.goes_on(kwargs.get("cache")):
            return original(*args, **kwargs)
        inputs = take_image_inputs(loop.front, kwargs)
        if not inputs and not loop.main.images.changed:
            return original(*args, **kwargs)
        with ExitStack() as stack:
            stack.enter_context(block.calling())
            ids = loop.encode(inputs, given_ids(args, kwargs), kwargs.get("attention_mask"))
            features = loop.main.images.output(len(ids), [0])
            stack.callback(loop.forget)
            cache = None if loop.companions else read_before(loop.main, ids, kwargs, loop.forward_plainly)
            if cache is not None:
                loop.adopt(cache)
                kwargs = {name: value for name, value in kwargs.items() if name not in inputs} | {"cache": cache}
            elif loop.front is not loop.model:  # it encodes the images itself
                stack.enter_context(encoded_already(loop.front, features))
            else:
                kwargs = drop_pixels(kwargs) | {"mm_encoder_outputs": {"image": features}}
            return original(*args, **kwargs)

    return generate


def guarded(loop: Loop, block: Block, original: Callable[..., Any]) -> Callable[..., Any]:
    """A `generate` that is checked, and after which nothing of its prompts is left."""

    @functools.wraps(original)
    def generate(*args: Any, **kwargs: Any) -> Any:
        with block.calling():
            if loop.generating or loop.inert:  # an early-exit assistant drafts with the model itself, without views
                with loop.plainly():
                    return original(*args, **kwargs)
            return _generated(loop, block, original, args, kwargs)

    return generate


def _generated(
    loop: Loop, block: Block, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    _check_request(loop, args, kwargs)
    loop.length = _prompt_length(args, kwargs)
    if loop.goes_on(kwargs.get("cache")):
        for group in loop.groups:
            group.prompt_goes_on(loop.length or 0)
    elif not loop.main.images.ready:
        loop.forget()
    loop.ids = kwargs.get("input_ids") if kwargs.get("inputs_embeds") is not None else None
    given, config = kwargs.get("cache", kwargs.get("past_key_values")), _config(loop, kwargs)
    as_dict = kwargs.get("return_dict_in_generate", getattr(config, "return_dict_in_generate", False))
    loop.generating, loop.cache_is_wanted = True, given is not None or bool(as_dict)
    try:
        prepare = functools.partial(_noting_inputs, loop)
        with replaced_method(loop.model, "prepare_inputs_for_generation", prepare, block):
            result = original(*args, **kwargs)
        loop.nan.raise_if_found()
        loop.release(wanted=loop.cache_is_wanted)
        return result
    finally:
        loop.generating, loop.cache_is_wanted = False, True
        loop.forget(cache_is_wanted=False)


def _noting_inputs(loop: Loop, original: Callable[..., Any]) -> Callable[..., Any]:
    """A `prepare_inputs_for_generation` that leaves the mask 2-D, and notes the tokens."""
    flat = keep_mask_flat(original)

    @functools.wraps(original)
    def prepare(*args: Any, **kwargs: Any) -> Any:
        inputs = flat(*args, **kwargs)
        loop.prepared = inputs.get("input_ids")
        return inputs

    return prepare


def _config(loop: Loop, kwargs: Mapping[str, Any]) -> Any:
    return kwargs.get("generation_config") or loop.model.generation_config


def _check_request(loop: Loop, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    ids = given_ids(args, kwargs)
    if isinstance(ids, torch.Tensor) and ids.numel() == 0:
        raise ArgumentError(f"the prompt is empty: input_ids has shape {tuple(ids.shape)}; pass at least one token.")
    config = _config(loop, kwargs)
    refuse_guidance(loop.model, loop.name, kwargs)
    if loop.main.rows > 1 and (names := _adapters_by_row(loop.model)) is not None:
        raise ArgumentError(
            f"adapter_names={names} gives each row an adapter of its own, but under {loop.name} there are rows of "
            f"{loop.main.rows} views; use set_adapter, and one call for each adapter."
        )
    chunk = kwargs.get("prefill_chunk_size", getattr(config, "prefill_chunk_size", None))
    alike = all(group.same_prompt and not group.images.ready for group in loop.groups)
    if chunk is not None and (loop.companions or not alike):
        raise ArgumentError(
            f"prefill_chunk_size={chunk} cannot be used with {loop.name} here: a view's prompt differs from the main "
            "one, holds images or runs in another model, so its chunks would not line up. Leave prefill_chunk_size out."
        )


def _adapters_by_row(model: torch.nn.Module) -> Any:
    """What PEFT was given as `adapter_names`; it leaves them in hooks for the length of the call."""
    hooks = (hook for module in model.modules() for hook in module._forward_pre_hooks.values())
    partials = (hook.keywords for hook in hooks if isinstance(hook, functools.partial))
    return next((keywords["adapter_names"] for keywords in partials if "adapter_names" in keywords), None)


def given_ids(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The token ids among the arguments of a call of `generate`."""
    return args[0] if args else kwargs.get("input_ids", kwargs.get("inputs"))


def _prompt_length(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int | None:
    """How many tokens the prompt of a call of `generate` has; None where it makes one itself."""
    given = (*args[:1], *(kwargs.get(name) for name in ("inputs", "input_ids", "inputs_embeds")))
    prompt = next((one for one in given if isinstance(one, torch.Tensor)), None)
    return None if prompt is None else prompt.shape[1]
