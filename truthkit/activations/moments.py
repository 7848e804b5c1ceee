"""Streaming moments in float64: mean and scatter of any number of rows in constant memory, and exact merging of parts.

Source of the update: Chan, Golub and LeVeque, *Updating Formulae and a Pairwise Algorithm for Computing Sample
Variances* (1979); it loses no digits where raw sums of squares would.
"""

from __future__ import annotations

import torch

from truthkit.parallel import Shards


class Moments:
    """Count, mean and (if asked for) scatter of feature rows, for several layers at once.

    Attributes:
        count: rows seen.
        mean: (layers, features), float64.
        scatter: Σ (x − mean)(x − mean)ᵀ, (layers, features, features), float64; None if not asked for.
    """

    def __init__(self, layers: int, features: int, *, scatter: bool = False):
        self.count = 0
        self.mean = torch.zeros(layers, features, dtype=torch.float64)
        self.scatter = torch.zeros(layers, features, features, dtype=torch.float64) if scatter else None

    def update(self, rows: torch.Tensor, *, minus: torch.Tensor | None = None) -> None:
        """Take in `rows` (layers, n, features), or their differences from `minus`, of any floating dtype."""
        if (count := rows.shape[1]) == 0:
            return
        mean = torch.empty_like(self.mean)
        scatter = None if self.scatter is None else torch.empty_like(self.scatter)
        for layer, states in enumerate(
            rows
        ):  # one at a time: float64 copies of all would be the largest thing in memory
            states = states.to("cpu", torch.float64)
            if minus is not None:
                states = states - minus[layer].to("cpu", torch.float64)
            mean[layer] = states.mean(dim=0)
            if scatter is not None:
                centred = states - mean[layer]
                torch.mm(centred.T, centred, out=scatter[layer])
        self._combine(count, mean, scatter)

    def merge(self, other: Moments) -> None:
        """Take in all that `other` has seen."""
        if other.count:
            self._combine(other.count, other.mean, other.scatter)

    def _combine(self, count: int, mean: torch.Tensor, scatter: torch.Tensor | None) -> None:
        total = self.count + count
        delta = mean - self.mean
        if self.scatter is not None:
            assert scatter is not None
            self.scatter += scatter
            self.scatter.baddbmm_(delta[:, :, None], delta[:, None, :], alpha=self.count * count / total)
        self.mean += delta * (count / total)
        self.count = total

    def merged(self, shards: Shards) -> Moments:
        """All processes' moments, the same in every process: merged in the order of the processes."""
        counts, means = shards.gathered(torch.tensor(self.count)), shards.gathered(self.mean)
        scatters = [None] * len(counts) if self.scatter is None else shards.gathered(self.scatter)
        total = Moments(*self.mean.shape, scatter=self.scatter is not None)
        for count, mean, scatter in zip(counts, means, scatters, strict=True):
            part = Moments(0, 0)
            part.count, part.mean, part.scatter = int(count), mean, scatter
            total.merge(part)
        return total

    def layer(self, index: int) -> Moments:
        """The moments of one layer, sharing memory; shapes keep a layer dimension of 1."""
        one = Moments(0, 0)
        one.count, one.mean = self.count, self.mean[index : index + 1]
        one.scatter = None if self.scatter is None else self.scatter[index : index + 1]
        return one

    def covariance(self) -> torch.Tensor:
        """Sample covariance (divisor count − 1), (layers, features, features)."""
        assert self.scatter is not None
        return self.scatter / max(self.count - 1, 1)

    def second_moment(self) -> torch.Tensor:
        """Mean of x xᵀ, not centred, (layers, features, features)."""
        assert self.scatter is not None
        return self.scatter / max(self.count, 1) + self.mean[:, :, None] * self.mean[:, None, :]

    def tensors(self, prefix: str) -> dict[str, torch.Tensor]:
        """What `restore` takes, named for a safetensors file."""
        named = {f"{prefix}.count": torch.tensor(self.count), f"{prefix}.mean": self.mean}
        return named if self.scatter is None else {**named, f"{prefix}.scatter": self.scatter}

    def restore(self, prefix: str, tensors: dict[str, torch.Tensor]) -> None:
        """Go on from what `tensors` gave."""
        self.count, self.mean = int(tensors[f"{prefix}.count"]), tensors[f"{prefix}.mean"]
        if self.scatter is not None:
            self.scatter = tensors[f"{prefix}.scatter"]
