"""Pictures of a vector: held-out AUC by layer, strength against effect and fluency, the tokens of a text along it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from truthkit import token_page
from truthkit.errors import ArgumentError
from truthkit.figures import new_figure, save_figure
from truthkit.files.writing import replacing, writing
from truthkit.markup import element
from truthkit.steering.projections import projections
from truthkit.steering.vector import SteeringVector
from truthkit.text.tokens import text_ids, text_tokenizer
from truthkit.token_page import Legend


def plot_scores(vector: SteeringVector, path: str | PathLike[str]) -> None:
    """Held-out AUC by layer with its 95 % interval, and chance.

    Raises:
        ArgumentError: the vector has no held-out scores, or the ending is not that of a picture.
        MissingExtraError: matplotlib is not installed.
    """
    if not vector.scores:
        raise ArgumentError("this vector has no held-out scores to plot; extract it with held_out > 0.")
    layers = sorted(vector.scores)
    values = {key: [vector.scores[layer][key] for layer in layers] for key in ("auc", "low", "high")}
    figure = new_figure(7, 3.5)
    axes = figure.subplots()
    axes.fill_between(layers, values["low"], values["high"], alpha=0.25, linewidth=0, label="95 % interval")
    axes.plot(layers, values["auc"], marker="o", markersize=3, label="held-out AUC")
    axes.axhline(0.5, color="grey", linestyle=":", linewidth=1)
    axes.set(xlabel="layer (decoder block)", ylabel="AUC", ylim=(min(0.45, *values["low"]) - 0.02, 1.02))
    axes.legend(loc="lower right", frameon=False)
    save_figure(figure, path)


def plot_trials(vector: SteeringVector, path: str | PathLike[str]) -> None:
    """Strength against effect and against divergence from the unsteered model, as `truthkit extract --select` tried
    them.

    Raises:
        ArgumentError: the vector was not made with --select, or the ending is not that of a picture.
        MissingExtraError: matplotlib is not installed.
    """
    selection = vector.provenance.get("selection")
    if not selection:
        raise ArgumentError("this vector holds no trials; they are made by `truthkit extract --select`.")
    figure = new_figure(8, 3.5)
    effect, fluency = figure.subplots(1, 2)
    for layer in sorted({trial["layer"] for trial in selection["trials"]}):
        trials = sorted((t for t in selection["trials"] if t["layer"] == layer), key=lambda trial: trial["strength"])
        measured = [trial for trial in trials if trial["effect"] is not None]
        strengths = [trial["strength"] for trial in measured]
        effect.plot(strengths, [trial["effect"] for trial in measured], marker="o", label=f"layer {layer}")
        fluency.plot([t["strength"] for t in trials], [t["divergence"] for t in trials], marker="o")
    effect.axhline(selection["unsteered"], color="grey", linestyle=":", linewidth=1)
    effect.set(xlabel="strength", ylabel="effect")
    fluency.set(xlabel="strength", ylabel="KL from unsteered (nats per token)")
    effect.legend(frameon=False)
    save_figure(figure, path)


def token_projections(
    model: Any, processor: Any, vector: SteeringVector, text: str, *, layer: int
) -> tuple[list[str], list[float]]:
    """Each token of `text`, and how far its state lies along the layer's unit direction."""
    tokenizer = text_tokenizer(processor, "a text")
    ids = text_ids(tokenizer, text)
    if not ids:
        raise ArgumentError("the text is empty; there are no tokens to project.")
    (values,) = projections(model, vector, {"input_ids": torch.tensor([ids])}, [layer]).values()
    return [tokenizer.decode([token]) for token in ids], values


def plot_tokens(
    tokens: Sequence[str],
    values: Sequence[float],
    path: str | PathLike[str],
    *,
    title: str = "",
    facts: Mapping[str, str] | None = None,
) -> None:
    """A heat map of a text's tokens, as a picture, or as a self-contained page if `path` ends in `.html`.

    The colours are centred on the text's median, so that the first token, whose states are often huge, does not drown
    the rest.

    Args:
        tokens: the text in pieces.
        values: a number for each, such as its projection.
        path: what to write.
        title: above it.
        facts: what the page says beside it, by name: model, vector, layer.
    """
    middle, scale = _scale(values)
    shades = [min(max((value - middle) / scale, -1.0), 1.0) for value in values]
    if Path(path).suffix == ".html":
        page = _page(tokens, values, shades, title, facts or {})
        with writing(Path(path)), replacing(Path(path)) as part:
            part.write_text(page, encoding="utf-8")
        return
    columns = 12
    rows = -(-len(tokens) // columns)
    figure = new_figure(columns * 0.9, 0.9 + 0.5 * rows)
    axes = figure.subplots()
    for i, (token, shade) in enumerate(zip(tokens, shades, strict=True)):
        x, y = i % columns, rows - 1 - i // columns
        axes.add_patch(_rectangle(x, y, shade))
        axes.text(x + 0.5, y + 0.5, _printable(token), ha="center", va="center", fontsize=8, parse_math=False)
    axes.set(xlim=(0, columns), ylim=(0, rows), title=title)
    ends = f"orange: {middle - scale:.3g} or less, blue: {middle + scale:.3g} or more"
    figure.supxlabel(f"projection on the unit direction; white: the median, {middle:.3g}, {ends}", fontsize=8)
    axes.set_axis_off()
    save_figure(figure, path)


def _scale(values: Sequence[float]) -> tuple[float, float]:
    """The median, which has no colour, and the deviation from it that has the full one: the largest but one."""
    numbers = torch.tensor(values, dtype=torch.float64)
    middle = float(numbers.median())
    largest = (numbers - middle).abs().sort().values
    return middle, float(largest[-2] if len(largest) > 1 else largest[-1]) or 1.0


def _colour(shade: float) -> tuple[int, int, int]:
    """White at 0, blue at 1, orange at -1."""
    end = (31, 119, 180) if shade >= 0 else (255, 127, 14)
    red, green, blue = (round(255 + abs(shade) * (channel - 255)) for channel in end)
    return red, green, blue


def _rectangle(x: float, y: float, shade: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), 1, 1, facecolor=[channel / 255 for channel in _colour(shade)], edgecolor="white")


def _printable(token: str) -> str:
    return token.replace("\n", "⏎").replace("\t", "⇥").strip(" ") or "␣"


def _page(
    tokens: Sequence[str], values: Sequence[float], shades: Sequence[float], title: str, facts: Mapping[str, str]
) -> str:
    spans = []
    for token, value, shade in zip(tokens, values, shades, strict=True):
        first, *lines = token.split("\n")
        text = [first, *(part for line in lines for part in ("⏎", element("br"), line))]
        spans.append(token_page.token(text, shade, f"{value:.4g}"))
    middle, scale = _scale(values)
    ticks = [f"{number:.3g}" for number in (middle - scale, middle, middle + scale)]
    legend = Legend(
        (f"≤ {ticks[0]}", f"{ticks[1]}, the median", f"≥ {ticks[2]}"),
        (-1.0, 1.0),
        "How far the state at a token lies along the vector's unit direction, in the units of the model's states: blue "
        "towards its positive side, orange away from it. A token's own number shows when one points at it.",
    )
    return token_page.page(
        title or "Tokens along a vector", facts, legend, [element("p", *spans, class_="text", dir="auto")]
    )
