"""Steering vectors per request: every decoder block's output is moved by what its tokens' requests ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from truthkit_vllm.asked import asked


class Steering:
    """Steer a model runner's model by `vectors`, from now on.

    The strengths of a step are one matrix, of each token for each vector, made where the runner calls the model; a hook
    on each steered block adds strengths times directions. A step where nothing is steered costs a look at its requests.

    Args:
        runner: vLLM's first model runner, its model loaded.
        vectors: directions of shape (features,) by layer number, by name.

    Raises:
        ValueError: the model has no such layers, or other features.
    """

    def __init__(self, runner: Any, vectors: Mapping[str, Mapping[int, torch.Tensor]]):
        model = runner.get_model()
        blocks = getattr(getattr(model, "model", None), "layers", None)
        if blocks is None:
            raise ValueError(f"{type(model).__name__} keeps its decoder blocks where steering does not find them.")
        weight = next(model.parameters())
        self._runner, self._names = runner, list(vectors)
        self._strengths: torch.Tensor | None = None
        self._dtype, self._device = weight.dtype, weight.device
        features = model.config.hidden_size
        for layer in sorted({layer for directions in vectors.values() for layer in directions}):
            if layer >= len(blocks):
                raise ValueError(f"a vector has layer {layer}; the model has {len(blocks)} decoder blocks.")
            rows = [directions.get(layer, torch.zeros(features)) for directions in vectors.values()]
            if wrong := [len(row) for row in rows if len(row) != features]:
                raise ValueError(f"a vector has {wrong[0]} features; the model has {features}.")
            table = torch.stack(rows).to(self._device, self._dtype)
            blocks[layer].register_forward_hook(self._hook(table))
        self._forward: Callable[..., Any] = runner._model_forward
        runner._model_forward = self._steered

    def _steered(self, *args: Any, **named: Any) -> Any:
        self._strengths = self._of_tokens()
        try:
            return self._forward(*args, **named)
        finally:
            self._strengths = None

    def _of_tokens(self) -> torch.Tensor | None:
        """Strengths of shape (tokens, vectors) in this step; None where no request is steered."""
        batch = self._runner.input_batch
        wanted = [asked(self._runner.requests[name].sampling_params).steer for name in batch.req_ids[: batch.num_reqs]]
        if not any(wanted):
            return None
        rows = torch.tensor([[steer.get(name, 0.0) for name in self._names] for steer in wanted])
        starts = torch.as_tensor(self._runner.query_start_loc.np[: len(wanted) + 1])
        return rows.repeat_interleave(starts.diff(), dim=0).to(self._device, self._dtype)

    def _hook(self, table: torch.Tensor) -> Callable[..., Any]:
        def hook(_block: torch.nn.Module, _args: Any, output: Any) -> Any:
            if self._strengths is None:
                return None
            hidden, residual = output  # their sum is the block's output; behind the step's tokens there may be padding
            moved = hidden.clone()
            moved[: len(self._strengths)] += self._strengths @ table
            return moved, residual

        return hook
