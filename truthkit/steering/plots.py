"""Pictures of a vector: held-out AUC by layer, strength against effect and fluency, the tokens of a text along it."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from truthkit.errors import ArgumentError
from truthkit.figures import new_figure, save_figure
from truthkit.files.writing import replacing, writing
from truthkit.markup import Markup, element
from truthkit.steering.projections import projections
from truthkit.steering.vector import SteeringVector
from truthkit.text.tokens import text_ids, text_tokenizer

_STYLE = (
    "body { font: 16px/1.8 system-ui, sans-serif; margin: 2em; max-width: 60em; white-space: pre-wrap } "
    "span { border-radius: 3px; color: #111 }"
)


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


def plot_tokens(tokens: Sequence[str], values: Sequence[float], path: str | PathLike[str], *, title: str = "") -> None:
    """A heat map of a text's tokens, as a picture, or as a self-contained page if `path` ends in `.html`.

    The colours are centred on the text's median, so that the first token, whose states are often huge, does not drown
    the rest.
    """
    shades = _shades(values)
    if Path(path).suffix == ".html":
        page = _page(tokens, values, shades, title)
        with writing(Path(path)), replacing(Path(path)) as part:
            part.write_text(page, encoding="utf-8")
        return
    columns = 12
    rows = -(-len(tokens) // columns)
    figure = new_figure(columns * 0.9, 0.6 + 0.5 * rows)
    axes = figure.subplots()
    for i, (token, shade) in enumerate(zip(tokens, shades, strict=True)):
        x, y = i % columns, rows - 1 - i // columns
        axes.add_patch(_rectangle(x, y, shade))
        axes.text(x + 0.5, y + 0.5, _printable(token), ha="center", va="center", fontsize=8, parse_math=False)
    axes.set(xlim=(0, columns), ylim=(0, rows), title=title)
    axes.set_axis_off()
    save_figure(figure, path)


def _shades(values: Sequence[float]) -> list[float]:
    """Values as colours in [-1, 1]: 0 at the median, ±1 at the largest deviation but one."""
    centred = torch.tensor(values, dtype=torch.float64)
    centred = centred - centred.median()
    largest = centred.abs().sort().values
    scale = float(largest[-2] if len(largest) > 1 else largest[-1]) or 1.0
    return (centred / scale).clamp(-1, 1).tolist()


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


def _page(tokens: Sequence[str], values: Sequence[float], shades: Sequence[float], title: str) -> str:
    spans = []
    for token, value, shade in zip(tokens, values, shades, strict=True):
        red, green, blue = _colour(shade)
        first, *lines = token.split("\n")
        text = [first, *(part for line in lines for part in ("⏎", element("br"), line))]
        spans.append(element("span", *text, title=f"{value:.4g}", style=f"background: rgb({red}, {green}, {blue})"))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("title", title or "tokens along a vector"),
        element("style", Markup(_STYLE)),
    )
    body = element("body", element("h1", title), *spans)
    return f'<!doctype html>\n<html lang="en">{head}\n{body}</html>\n'
