"""One forward over given tokens, for the logits at some of them."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from truthkit.hf.sites import input_device, takes_positions_to_keep
from truthkit.hf.wrapping import plain_model


def logits_at(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, keep: int | torch.Tensor, cache: Any
) -> torch.Tensor:
    """Logits at the last `keep` positions of `ids`, or at those that it lists, shape (rows, kept, vocabulary).

    Args:
        model: as the user has it; a decoder or steering may be on it.
        ids: shape (rows, tokens).
        mask: 2-D over all tokens so far, or 4-D for a tree.
        positions: of the tokens, shape (rows, tokens).
        keep: how many last positions, or their indices in ascending order.
        cache: what came before; None to do without.
    """
    accepted = inspect.signature(plain_model(model).forward).parameters
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    call: dict[str, Any] = {name: value.to(input_device(model)) for name, value in inputs.items() if name in accepted}
    call |= {"use_cache": False} if cache is None else {"cache": cache}
    cuts = "logits_to_keep" in accepted
    if isinstance(keep, torch.Tensor):
        keep = keep.to(input_device(model))
        cuts = cuts and takes_positions_to_keep(plain_model(model))
    call |= {"logits_to_keep": keep} if cuts else {}
    with torch.no_grad():
        logits = model(**call).logits
    if isinstance(keep, int):
        return logits[:, -keep:]
    return logits if cuts else logits[:, keep.to(logits.device)]
