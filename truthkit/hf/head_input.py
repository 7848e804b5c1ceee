"""What the output head reads, replaced before it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from truthkit.hf.ownership import Block
from truthkit.hf.sites import text_decoder


@contextmanager
def head_reads(model: Any, name: str, replace: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Inside this block the output head reads `replace(h)` instead of the decoder's last hidden states `h`.

    The model's own forward goes on from there, so whatever it does around its head (scaling, soft capping) is done.

    Args:
        model: a plain model.
        name: whose block it is, in messages.
        replace: is given shape (batch, tokens, hidden), and may return fewer or more tokens.
    """

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        output.last_hidden_state = replace(output.last_hidden_state)
        return output

    handle = text_decoder(model).register_forward_hook(Block(name).only_here(hook))
    try:
        yield
    finally:
        handle.remove()
