"""How much a response trusts single tokens of its own: products down the columns of its attention map.

Products are kept as their logarithms, for 50 to the power of a paragraph's length is no number any more.
"""

from __future__ import annotations

import torch
from torch.nn.functional import one_hot

_UNIT = 1e-7
"""What the released code multiplies the products by; the paper has no such factor."""
_HIGHEST = 600.0
"""The largest logarithm that counts, for the penalty to stay a number; e^600 is beyond any use."""


def column_products(before: torch.Tensor, row: torch.Tensor, own: torch.Tensor, scale: float) -> torch.Tensor:
    """The columns' products with a further row of the map.

        P_j(t) = Π over i from j to t of  scale · a_ij

    Args:
        before: logarithms of the products so far, shape (count, t).
        row: attention of a further token at those before it, shape (count, t).
        own: at itself, shape (count,).
        scale: σ.

    Returns:
        Logarithms, shape (count, t + 1).
    """
    added = (scale * torch.cat([row, own[:, None]], dim=1)).log()
    return torch.cat([before, torch.zeros_like(own)[:, None]], dim=1) + added


def over_trust(columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The penalty, 1e-7 times the largest column product, shape (count,), and which column it is; the first of equals.

    Args:
        columns: logarithms, shape (count, t).
    """
    highest, place = columns.max(dim=-1)
    return _UNIT * highest.clamp(max=_HIGHEST).exp(), place


def most_frequent(places: torch.Tensor) -> torch.Tensor:
    """The number, 0 or larger, that is there most often in the last dimension; the smallest of equals."""
    return one_hot(places, int(places.max()) + 1).sum(dim=-2).argmax(dim=-1)
