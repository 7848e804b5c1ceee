"""Whether padding on the left of a prompt leaves what a model says of it alone: attention does not see it, a recurrence
may.
"""

from __future__ import annotations

import inspect
import weakref
from typing import Any

import torch

from truthkit.hf.growing_cache import GrowingCache
from truthkit.hf.sites import input_device

_NOT_NEUTRAL = {"recurrent_gemma"}
"""Model types whose states take padding in."""

_MEASURED: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()
_LENGTH, _PADDING = 8, 5


def neutral_to_padding(model: Any) -> bool:
    """Whether prompts of several lengths may share a batch; known, or measured once for a model with recurrent states.

    Args:
        model: the plain model.
    """
    if model.config.model_type in _NOT_NEUTRAL:
        return False
    if not _recurs(model):
        return True
    if (known := _MEASURED.get(model)) is None:
        known = _MEASURED[model] = _measured(model)
    return known


def _recurs(model: Any) -> bool:
    cache = GrowingCache(config=model.config.get_text_config(decoder=True))
    return bool(getattr(model, "_is_stateful", False)) or any(cache.is_linear)


@torch.no_grad()
def _measured(model: Any) -> bool:
    """Two forwards over a few tokens, without and with padding."""
    config = model.config.get_text_config(decoder=True)
    ids = torch.arange(_LENGTH, device=input_device(model))[None] * 7 % config.vocab_size
    logits = []
    for padding in (0, _PADDING):
        padded = torch.nn.functional.pad(ids, (padding, 0))
        mask = torch.nn.functional.pad(torch.ones_like(ids), (padding, 0))
        inputs = {"input_ids": padded, "attention_mask": mask}
        if "position_ids" in inspect.signature(model.forward).parameters:
            inputs["position_ids"] = (mask.cumsum(dim=1) - 1).clamp_min_(0)
        logits.append(model(**inputs, use_cache=False).logits[0, -1].double())
    rounding = 256 * torch.finfo(model.dtype).eps
    return bool((logits[0] - logits[1]).abs().max() <= rounding * logits[0].abs().max())
