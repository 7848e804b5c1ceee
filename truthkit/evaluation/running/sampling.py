"""Sampling that gives each item the same answer in any batch, any order, and after any interruption."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor

from truthkit.errors import ArgumentError


class SeededSampling(LogitsProcessor):
    """Draws every row's tokens by that row's own seed; to be used with greedy `generate`, as the last processor.

    Adds Gumbel noise to the log-probabilities: the largest sum is then distributed as a draw from them (E. J. Gumbel,
    1954; the Gumbel-max trick).

    Args:
        seeds: one per row.
        temperature: divides the logits, above 0.
        top_p: nucleus of that mass, in (0, 1].

    Raises:
        ArgumentError: a number out of range.
    """

    def __init__(self, seeds: Sequence[int], *, temperature: float = 1.0, top_p: float = 1.0):
        if not temperature > 0:
            raise ArgumentError(f"temperature is {temperature}; expected a number above 0.")
        if not 0 < top_p <= 1:
            raise ArgumentError(f"top_p is {top_p}; expected a number in (0, 1].")
        self.seeds, self.temperature, self.top_p = list(seeds), temperature, top_p
        self._step = 0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Noisy log-probabilities of shape (batch, vocabulary)."""
        log_p = (scores.float() / self.temperature).log_softmax(dim=-1)
        if self.top_p < 1:
            ordered, index = log_p.sort(dim=-1, descending=True)
            before = ordered.exp().cumsum(dim=-1) - ordered.exp()
            log_p = log_p.masked_fill((before >= self.top_p).scatter(-1, index, before >= self.top_p), -torch.inf)
        noise = torch.stack([self._noise(seed, log_p.shape[-1]) for seed in self.seeds])
        self._step += 1
        return log_p + noise.to(log_p.device)  # type: ignore[return-value]

    def _noise(self, seed: int, size: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed((seed * 1_000_003 + self._step) % 2**63)
        uniform = torch.rand(size, generator=generator, dtype=torch.float64).clamp_(1e-300, 1 - 1e-16)
        return -(-uniform.log()).log()
