"""Where the vision tower of an image-text model has its blocks."""

from __future__ import annotations

from typing import Any

from torch import nn

from truthkit.errors import ModelError
from truthkit.hf.sites import text_decoder


def vision_blocks(model: Any) -> nn.ModuleList:
    """The blocks of the vision tower: the one list of modules outside of the text decoder, each with attention and MLP.

    So it is in CLIP and SigLIP towers and in Qwen2-VL's, whatever they are called.

    Raises:
        ModelError: there is no such list, as in a model without images, or more than one.
    """
    inside = set(text_decoder(model).modules())
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) and module not in inside and all(map(_is_block, module))
    }
    if len(found) != 1:
        lists = ", ".join(found) or "none"
        raise ModelError(
            f"cannot tell the vision tower's blocks of {type(model).__name__}: outside of its text decoder these lists "
            f"of blocks with attention and MLP were found: {lists}. Expected one; leave the vision part out."
        )
    return next(iter(found.values()))


def _is_block(module: nn.Module) -> bool:
    names = [name for name, _ in module.named_children()]
    return "mlp" in names and any("att" in name for name in names)
