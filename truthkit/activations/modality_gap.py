"""How far apart an image-text model holds images and their captions, layer by layer.

Sources: W. Liang and others, *Mind the Gap*, arXiv 2203.02053 (the gap); T. Wang and P. Isola, *Understanding
Contrastive Representation Learning through Alignment and Uniformity on the Hypersphere*, arXiv 2005.10242.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import torch

from truthkit.activations.capture import read_texts
from truthkit.errors import ArgumentError
from truthkit.figures import new_figure, save_figure
from truthkit.hf.room import context_length
from truthkit.hf.sites import decoder_blocks, image_token, input_device, resolve_layers
from truthkit.hf.wrapping import plain_model
from truthkit.images.reading import ImageSource, read_image
from truthkit.progress import Progress, progress_bar
from truthkit.statistics.intervals import FloatArray, Interval
from truthkit.text.encode import encode_prompt
from truthkit.text.tokens import batches, text_ids, text_tokenizer

RESAMPLES = 1000
_PROMPT = "Describe the image."
_HEAT = 2.0
"""Wang and Isola's t; their alpha is 2 as well."""


@dataclass(frozen=True)
class ModalityGap:
    """What was found at every layer.

    Attributes:
        metrics: by layer, then by measure: `gap`, and `gap_random`, what it is where a coin says which of a pair is the
            image; `alignment`, and `alignment_others`, of images with the captions of others; `uniformity_images` and
            `uniformity_texts`.
        intervals: 95 % intervals of the measures, pairs resampled; `gap_random` has that of its draws.
        p: by layer, the share of coin draws with as wide a gap.
        config: what the figures depend on.
    """

    metrics: dict[int, dict[str, float]]
    intervals: dict[int, dict[str, Interval]]
    p: dict[int, float]
    config: dict[str, Any]


def modality_gap(
    model: Any,
    processor: Any,
    pairs: Sequence[tuple[ImageSource, str]],
    *,
    layers: Sequence[int] | None = None,
    max_tokens: int = 256,
    token_budget: int = 2048,
    seed: int = 0,
    progress: bool = False,
) -> ModalityGap:
    """The gap between the states of images and of their captions, their alignment and uniformity.

    An image's state is the mean over its image tokens, read in front of a short prompt; a caption's is the mean over
    its tokens, read alone, without the special token in front. With both of length 1, x for images and y for captions:

        gap         │mean x − mean y│                          0 where both lie around one point, 2 at the most
        alignment   mean over pairs of │x − y│²                0 where an image and its caption are one point
        uniformity  log mean over i ≠ j of exp(−2 │x_i − x_j│²)     the lower, the more evenly spread; y likewise

    Args:
        model: an image-text model; PEFT wrappers are looked through.
        processor: its processor.
        pairs: images and their captions, three or more.
        layers: layer numbers, for the outputs of decoder blocks; None is all.
        max_tokens: of a caption, and no more than the model's context; the rest is cut off.
        token_budget: tokens of a forward over captions, padding included. Images are read one by one.
        seed: of the resampled pairs and of the coins.
        progress: show how far it is.

    Raises:
        ArgumentError: the model takes no images, there are fewer than three pairs, a caption has no tokens, or a layer
            does not exist.
    """
    plain = plain_model(model)
    if image_token(plain) is None or not hasattr(processor, "image_processor"):
        raise ArgumentError(f"{type(plain).__name__} takes no images; the gap is between images and texts.")
    if len(pairs) < 3:
        raise ArgumentError(f"there are {len(pairs)} pairs of image and text; expected three or more.")
    count = len(decoder_blocks(plain))
    wanted = sorted(set(resolve_layers(range(count) if layers is None else layers, count)))
    max_tokens = min(max_tokens, context_length(plain) or max_tokens)
    texts = [_caption(processor, text, max_tokens) for _, text in pairs]
    with progress_bar(2 * len(pairs), "gap", "states", shown=progress) as bar:
        x = _images(plain, processor, [image for image, _ in pairs], wanted, bar)
        y = _texts(plain, texts, wanted, token_budget, bar)
    found = [_measured(*states, seed) for states in zip(x, y, strict=True)]
    digest = hashlib.sha256("\n".join(text for _, text in pairs).encode()).hexdigest()
    return ModalityGap(
        {layer: one[0] for layer, one in zip(wanted, found, strict=True)},
        {layer: one[1] for layer, one in zip(wanted, found, strict=True)},
        {layer: one[2] for layer, one in zip(wanted, found, strict=True)},
        {"pairs": len(pairs), "max_tokens": max_tokens, "layers": wanted, "seed": seed, "texts_sha256": digest},
    )


def gap(images: torch.Tensor, texts: torch.Tensor) -> float:
    """How far the means of two sets of states, each of length 1, are apart; (states, features) each, float64."""
    return float((_unit(images).mean(dim=0) - _unit(texts).mean(dim=0)).norm())


def alignment(images: torch.Tensor, texts: torch.Tensor) -> float:
    """The mean squared distance of the states of a pair, each of length 1; (pairs, features) each."""
    return float((_unit(images) - _unit(texts)).square().sum(dim=-1).mean())


def uniformity(states: torch.Tensor) -> float:
    """The log of the mean over different states, of length 1, of exp(-2 times their squared distance)."""
    return math.log(float(_kernel(_unit(states)).sum()) / (len(states) * (len(states) - 1)))


def plot_gap(found: ModalityGap, path: str | PathLike[str], *, title: str = "") -> None:
    """Gap, alignment and uniformity by layer, with 95 % intervals and their controls.

    Raises:
        ArgumentError: the ending is not that of a picture.
        MissingExtraError: matplotlib is not installed.
    """
    figure = new_figure(11, 3.5)
    labels = {
        "gap": "images and captions",
        "gap_random": "split by coins",
        "alignment": "own caption",
        "alignment_others": "captions of others",
        "uniformity_images": "images",
        "uniformity_texts": "captions",
    }
    at = list(found.metrics)
    for axes, about in zip(figure.subplots(1, 3), ("gap", "alignment", "uniformity"), strict=True):
        for name, label in labels.items():
            if name.startswith(about):
                low, high = zip(*(found.intervals[layer][name] for layer in at), strict=True)
                axes.plot(at, [found.metrics[layer][name] for layer in at], marker="o", markersize=3, label=label)
                axes.fill_between(at, low, high, alpha=0.25, linewidth=0)
        axes.set(xlabel="layer (decoder block)", ylabel=about)
        axes.locator_params(axis="x", integer=True)
        axes.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10)
    save_figure(figure, path)


def _caption(processor: Any, text: str, max_tokens: int) -> tuple[list[int], int]:
    """Its token ids, and how many special ones stand in front."""
    tokenizer = text_tokenizer(processor, "a caption")
    ids = text_ids(tokenizer, text)[:max_tokens]
    special = int(bool(ids) and ids[0] == getattr(tokenizer, "bos_token_id", None))
    if len(ids) <= special:
        raise ArgumentError(f"the caption {text[:60]!r} has no tokens; give every image a text.")
    return ids, special


def _images(
    model: Any, processor: Any, images: Sequence[ImageSource], layers: list[int], bar: Progress
) -> torch.Tensor:
    """The states of images, (layers, images, features), float64, on the CPU."""
    device, found = input_device(model), []
    for image in images:
        made = encode_prompt(processor, _PROMPT, images=[read_image(image)])
        inputs = {
            name: value.to(device, model.dtype if value.is_floating_point() else value.dtype)
            for name, value in made.items()
        }
        ids = inputs["input_ids"][0].tolist()
        found.append(read_texts(model, [ids], [len(ids)], layers, positions="image", inputs=inputs).cpu().double())
        bar.update()
    return torch.cat(found, dim=1)


def _texts(
    model: Any, texts: list[tuple[list[int], int]], layers: list[int], budget: int, bar: Progress
) -> torch.Tensor:
    """The states of captions, (layers, texts, features), float64, on the CPU."""
    config = model.config.get_text_config(decoder=True)
    if getattr(config, "use_bidirectional_attention", None):
        budget = 1  # a text each: others would see their padding
    found: dict[int, torch.Tensor] = {}
    for batch in batches([len(ids) for ids, _ in texts], budget):
        ids, special = zip(*(texts[at] for at in batch), strict=True)
        read = read_texts(model, ids, special, layers, positions="generated").cpu().double()
        found |= dict(zip(batch, read.unbind(dim=1), strict=True))
        bar.update(len(batch))
    return torch.stack([found[at] for at in range(len(texts))], dim=1)


def _unit(states: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(states.double(), dim=-1)


def _kernel(unit: torch.Tensor) -> torch.Tensor:
    """exp(-2 times the squared distance) of every two states of length 1, zero of one with itself."""
    found = (-2 * _HEAT * (1 - unit @ unit.T)).exp()
    return found.fill_diagonal_(0)


def _measured(
    images: torch.Tensor, texts: torch.Tensor, seed: int
) -> tuple[dict[str, float], dict[str, Interval], float]:
    """Of one layer: the measures, their intervals, and the share of coin draws with as wide a gap.

    A resample is a row of weights, so the products of every two states are all that is needed of them.
    """
    x, y, count = _unit(images), _unit(texts), len(images)
    difference = x - y
    products = (difference @ difference.T).numpy()
    apart = (2 - 2 * (x @ y.T)).numpy()
    kernels = {"uniformity_images": _kernel(x).numpy(), "uniformity_texts": _kernel(y).numpy()}
    pairs_apart, others_apart = apart.diagonal(), apart - np.diag(apart.diagonal())
    draw = np.random.default_rng(seed)
    weights = draw.multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(float)
    weights = weights[weights.max(axis=1) < count]  # one pair drawn every time has no two to compare
    coins = draw.choice([-1.0, 1.0], size=(RESAMPLES, count))
    every = np.vstack([np.ones(count), weights])
    different = every.sum(axis=1) ** 2 - (every**2).sum(axis=1)  # of a resample's pairs, those of two items
    random_gaps = _length(coins, products)
    found = {
        "gap": _length(every, products),
        "alignment": every @ pairs_apart / count,
        "alignment_others": _products(every, others_apart) / different,
        **{name: np.log(_products(every, kernel) / different) for name, kernel in kernels.items()},
    }
    metrics = {name: float(values[0]) for name, values in found.items()}
    intervals = {name: _percentiles(values[1:]) for name, values in found.items()}
    metrics["gap_random"], intervals["gap_random"] = float(random_gaps.mean()), _percentiles(random_gaps)
    p = float(1 + (random_gaps >= metrics["gap"] - 1e-12).sum()) / (1 + RESAMPLES)
    return metrics, intervals, p


def _products(weights: FloatArray, matrix: FloatArray) -> FloatArray:
    """W · matrix · w of each row of weights."""
    return np.einsum("ri,ri->r", weights @ matrix, weights)


def _length(weights: FloatArray, products: FloatArray) -> FloatArray:
    """Of the weighted means of differences, from the products of every two of them."""
    return np.sqrt(np.maximum(_products(weights, products), 0)) / weights.shape[1]


def _percentiles(values: FloatArray) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(float(low), float(high))
