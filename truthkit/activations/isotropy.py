"""How differently a model's token states point within a text, layer by layer.

Contrastive search needs it: where all states point the same way, its penalty says nothing.
Source: Y. Su and N. Collier, *Contrastive Search Is What You Need For Neural Text Generation*, arXiv 2210.14140.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch

from truthkit.activations.capture import visit_texts, wide
from truthkit.activations.passages import PASSAGES
from truthkit.errors import ArgumentError
from truthkit.figures import new_figure, save_figure
from truthkit.hf.room import context_length
from truthkit.hf.sites import decoder_blocks, resolve_layers
from truthkit.hf.wrapping import plain_model
from truthkit.progress import progress_bar
from truthkit.statistics.intervals import FloatArray
from truthkit.statistics.score import Score, mean_score
from truthkit.text.tokens import TokenLists, batches, begins_itself, text_tokenizer

FINAL = "final"
"""The metric of the states after the final norm, which contrastive search compares and the paper's figures are of."""


def isotropy(
    model: Any,
    processor: Any,
    texts: Iterable[str] | None = None,
    *,
    layers: Sequence[int] | None = None,
    max_tokens: int = 256,
    token_budget: int = 2048,
    progress: bool = False,
) -> Score:
    """Isotropy of the token states of texts: the mean over texts of 1 - mean_{i≠j} cos(h_i, h_j).

    Near 0 all tokens of a text point the same way; 1 means that they are as good as orthogonal. The authors' script
    pools the pairs of all texts instead, which is the same where texts have one length.

    One pass without the output head; of a text nothing is kept but its tokens and a number per layer.

    Args:
        model: any text or image-text model; PEFT wrappers are looked through.
        processor: its tokenizer or processor.
        texts: what is read, without a chat template; None is `PASSAGES`, a few short ones.
        layers: layer numbers, for the outputs of decoder blocks; None is all.
        max_tokens: of a text, and no more than the model's context; the rest is cut off.
        token_budget: tokens of a forward, padding included.
        progress: show how far it is.

    Returns:
        The metrics `layer_0`, `layer_1` ..., and `final`, after the final norm, where the last block is among the
        layers; intervals resample texts.

    Raises:
        ArgumentError: a layer that the model does not have; or no text has two tokens.
    """
    if max_tokens < 2:
        raise ArgumentError(f"max_tokens is {max_tokens}; expected at least 2, as isotropy compares tokens.")
    plain = plain_model(model)
    config = plain.config.get_text_config(decoder=True)
    max_tokens = min(max_tokens, context_length(plain) or max_tokens)
    if getattr(config, "use_bidirectional_attention", None):
        token_budget = 1  # a text each: others would see their padding
    count = len(decoder_blocks(plain))
    wanted = sorted(set(resolve_layers(range(count) if layers is None else layers, count)))
    names = [f"layer_{layer}" for layer in wanted] + ([FINAL] if count - 1 in wanted else [])
    encoded, skipped = _encoded(text_tokenizer(processor, "a text"), PASSAGES if texts is None else texts, max_tokens)
    values = np.empty((len(encoded), len(names)))
    with progress_bar(len(encoded), "isotropy", "texts", shown=progress) as bar:
        for batch in batches([encoded.length(text) for text in range(len(encoded))], token_budget):
            values[batch] = _isotropy(plain, [encoded[text] for text in batch], wanted, names)
            bar.update(len(batch))
    items = [
        {"text": text, "tokens": encoded.length(text), **dict(zip(names, row.tolist(), strict=True))}
        for text, row in enumerate(values)
    ]
    rows = np.column_stack([np.ones(len(values)), values])
    settings = {"task": "isotropy", "texts": len(encoded), "skipped": skipped, "max_tokens": max_tokens}
    settings |= {"tokens_sha256": encoded.digest(), "layers": wanted}
    return mean_score(rows, names, list(range(len(encoded))), items, settings, shares=False)


def plot_isotropy(scores: dict[str, Score], path: str | PathLike[str]) -> None:
    """Isotropy by layer of one or several models, with 95 % intervals over texts.

    Args:
        scores: from `isotropy`, by the name that the legend gives them.
        path: of a .png, .svg or .pdf file.

    Raises:
        ArgumentError: another ending.
        MissingExtraError: matplotlib is not installed.
    """
    figure = new_figure(7, 3.5)
    axes = figure.subplots()
    for number, (name, score) in enumerate(scores.items()):
        intervals, metrics, colour = score.intervals(), score.metrics, f"C{number}"
        blocks = [metric for metric in metrics if metric != FINAL]
        at = [int(metric.removeprefix("layer_")) for metric in blocks]
        low, high = zip(*(intervals[metric] for metric in blocks), strict=True)
        axes.plot(at, [metrics[metric] for metric in blocks], marker="o", markersize=3, color=colour, label=name)
        axes.fill_between(at, low, high, alpha=0.25, linewidth=0, color=colour)
        if FINAL in metrics:
            value, (low_end, high_end) = metrics[FINAL], intervals[FINAL]
            error = [[value - low_end], [high_end - value]]
            axes.errorbar([max(at) + 1], [value], yerr=error, fmt="D", markersize=5, color=colour)
            axes.annotate("final norm", (max(at) + 1, high_end), (4, 4), textcoords="offset points", ha="right", size=8)
    axes.set(xlabel="layer (decoder block)", ylabel="isotropy")
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    if len(scores) > 1:
        axes.legend(frameon=False)
    else:
        axes.set_title(next(iter(scores)), fontsize=10)
    save_figure(figure, path)


def _encoded(tokenizer: Any, texts: Iterable[str], max_tokens: int) -> tuple[TokenLists, int]:
    """The tokens of all texts that have two or more, and how many have not."""
    encoded, skipped = TokenLists(), 0
    for text in texts:
        special = not begins_itself(tokenizer, text)
        ids = tokenizer(text, truncation=True, max_length=max_tokens, add_special_tokens=special).input_ids
        if len(ids) > 1:
            encoded.append(ids)
        else:
            skipped += 1
    if not len(encoded):
        raise ArgumentError(f"none of the {skipped} texts has two tokens; isotropy compares the tokens of a text.")
    return encoded, skipped


def _isotropy(model: Any, texts: list[list[int]], layers: list[int], names: list[str]) -> FloatArray:
    """Of every text at every layer, and after the final norm if it is named; (texts, names)."""
    found = torch.empty(len(texts), len(names), dtype=torch.float64)

    def visit(layer: int, states: torch.Tensor, real: torch.Tensor) -> None:
        found[:, layers.index(layer)] = text_isotropy(states, real)

    def last(states: torch.Tensor, real: torch.Tensor) -> None:
        found[:, -1] = text_isotropy(states, real)

    visit_texts(model, texts, layers, visit, last=last if names[-1] == FINAL else None)
    return found.numpy()


def text_isotropy(states: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """1 - the mean cosine of different positions of a text, (texts,), float64, on the CPU.

    The sum of all pairs' cosines is the squared length of the sum of unit vectors, so no matrix of pairs is made.

    Args:
        states: (texts, width, features).
        real: which positions count, (texts, width), at least two of each text.
    """
    unit = torch.nn.functional.normalize(wide(states), dim=-1) * real[..., None]
    total = unit.sum(dim=1).cpu().double()
    own = unit.square().sum(dim=(1, 2)).cpu().double()
    count = real.sum(dim=1).cpu()
    return 1 - (total.square().sum(dim=-1) - own) / (count * (count - 1))
