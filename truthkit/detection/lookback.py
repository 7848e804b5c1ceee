"""Lookback ratio: how much an answer's tokens attend to the context, head by head, with a lens fitted to it or not."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from truthkit.detection.asked import Asked
from truthkit.detection.detector import Detector, Found
from truthkit.errors import ArgumentError

if TYPE_CHECKING:
    from truthkit.detection.reading import Reader
    from truthkit.statistics.intervals import FloatArray


class Lookback(Detector):
    """The share of attention that goes to the answer itself instead of the context, or what a fitted lens makes of it.

        ratio(head) = A(context) / (A(context) + A(new)),   A the mean attention weight on the tokens of each

    for the query of each of the answer's tokens; the token itself is among the new ones, so that nothing is divided by
    zero. Without a lens a token's score is 1 − the mean ratio over layers and heads; with one, `fit_lens`, it is the
    log-odds of a false answer by a logistic regression on all ratios. An answer's score is that of its mean ratios.
    Source: Y.-S. Chuang et al., *Lookback Lens* (arXiv 2407.07071), whose lens reads eight tokens at a time.

    Args:
        lens: the file of a lens.

    Raises:
        NotAvailableError, ArgumentError: there is no such file, or it is of something else.
    """

    name: ClassVar[str] = "lookback"

    def __init__(self, *, lens: Path | None = None):
        self.lens = None if lens is None else Lens.load(lens)
        self.unit = "(share of attention)" if lens is None else "(log-odds)"

    def found(self, reader: Reader, asked: Sequence[Asked]) -> list[Found]:
        """Scores from 0 to 1, or log-odds with a lens."""
        scores = []
        for ratios, read in zip(*_ratios(reader, asked), strict=True):
            if self.lens is None:
                tokens = 1.0 - ratios.mean(axis=(1, 2))
                scores.append(Found(float(tokens.mean()), tokens, read.spans))
            else:
                tokens, whole = self.lens.log_odds(ratios), self.lens.log_odds(ratios.mean(axis=0, keepdims=True))
                scores.append(Found(float(whole[0]), tokens, read.spans))
        return scores


class Lens:
    """A logistic regression on lookback ratios.

    Args:
        weights: of each head's ratio, (layers, heads).
        intercept: of the log-odds.
        provenance: what it was fitted on, JSON values.
    """

    def __init__(self, weights: FloatArray, intercept: float, provenance: dict[str, Any]):
        self.weights, self.intercept, self.provenance = weights, intercept, provenance

    def log_odds(self, ratios: FloatArray) -> FloatArray:
        """Of ratios (tokens, layers, heads), (tokens,).

        Raises:
            ArgumentError: the model has other layers or heads than that of the lens.
        """
        if ratios.shape[1:] != self.weights.shape:
            here, there = (" layers of ".join(map(str, shape)) for shape in (ratios.shape[1:], self.weights.shape))
            raise ArgumentError(f"the lens was fitted on {there} heads, and this model has {here}; fit one on it.")
        return (ratios * self.weights).sum(axis=(1, 2)) + self.intercept

    def save(self, path: Path) -> None:
        """Write it as a safetensors file with its provenance in the header."""
        import torch

        from truthkit.steering import vector_file

        tensors = {"weights": torch.tensor(self.weights), "intercept": torch.tensor([self.intercept])}
        vector_file.write(path, tensors, {"kind": "lookback lens", "provenance": self.provenance})

    @classmethod
    def load(cls, path: Path) -> Lens:
        """Read what `save` wrote.

        Raises:
            NotAvailableError, ArgumentError: there is no such file, or it is of something else.
        """
        from truthkit.steering import vector_file

        tensors, header = vector_file.read(path)
        if header.get("kind") != "lookback lens" or {*tensors} != {"weights", "intercept"}:
            raise ArgumentError(
                f"{str(path)!r} is no lookback lens; make one with truthkit.detection.lookback.fit_lens."
            )
        return cls(tensors["weights"].numpy(), float(tensors["intercept"][0]), header.get("provenance", {}))


def fit_lens(
    reader: Reader,
    asked: Sequence[Asked],
    false: Sequence[bool],
    groups: Sequence[Hashable],
    *,
    l2: float = 1.0,
    held_out: float = 0.2,
    seed: int = 0,
) -> Lens:
    """A lens from answers of which it is known whether they are false.

    Args:
        reader: of the model.
        asked: the answers.
        false: which of them are.
        groups: what each is about, a question or an image: a group is never on both sides of the held-out split.
        l2: penalty of the standardised weights.
        held_out: share of the groups whose AUROC is noted in the provenance; the lens is then fitted on all.
        seed: of the split.

    Raises:
        ArgumentError: lists of other lengths, or answers of one kind only.
    """
    import numpy as np

    from truthkit.statistics.ranking import area_under_roc
    from truthkit.steering.extraction.held_out import split_groups

    if not len(asked) == len(false) == len(groups):
        raise ArgumentError(f"asked, false and groups have {len(asked)}, {len(false)} and {len(groups)} entries.")
    ratios = np.stack([one.mean(axis=0) for one in _ratios(reader, asked)[0]])
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    fit_on, held = split_groups([numbers[group] for group in groups], held_out, seed=seed)
    labels = np.asarray(false, bool)
    found: dict[str, Any] = {"answers": len(asked), "false": int(labels.sum()), "groups": len(numbers), "seed": seed}
    if held:
        weights, intercept = _logistic(ratios[fit_on], labels[fit_on], l2)
        scores = (ratios[held] * weights).sum(axis=(1, 2)) + intercept
        found |= {"held_out": len(held), "held_out_auroc": area_under_roc(scores, labels[held])}
    return Lens(*_logistic(ratios, labels, l2), found)


def _ratios(reader: Reader, asked: Sequence[Asked]) -> tuple[list[FloatArray], list[Any]]:
    """Of every answer the ratios of its tokens, (tokens, layers, heads), and what was read."""
    read = reader.read(asked, lookback=True)
    ratios = []
    for one in read:
        assert one.lookback is not None
        ratios.append(one.lookback)
    return ratios, read


def _logistic(ratios: FloatArray, false: Any, l2: float) -> tuple[FloatArray, float]:
    """Weights (layers, heads) and intercept of the log-odds of a false answer."""
    import numpy as np
    import torch

    from truthkit.steering.extraction.methods import logistic_weights

    if false.all() or not false.any():
        raise ArgumentError("all answers to fit on are false, or none is; a lens needs some of both.")
    flat = ratios.reshape(len(ratios), -1)
    mean, spread = flat.mean(axis=0), flat.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    sign = torch.tensor(np.where(false, 1.0, -1.0))
    weights, intercept = logistic_weights(torch.tensor((flat - mean) / spread), sign, l2)
    own = weights.numpy() / spread
    return own.reshape(ratios.shape[1:]), float(intercept - own @ mean)
