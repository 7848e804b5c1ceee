"""Entropies of softmaxes whose values are seen a few at a time, and never held together."""

from __future__ import annotations

import torch

_LOWEST = -1e30
"""In place of −inf, and of what is not counted: it can be multiplied."""


class RunningEntropy:
    """The entropy of softmax over values of which a few are seen at a time, for many softmaxes side by side.

        H = log Z − S / Z,   Z = Σ exp(x − m),   S = Σ exp(x − m) · (x − m),   m the largest x so far

    Args:
        largest: m.
        weights: Z.
        weighted: S; all of one shape, (rows, vocabulary).
    """

    def __init__(self, largest: torch.Tensor, weights: torch.Tensor, weighted: torch.Tensor):
        self._largest, self._weights, self._weighted = largest, weights, weighted

    @classmethod
    def of_nothing(cls, like: torch.Tensor) -> RunningEntropy:
        """For values such as `like`, shape (rows, positions, vocabulary), of which none is counted yet."""
        none = like.new_zeros(len(like), like.shape[-1])
        return cls(none.fill_(_LOWEST), torch.zeros_like(none), torch.zeros_like(none))

    def add(self, values: torch.Tensor, counted: torch.Tensor) -> None:
        """Count some values.

        Args:
            values: shape (rows, positions, vocabulary).
            counted: which positions count, shape (rows, positions), bool.
        """
        values = torch.where(counted[..., None], values, _LOWEST).clamp_min_(_LOWEST)
        largest = torch.maximum(self._largest, values.amax(dim=1))
        change = self._largest - largest
        values.sub_(largest[:, None])
        new = values.exp()
        old = change.exp()
        self._weighted = old * (self._weighted + change * self._weights) + values.mul_(new).sum(dim=1)
        self._weights = old * self._weights + new.sum(dim=1)
        self._largest = largest

    def entropy(self) -> torch.Tensor:
        """In nats, shape (rows, vocabulary)."""
        return self._weights.log() - self._weighted / self._weights

    def select(self, index: torch.Tensor) -> RunningEntropy:
        """That of other rows, whose row `i` is this one's row `index[i]`."""
        index = index.to(self._largest.device)
        return RunningEntropy(self._largest[index], self._weights[index], self._weighted[index])
