"""Views of one prompt as sibling requests: their rows of logits are combined, and each gets the combined row."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

from truthkit_vllm import scores
from truthkit_vllm.asked import Asked, asked
from truthkit_vllm.settings import SCHEDULER, check_runner

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig

_FORMULAS = {"cad": scores.cad, "icd": scores.icd}


class Siblings(LogitsProcessor):
    """Combine the rows of all views that are in a step; the scheduler has them all there, or none.

    Raises:
        ValueError: the engine's scheduler would not.
    """

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool):
        check_runner(vllm_config, "decoding by views")
        if vllm_config.scheduler_config.scheduler_cls != SCHEDULER:
            raise ValueError(f"views of a prompt need scheduler_cls={SCHEDULER!r}; others separate them.")
        self._rows: dict[int, Asked] = {}

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        asked(sampling_params)

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        if batch_update is None:
            return
        for row in batch_update.removed:
            self._rows.pop(row, None)
        for row, params, _prompt, _output in batch_update.added:
            self._put(row, asked(params))
        for source, target, direction in batch_update.moved:
            one, other = self._rows.pop(source, None), self._rows.pop(target, None)
            self._put(target, one)
            if direction == MoveDirectionality.SWAP:
                self._put(source, other)

    def _put(self, row: int, about: Asked | None) -> None:
        if about is None or about.decoder is None:
            self._rows.pop(row, None)
        else:
            self._rows[row] = about

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Combine in place; `logits` has shape (requests, vocabulary)."""
        gangs: dict[str, dict[int, int]] = defaultdict(dict)
        alike: dict[tuple[Any, ...], list[str]] = defaultdict(list)
        for row, about in self._rows.items():
            gangs[about.group][about.view] = row
            if about.view == 0:
                alike[(about.decoder, *sorted(about.options.items()))].append(about.group)
        for (decoder, *options), groups in alike.items():
            rows = [[gangs[group][view] for view in range(Asked.VIEWS)] for group in groups]
            views = torch.tensor(rows, device=logits.device).unbind(dim=1)
            combined = _FORMULAS[decoder](*(logits[view] for view in views), **dict(options))
            for view in views:
                logits[view] = combined
        return logits
