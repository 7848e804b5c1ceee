"""The masks of decoding steps over padded prompts, as the attention layers take them.

From a 2-D mask transformers makes a new one at every token, and waits for the device to learn whether it hides
anything. Behind prompts nothing is ever hidden, so one row of zeros and lowest numbers serves all steps: each sees its
beginning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from truthkit.hf.trees import additive, by_layer_type, tree_obstacle

if TYPE_CHECKING:
    from transformers.cache_utils import Cache

_SPARE = 256
"""For how many more tokens there is room when it runs out."""


class StepMasks:
    """The masks of all steps behind some prompts.

    Args:
        model: a plain model whose attention takes 4-D masks (`takes`).
        cache: of its rows.
        prompts: which of the prompts' columns are real, shape (rows, length).
    """

    def __init__(self, model: Any, cache: Cache, prompts: torch.Tensor):
        self._model, self.cache, self._prompts = model, cache, prompts
        self._visible = additive(prompts.bool(), model.dtype)[:, None, None]

    @staticmethod
    def takes(model: Any, cache: Any) -> bool:
        """Whether `model` takes such masks, with this cache."""
        return hasattr(cache, "layers") and tree_obstacle(model, cache) is None

    def at(self, length: int) -> torch.Tensor | dict[str, torch.Tensor]:
        """For one more token per row, with which there are `length` columns: additive, shape (rows, 1, 1, columns);
        one for each layer type where layers hold different numbers of columns.
        """
        if length > self._visible.shape[-1]:
            self._visible = torch.nn.functional.pad(self._visible, (0, length + _SPARE - self._visible.shape[-1]))
        return by_layer_type(
            self._model, self.cache, 1, lambda columns, offset: self._visible[..., offset : offset + columns]
        )
