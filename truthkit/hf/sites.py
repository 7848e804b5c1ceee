"""Where things are inside a Hugging Face model: decoder blocks, attention heads, MLPs, output head.

A *layer number* is the 0-based index of a decoder block, negative from the end, and means that block's output.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from truthkit.errors import ArgumentError, ModelError
from truthkit.hf.spread import refuse_pipelines

SITES = ("block", "heads", "mlp")
"""What can be read and changed in a decoder block: its output, the attention heads' outputs side by side (the input of
the output projection), or the MLP's output before it joins the residual stream."""

_ATTENTION = ("self_attn", "attn", "attention", "self_attention")
_PROJECTION = ("o_proj", "out_proj", "c_proj", "dense", "wo")
_MLP = ("mlp", "ffn", "feed_forward", "block_sparse_moe", "fc2")
_DOWN = ("dense_4h_to_h", "down_proj")


_NAMED_BLOCKS: weakref.WeakKeyDictionary[nn.Module, nn.ModuleList] = weakref.WeakKeyDictionary()


def name_blocks(model: nn.Module, path: str) -> None:
    """Say where the decoder blocks of an unusual model are, for everything that truthkit does with it from now on.

    Args:
        model: the plain model.
        path: attribute names from the model to a `ModuleList`, as "transformer.layers".

    Raises:
        ModelError: there is no such list.
    """
    try:
        found = model.get_submodule(path)
    except AttributeError as error:
        raise ModelError(f"{type(model).__name__} has no module {path!r}: {error}.") from error
    if not isinstance(found, nn.ModuleList) or not len(found):
        raise ModelError(f"{path!r} of {type(model).__name__} is a {type(found).__name__}; expected a list of blocks.")
    _NAMED_BLOCKS[model] = found


def decoder_blocks(model: Any) -> nn.ModuleList:
    """The text decoder's blocks, found from `get_decoder()` and checked against the text config's layer count.

    What `name_blocks` was told comes first.

    Raises:
        ModelError: the decoder holds no list of that many blocks, or several at one depth; the message lists the lists
            found. Or they lie in several processes.
    """
    refuse_pipelines(model)
    if (named := _NAMED_BLOCKS.get(model)) is not None:
        return named
    decoder, config = text_decoder(model), model.config.get_text_config(decoder=True)
    count = getattr(config, "decoder_layers", config.num_hidden_layers)
    found = _module_lists(decoder, count)
    if len(found) != 1:
        lists = ", ".join(
            f"{name} ({len(module)})" for name, module in decoder.named_modules() if isinstance(module, nn.ModuleList)
        )
        raise ModelError(
            f"cannot tell the decoder blocks of {type(model).__name__}: its text config says "
            f"num_hidden_layers={count}, and {type(decoder).__name__} holds these module lists: {lists or 'none'}. "
            "Expected exactly one of that length. truthkit.hf.sites.name_blocks(model, path) names them by hand."
        )
    return found[0]


def _module_lists(decoder: nn.Module, count: int) -> list[nn.ModuleList]:
    """The lists of `count` modules that lie least deep in the decoder, and not within another list."""
    level = [decoder]
    while level:
        children = [child for module in level for child in module.children()]
        if found := [child for child in children if isinstance(child, nn.ModuleList) and len(child) == count]:
            return found
        level = [child for child in children if not isinstance(child, nn.ModuleList)]
    return []


def site_module(block: nn.Module, site: str) -> nn.Module:
    """The module of a decoder block at which `site` is read: by its output, for "heads" by its input.

    Raises:
        ArgumentError: there is no such site.
        ModelError: the block has no part of a known name; the message lists its parts.
    """
    if site not in SITES:
        raise ArgumentError(f"site is {site!r}; expected one of {', '.join(map(repr, SITES))}.")
    if site == "block":
        return block
    if site == "heads":
        attention = _child(block, _ATTENTION)
        found = attention and _child(attention, _PROJECTION)
    else:
        found = _child(block, _MLP)
        if found is not None and "residual" in inspect.signature(found.forward).parameters:
            found = _child(found, _DOWN)  # BLOOM's and MPT's MLP adds the residual stream itself
    if found is None:
        parts = ", ".join(name for name, _ in block.named_children()) or "none"
        raise ModelError(f"{type(block).__name__} has no part known as site {site!r}; its parts are: {parts}.")
    return found


def _child(module: nn.Module, names: Sequence[str]) -> nn.Module | None:
    return next((child for name in names if (child := getattr(module, name, None)) is not None), None)


def site_width(model: Any, site: str) -> int:
    """How many features `site` has: heads times head size for "heads", else the hidden size."""
    config = model.config.get_text_config(decoder=True)
    if site != "heads":
        return int(config.hidden_size)
    projection: Any = site_module(decoder_blocks(model)[0], site)
    projection = getattr(projection, "base_layer", projection)
    width = getattr(projection, "in_features", None) or getattr(projection, "nx", None)
    return int(width if width is not None else projection.weight.shape[0])


def image_token(model: Any) -> int | None:
    """The id of the image placeholder token, or None for a text model."""
    found = (getattr(model.config, name, None) for name in ("image_token_id", "image_token_index"))
    return next((token for token in found if token is not None), None)


def input_device(model: Any) -> torch.device:
    """Where token ids go in; with weights that are offloaded, where they are brought to run."""
    return execution_device(model.get_input_embeddings())


def takes_positions_to_keep(model: Any) -> bool:
    """Whether `logits_to_keep` may list positions: of a model over several devices, accelerate moves the list to the
    first one, where the last hidden states are not.
    """
    return len(set(getattr(model, "hf_device_map", {}).values())) < 2


def execution_device(module: nn.Module) -> torch.device:
    """Where a layer with weights runs; of one that accelerate offloads, where its weights are brought."""
    hook = getattr(module, "_hf_hook", None)
    for one in (hook, *getattr(hook, "hooks", ()), *_inner_hooks(module)):
        if (device := getattr(one, "execution_device", None)) is not None:
            return torch.device(device)
    return next(module.parameters()).device


def _inner_hooks(module: nn.Module) -> list[Any]:
    """Those of the layers inside, as of a PEFT layer's own one."""
    return [hook for inner in module.children() if (hook := getattr(inner, "_hf_hook", None)) is not None]


def head_features(model: Any, head: int) -> slice:
    """Which features of site "heads" belong to one attention head.

    Raises:
        ArgumentError: there is no such head.
    """
    count = int(model.config.get_text_config(decoder=True).num_attention_heads)
    if isinstance(head, bool) or not isinstance(head, int) or not -count <= head < count:
        raise ArgumentError(f"head {head!r} does not exist: this model has {count} attention heads, 0 to {count - 1}.")
    size = site_width(model, "heads") // count
    return slice(head % count * size, (head % count + 1) * size)


def resolve_layers(layers: Sequence[int], count: int) -> tuple[int, ...]:
    """Layer numbers as non-negative block indices, in the order given.

    Raises:
        ArgumentError: no layer is given, or one is not an integer in [-count, count - 1].
    """
    if not layers:
        raise ArgumentError("layers is empty; name at least one decoder block, for example layers=[10, 12].")
    for layer in layers:
        if isinstance(layer, bool) or not isinstance(layer, int) or not -count <= layer < count:
            raise ArgumentError(
                f"layers contains {layer!r}, but this model has {count} decoder blocks: "
                f"expected integers from {-count} to {count - 1}."
            )
    return tuple(layer % count for layer in layers)


def resolve_layer(layer: int, count: int) -> int:
    """A layer number as a non-negative block index.

    Raises:
        ArgumentError: it is not an integer in [-count, count - 1].
    """
    if isinstance(layer, bool) or not isinstance(layer, int) or not -count <= layer < count:
        raise ArgumentError(
            f"layer is {layer!r}, but this model has {count} decoder blocks: expected an integer from {-count} to "
            f"{count - 1}."
        )
    return layer % count


def output_head(model: Any) -> nn.Module:
    """The module that maps hidden states to vocabulary logits.

    Raises:
        ModelError: the model has none, as a bare decoder without language-modelling head.
    """
    head = model.get_output_embeddings()
    if head is None:
        raise ModelError(
            f"{type(model).__name__} has no output head (get_output_embeddings() is None); "
            "load it as a causal or image-text model, for example with tk.load."
        )
    return head


def text_decoder(model: Any) -> Any:
    """The module whose last hidden states the output head reads.

    This is `get_decoder()`, or the decoder inside it where that is a model with a head of its own (Llama 4), or the
    base model where something else goes by that name (ModernBERT's head).
    """
    decoder = model.get_decoder()
    if not hasattr(decoder, "get_output_embeddings"):
        decoder = model.base_model
    return decoder.model if decoder.get_output_embeddings() is not None else decoder
