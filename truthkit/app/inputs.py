"""Model inputs of an answer that is read again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch


def with_answer(inputs: Mapping[str, Any], answer: Sequence[int]) -> dict[str, torch.Tensor]:
    """Model inputs for a prompt with its answer."""
    length = inputs["input_ids"].shape[1]
    tensors = {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}
    return {name: _continued(value, length, answer, name) for name, value in tensors.items()}


def _continued(value: torch.Tensor, length: int, answer: Sequence[int], name: str) -> torch.Tensor:
    """A model input for the prompt and its answer: new tokens are seen, and of text where token types are told."""
    if value.dim() != 2 or value.shape[1] != length:
        return value
    tail = list(answer) if name == "input_ids" else [int(name == "attention_mask")] * len(answer)
    return torch.cat([value, value.new_tensor([tail])], dim=1)
