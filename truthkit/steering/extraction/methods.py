"""How a direction is found from the activations of positive and negative texts.

Every method returns a vector with a natural scale: it points from negative to positive, and adding it once moves a
state as far along its direction as the means of the two classes are apart [our choice, for the methods that only give a
direction].
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from truthkit.errors import ArgumentError, did_you_mean

if TYPE_CHECKING:
    import torch

    from truthkit.activations.moments import Moments


@dataclass
class LayerData:
    """What is known of one layer; parts that a method does not ask for are None. All float64.

    Attributes:
        positive, negative: moments of the two classes, of one layer.
        difference: moments of positive minus negative, pair by pair.
        rows: the activations themselves, (texts, features), positives and negatives in turn.
    """

    positive: Moments
    negative: Moments
    difference: Moments | None = None
    rows: torch.Tensor | None = None

    @property
    def mean_difference(self) -> torch.Tensor:
        return self.positive.mean[0] - self.negative.mean[0]


@dataclass(frozen=True)
class Method:
    """A way to find a direction, and what it needs.

    Attributes:
        fit: maps `LayerData` and options to a vector (features,), float64.
        covariance: whether the classes' scatter is needed.
        differences: whether moments of the pairs' differences are needed.
        rows: whether all activations are needed.
    """

    fit: Callable[..., torch.Tensor]
    covariance: bool = False
    differences: bool = False
    rows: bool = False


def mean_difference(data: LayerData) -> torch.Tensor:
    """Difference of the class means (Rimsky et al., *Steering Llama 2 via Contrastive Activation Addition*,
    2312.06681).
    """
    return data.mean_difference


def principal_component(data: LayerData, *, centred: bool = False) -> torch.Tensor:
    """First principal component of the pairs' differences (Zou et al., *Representation Engineering*, 2310.01405).

    Args:
        data: the layer.
        centred: subtract the mean difference first. False looks at differences in both directions, which is what
            random signs do in the paper; True is what repeng's "pca_diff" does.
    """
    assert data.difference is not None
    moment = data.difference.covariance() if centred else data.difference.second_moment()
    return _scaled(_top_eigenvector(moment[0]), data.mean_difference)


def mean_and_component(data: LayerData) -> torch.Tensor:
    """Mean of the pairs' differences plus their first principal component about it, at length 1 (VTI, Liu et al.,
    *Reducing Hallucinations in Vision-Language Models via Latent Space Steering*, 2410.15778, released code).

    Each layer has a component of its own, turned towards the mean: our reading. The code takes one over all layers'
    states side by side, with the sign that comes out.
    """
    assert data.difference is not None
    covariance = data.difference.covariance()[0]
    if not float(covariance.trace()) > 0:  # one pair has no component
        return data.mean_difference
    component = _top_eigenvector(covariance)
    towards = -1.0 if float(component @ data.mean_difference) < 0 else 1.0
    return _scaled(data.mean_difference + towards * component, data.mean_difference)


def logistic_probe(data: LayerData, *, l2: float = 1.0) -> torch.Tensor:
    """Normal of a logistic probe on standardised features, in the activations' own space.

    Minimises Σ log-loss + l2/2 · |w|², as scikit-learn's LogisticRegression does with C = 1/l2.
    """
    import torch

    assert data.rows is not None
    if not l2 > 0:
        raise ArgumentError(f"l2 is {l2!r}; expected a positive number.")
    mean, std = data.rows.mean(dim=0), data.rows.std(dim=0, correction=0)
    std = torch.where(std > 0, std, 1.0)
    x = (data.rows - mean) / std
    sign = torch.ones(len(x), dtype=x.dtype)
    sign[1::2] = -1.0
    return _scaled(logistic_weights(x, sign, l2)[0] / std, data.mean_difference)


def logistic_weights(x: torch.Tensor, sign: torch.Tensor, l2: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (features,) and intercept () that minimise Σ log-loss + l2/2 · |w|², by Newton's method.

    Rows of `x` are the texts, `sign` is 1 or -1 for each; the intercept is not penalised. With more features than texts
    the weights lie in the span of the rows, so the problem is solved there.
    """
    import torch

    basis = None
    if x.shape[1] > x.shape[0]:
        basis, upper = torch.linalg.qr(x.T)
        x = upper.T
    x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    penalty = torch.full((x.shape[1],), l2, dtype=x.dtype)
    penalty[-1] = 0.0

    def loss(w: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.softplus(-sign * (x @ w)).sum() + 0.5 * (penalty * w * w).sum()

    w = torch.zeros(x.shape[1], dtype=x.dtype)
    value = loss(w)
    for _ in range(100):
        p = torch.sigmoid(sign * (x @ w))
        gradient = penalty * w - x.T @ (sign * (1 - p))
        curvature = (x * (p * (1 - p))[:, None]).T @ x + torch.diag(penalty + 1e-12)
        step = torch.linalg.solve(curvature, gradient)
        size = 1.0
        while (new := loss(w - size * step)) > value and size > 1e-8:
            size /= 2
        w, before, value = w - size * step, value, new
        if before - value < 1e-12 * max(1.0, float(before)):
            break
    return (w[:-1] if basis is None else basis @ w[:-1]), w[-1]


def shrinkage_lda(data: LayerData, *, shrinkage: float | None = None) -> torch.Tensor:
    """Fisher's linear discriminant with a shrunk within-class covariance.

    Args:
        data: the layer.
        shrinkage: in [0, 1], towards a multiple of the identity. None is the oracle approximating shrinkage of Chen et
            al. (*Shrinkage Algorithms for MMSE Covariance Estimation*, 0907.4698), which needs only the covariance.
    """
    import torch

    assert data.positive.scatter is not None
    assert data.negative.scatter is not None
    freedom = max(data.positive.count + data.negative.count - 2, 1)
    covariance = (data.positive.scatter[0] + data.negative.scatter[0]) / freedom
    features = len(covariance)
    level = covariance.trace() / features
    if shrinkage is None:
        squares = covariance.square().mean()
        numerator, denominator = squares + level**2, (freedom + 1) * (squares - level**2 / features)
        shrinkage = 1.0 if denominator <= numerator else float(numerator / denominator)
    elif not 0 <= shrinkage <= 1:
        raise ArgumentError(f"shrinkage is {shrinkage!r}; expected a number in [0, 1], or None to estimate it.")
    if level == 0:  # one pair has no spread to account for
        return data.mean_difference
    shrunk = (1 - shrinkage) * covariance + (shrinkage + 1e-12) * level * torch.eye(features, dtype=torch.float64)
    return _scaled(torch.linalg.solve(shrunk, data.mean_difference), data.mean_difference)


def contrastive_component(data: LayerData, *, alpha: float = 1.0) -> torch.Tensor:
    """Contrastive PCA: what varies between the sides of a pair, but not from text to text.

    The top eigenvector of E[d dᵀ] − alpha · Cov(negatives), where d are the pairs' differences (Abid et al.,
    1709.06716). Target and background are our choice.
    """
    assert data.difference is not None
    moment = data.difference.second_moment()[0] - alpha * data.negative.covariance()[0]
    return _scaled(_top_eigenvector(moment), data.mean_difference)


METHODS: dict[str, Method] = {
    "mean": Method(mean_difference),
    "pca": Method(principal_component, differences=True),
    "mean_pca": Method(mean_and_component, differences=True),
    "logistic": Method(logistic_probe, rows=True),
    "lda": Method(shrinkage_lda, covariance=True),
    "contrastive_pca": Method(contrastive_component, covariance=True, differences=True),
}


def find_method(name: str, options: dict[str, Any]) -> Method:
    """The method `name`, with `options` checked against what it takes.

    Raises:
        ArgumentError: there is no such method, or it takes no such option.
    """
    if name not in METHODS:
        close = did_you_mean(name, METHODS)
        raise ArgumentError(f"method is {name!r}{close}; expected one of {', '.join(map(repr, METHODS))}.")
    accepted = list(inspect.signature(METHODS[name].fit).parameters)[1:]
    if unknown := [option for option in options if option not in accepted]:
        close = did_you_mean(unknown[0], accepted)
        raise ArgumentError(
            f"method {name!r} takes no {unknown[0]!r}{close}; it takes {', '.join(accepted) or 'no options'}."
        )
    return METHODS[name]


def _top_eigenvector(matrix: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.linalg.eigh(matrix).eigenvectors[:, -1]


def _scaled(direction: torch.Tensor, difference: torch.Tensor) -> torch.Tensor:
    """`direction` turned towards `difference` and as long as `difference` is along it."""
    import torch

    unit = direction / direction.norm().clamp_min(torch.finfo(direction.dtype).tiny)
    along = unit @ difference
    return unit * along if along != 0 else unit
