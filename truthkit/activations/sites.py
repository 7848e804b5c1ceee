"""Where things are inside a Hugging Face model: decoder blocks, final norm, output head.

A *layer number* is the 0-based index of a decoder block, negative from the end, and means that block's output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from truthkit.errors import ArgumentError, ModelError

_FINAL_NORMS = (
    "norm",
    "ln_f",
    "final_layernorm",
    "final_layer_norm",
    "norm_f",
    "final_norm",
    "layer_norm",
    "layernorm",
)


def decoder_blocks(model: Any) -> nn.ModuleList:
    """The text decoder's blocks, found from `get_decoder()` and checked against the text config's layer count.

    Raises:
        ModelError: no list of that many blocks is a child of the decoder, or several are; the message lists the lists
            found.
    """
    decoder, count = model.get_decoder(), model.config.get_text_config(decoder=True).num_hidden_layers
    found = {name: child for name, child in decoder.named_children() if isinstance(child, nn.ModuleList)}
    matching = [child for child in found.values() if len(child) == count]
    if len(matching) != 1:
        lists = ", ".join(f"{name} ({len(child)})" for name, child in found.items()) or "none"
        raise ModelError(
            f"cannot tell the decoder blocks of {type(model).__name__}: its text config says "
            f"num_hidden_layers={count}, "
            f"and {type(decoder).__name__} holds these module lists: {lists}. Expected exactly one of that length."
        )
    return matching[0]


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


def final_norm(model: Any, *, norm: bool = True) -> Callable[[torch.Tensor], torch.Tensor]:
    """What the model does between its last block and its output head, as a function of hidden states (..., hidden).

    This is the decoder's final norm, followed by the output projection that some OPT models have. Models without a
    final norm (post-norm architectures) give the identity. With `norm=False` the projection alone.
    """
    decoder = model.get_decoder()
    norms = [getattr(decoder, name, None) for name in _FINAL_NORMS if norm]
    steps = [module for module in norms if module is not None][:1]
    if (projection := getattr(decoder, "project_out", None)) is not None:
        steps.append(projection)

    def apply(hidden_states: torch.Tensor) -> torch.Tensor:
        for step in steps:
            hidden_states = step(hidden_states)
        return hidden_states

    return apply


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
