r"""Contrastive PCA on hidden states: what varies where opinions differ, and not where they don't.

    python recipes/contrastive_pca.py --out runs/cpca            # SmolLM2; a minute on two cores
    python recipes/contrastive_pca.py --out runs/quick --quick   # a sketch of it in half of that

PCA of hidden states shows what varies most: topic, length, the last words. Contrastive PCA (Abid et al., arXiv
1709.06716) is given a *background* too, in which all of that varies and what one looks for does not, and takes the top
eigenvectors of Cov(target) - alpha · Cov(background). Here the target is reviews, good and bad, of many things; the
background is the same reviews with another word in the place of the one that judges. Which review is good is not said:
both covariances are of states alone.

At each layer and for each alpha the first direction is found on some things and words, and tried on others: its AUC, to
tell good from bad reviews it never saw, the sign taken from the training labels, with intervals that resample things.
Beside it stand plain PCA (alpha 0), the difference of the means, which is told the labels, `truthkit extract`'s
"contrastive_pca", which is told the pairs, the first component of the background, and a random direction. Alpha is
chosen once by the training labels, and once without any: the least at which the direction holds no larger a share of
the background's variance than a random direction does on average. The table is of the middle layer, or of --layer.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.table import Table
from rich.text import Text
from stages import write_json
from tqdm import tqdm

import truthkit as tk
from truthkit.activations.capture import read_texts
from truthkit.activations.moments import Moments
from truthkit.figures import new_figure, save_figure
from truthkit.hf.sites import decoder_blocks, resolve_layer
from truthkit.output import Output
from truthkit.steering.extraction.held_out import auc, held_out_scores
from truthkit.steering.extraction.methods import METHODS, LayerData
from truthkit.text.tokens import batches, text_ids

THINGS = (
    "film hotel meal phone book concert course coat museum cafe game bicycle haircut flat car garden show camera lamp "
    "sofa soup tent watch boat song talk tour map kettle bakery sauna novel radio jacket hostel market"
)
OPENINGS = ("The", "I think the", "My sister says the", "In the end the", "To be honest, the", "They told us the")
GOOD = "wonderful excellent superb lovely great brilliant perfect fantastic delightful impressive amazing splendid"
BAD = "awful terrible horrible dreadful poor useless disappointing miserable bad unpleasant pathetic shabby"
PLAIN = "local new large small second first usual Italian recent ordinary brown long"
ENDINGS = (
    "We were there in March, and my brother came along.",
    "That was two years ago.",
    "You will find it near the station, opposite the bank.",
    "A friend of mine knows somebody who had the same.",
    "It took us an hour to decide, as always.",
    "Today I am writing this from the train.",
    "There were four of us, and we shared the cost.",
    "Anna saw it on a Tuesday, and Paul on the Friday after.",
    "I paid by card.",
    "The receipt is still in my other jacket.",
)
ALPHAS = (0.0, *(float(alpha) for alpha in np.logspace(-1, 3, 17)))
TRAINED, TESTED = 20, 8
"""How many things, and how many words of a side, directions are found on; the others are to try them on."""


class Texts(NamedTuple):
    """Reviews of which every two are a pair, good then bad, that differ in one word; and the thing of each pair."""

    texts: list[str]
    things: list[int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    args = _parser().parse_args(argv)
    if args.quick:
        args.pairs = min(args.pairs, 24)
    torch.set_num_threads(args.threads)
    console = Output(width=None if sys.stdout.isatty() else 150)
    try:
        results = compare(args, console)
    except tk.TruthkitError as error:
        console.print(f"contrastive_pca: {error}", style="red", markup=False)
        return 2
    name = args.model or "SmolLM2-135M-Instruct"
    console.print(table(results, name))
    if find_spec("matplotlib") is None:
        console.print("no plots: they need matplotlib (pip install 'truthkit[plots]')", markup=False)
    else:
        plot_sweep(results, args.out / "sweep.png", name)
        plot_planes(results, args.out / "planes.png", name)
    console.print(f"{args.out}: summary.json, sweep.png, planes.png", markup=False)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for results and plots")
    add("--quick", action="store_true", help="24 pairs")
    add("--model", help="hub id or folder (default: the bundled model)")
    add("--dtype", default="float32")
    add(
        "--pairs",
        type=int,
        default=160,
        help="of reviews to find directions on; as many to try them on, and in the background",
    )
    add("--layer", type=int, help="of the table and the planes (default: the middle one)")
    add("--token-budget", type=int, default=1024, help="tokens of a forward")
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "2")))
    return parser


# -- texts and states --------------------------------------------------------------------------------------------------


def make_texts(part: str, pairs: int, seed: int) -> Texts:
    """Reviews of a part, "train", "test" or "background", in pairs.

    Things and words of "test" are in no other part. "background" is "train" with two words that judge nothing in the
    place of a pair's good and bad one.
    """
    rng, plain = random.Random(f"{part == 'test'} {seed}"), random.Random(f"background {seed}")
    every, good, bad = THINGS.split(), GOOD.split(), BAD.split()
    if part == "test":
        things, good, bad = every[TRAINED:], good[TESTED:], bad[TESTED:]
    else:
        things, good, bad = every[:TRAINED], good[:TESTED], bad[:TESTED]
    texts, numbers = [], []
    for _ in range(pairs):
        thing, opening, ending = rng.choice(things), rng.choice(OPENINGS), rng.choice(ENDINGS)
        two = [rng.choice(good), rng.choice(bad)]
        if part == "background":
            two = plain.sample(PLAIN.split(), 2)
        texts += [f"{opening} {thing} was {word}. {ending}" for word in two]
        numbers.append(every.index(thing))
    return Texts(texts, numbers)


def states_of(
    model: Any, tokenizer: Any, texts: Sequence[str], layers: Sequence[int], budget: int, title: str
) -> torch.Tensor:
    """The last token's states, (layers, texts, features), float64."""
    rows = [text_ids(tokenizer, text) for text in texts]
    lengths = [len(row) for row in rows]
    found: dict[int, torch.Tensor] = {}
    with tqdm(total=len(rows), desc=title, mininterval=5) as bar:
        for batch in batches(lengths, budget):
            some = [rows[at] for at in batch]
            read = read_texts(model, some, [len(row) for row in some], layers).cpu().double()
            found |= dict(zip(batch, read.unbind(1), strict=True))
            bar.update(len(batch))
    return torch.stack([found[at] for at in range(len(rows))], dim=1)


# -- directions --------------------------------------------------------------------------------------------------------


def moments(rows: torch.Tensor) -> Moments:
    """Of one layer's states, (texts, features)."""
    found = Moments(1, rows.shape[1], scatter=True)
    found.update(rows[None])
    return found


def components(target: torch.Tensor, background: torch.Tensor, alpha: float, count: int = 2) -> torch.Tensor:
    """The top eigenvectors of Cov(target) - alpha · Cov(background), (features, count), the top one first.

    Args:
        target: covariance.
        background: covariance.
        alpha: 0 is plain PCA of the target.
        count: how many.
    """
    return torch.linalg.eigh(target - alpha * background).eigenvectors[:, -count:].flip(1)


def turned(direction: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """The direction that points from the bad to the good of labelled states, pairs in turn."""
    apart = (states[0::2] - states[1::2]).mean(dim=0) @ direction
    return direction if apart >= 0 else -direction


def auc_along(direction: torch.Tensor, states: torch.Tensor) -> float:
    """How well states along a direction tell good from bad, pairs in turn."""
    return float(auc((states @ direction).view(-1, 2)))


def share(direction: torch.Tensor, covariance: torch.Tensor) -> float:
    """Of the variance, what lies along a unit direction."""
    return float(direction @ covariance @ direction / covariance.trace())


class Layer:
    """One layer's states of the three parts, and the directions found in them."""

    def __init__(self, train: torch.Tensor, test: torch.Tensor, background: torch.Tensor):
        self.train, self.test, self.background = train, test, background
        self.target_covariance = moments(train).covariance()[0]
        self.background_covariance = moments(background).covariance()[0]

    def at(self, alpha: float) -> torch.Tensor:
        """The first two contrastive components, the first turned from bad to good."""
        first, second = components(self.target_covariance, self.background_covariance, alpha).T
        return torch.stack([turned(first, self.train), second], dim=1)

    def trial(self, alpha: float) -> dict[str, float]:
        """What the first component at an alpha is worth."""
        direction = self.at(alpha)[:, 0]
        return {
            "alpha": alpha,
            "train": auc_along(direction, self.train),
            "test": auc_along(direction, self.test),
            "of target": share(direction, self.target_covariance),
            "of background": share(direction, self.background_covariance),
        }

    def others(self, seed: int) -> dict[str, torch.Tensor]:
        """What the contrastive component is held against."""
        good, bad = self.train[0::2], self.train[1::2]
        pairs = LayerData(moments(good), moments(bad), moments(good - bad))
        draw = torch.Generator().manual_seed(seed)
        return {
            "mean difference (labels)": METHODS["mean"].fit(pairs),
            "extract's contrastive_pca (pairs)": METHODS["contrastive_pca"].fit(pairs),
            "first component of the background": components(self.background_covariance, self.target_covariance, 0)[
                :, 0
            ],
            "random direction": torch.randn(good.shape[1], generator=draw, dtype=good.dtype),
        }


def without_labels(trials: Sequence[dict[str, float]], features: int) -> dict[str, float]:
    """The least alpha whose direction has no more of the background's variance than a random one; else the largest."""
    return next((trial for trial in trials if trial["of background"] <= 1 / features), trials[-1])


def with_labels(trials: Sequence[dict[str, float]]) -> dict[str, float]:
    """The alpha that tells the training texts apart best, the least of equal ones."""
    return max(trials, key=lambda trial: trial["train"])


def compare(args: argparse.Namespace, console: Output) -> dict[str, Any]:
    """Read the texts, find and try all directions; what goes to `summary.json`."""
    if args.pairs < 2:
        raise tk.ArgumentError(f"--pairs is {args.pairs}; expected 2 or more.")
    model, tokenizer = tk.load(args.model, dtype=args.dtype)
    count = len(decoder_blocks(model))
    middle = count // 2 if args.layer is None else resolve_layer(args.layer, count)
    layers = sorted({*range(0, count, max(1, count // 10)), middle, count - 1})
    args.out.mkdir(parents=True, exist_ok=True)
    texts = {part: make_texts(part, args.pairs, args.seed) for part in ("train", "test", "background")}
    states = {
        part: states_of(model, tokenizer, made.texts, layers, args.token_budget, f"reading: {part}")
        for part, made in texts.items()
    }
    found: dict[str, Any] = {}
    for at, number in enumerate(tqdm(layers, desc="layers", mininterval=5)):
        layer = Layer(*(states[part][at] for part in ("train", "test", "background")))
        trials = [layer.trial(alpha) for alpha in ALPHAS]
        features = layer.train.shape[1]
        chosen = {"no labels": without_labels(trials, features), "labels": with_labels(trials)}
        directions = {"PCA (alpha 0)": layer.at(0)[:, 0]}
        directions |= {
            f"contrastive PCA, alpha by {how if how == 'labels' else 'background'}": layer.at(trial["alpha"])[:, 0]
            for how, trial in chosen.items()
        }
        directions |= layer.others(args.seed)
        mean = layer.others(args.seed)["mean difference (labels)"]
        rows = {
            name: tried(direction, layer, texts["test"].things, mean, args.seed)
            for name, direction in directions.items()
        }
        found[str(number)] = {
            "trials": trials,
            "alpha": {how: trial["alpha"] for how, trial in chosen.items()},
            "directions": rows,
        }
        if number == middle:
            planes = {
                "common: the background's components": components(
                    layer.background_covariance, layer.target_covariance, 0
                ),
                "plain PCA of the target": layer.at(0),
                f"salient: alpha {chosen['no labels']['alpha']:.3g}": layer.at(chosen["no labels"]["alpha"]),
            }
            points = {name: ((layer.test - layer.train.mean(dim=0)) @ plane).tolist() for name, plane in planes.items()}
    results = {
        "config": {name: getattr(args, name) for name in ("model", "dtype", "pairs", "seed")} | {"layer": middle},
        "examples": {part: made.texts[:2] for part, made in texts.items()},
        "layers": found,
        "points": points,
    }
    write_json(args.out / "summary.json", results)
    console.print(f"read {3 * 2 * args.pairs} texts at {len(layers)} layers", markup=False)
    return results


def tried(direction: torch.Tensor, layer: Layer, things: list[int], mean: torch.Tensor, seed: int) -> dict[str, Any]:
    """What a direction is worth on the held-out texts."""
    unit = turned(direction / direction.norm(), layer.train)
    (score,) = held_out_scores((layer.test @ unit).view(1, -1, 2), things, seed=seed)
    return {
        "train": auc_along(unit, layer.train),
        **score.as_dict(),
        "of target": share(unit, layer.target_covariance),
        "of background": share(unit, layer.background_covariance),
        "cosine with the mean difference": float(unit @ mean / mean.norm()),
    }


# -- what is shown -----------------------------------------------------------------------------------------------------


def table(results: dict[str, Any], name: str) -> Table:
    """The directions of one layer."""
    config = results["config"]
    found = results["layers"][str(config["layer"])]
    title = f"{name}, layer {config['layer']}, {config['pairs']} pairs of reviews to find, as many to try"
    caption = (
        "AUC on things and words that were in no text before, 95 % interval over things. SHARES: of the variance of "
        "target and background along the direction, %. Alpha by the "
        f"background {found['alpha']['no labels']:.3g}, by the training labels {found['alpha']['labels']:.3g}."
    )
    shown = Table(title=Text(title), title_justify="left", caption=Text(caption), caption_justify="left")
    for column in ("direction", "held-out AUC", "on training", "of target", "of background", "cosine with mean"):
        shown.add_column(column, justify="left" if column == "direction" else "right")
    for label, row in found["directions"].items():
        shown.add_row(
            label,
            f"{row['auc']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
            f"{row['train']:.3f}",
            f"{100 * row['of target']:.2f}",
            f"{100 * row['of background']:.2f}",
            f"{row['cosine with the mean difference']:+.2f}",
        )
    return shown


def plot_sweep(results: dict[str, Any], path: Path, name: str) -> None:
    """Alpha against AUC and shares of variance at one layer; the directions' AUC by layer."""
    number = results["config"]["layer"]
    found = results["layers"][str(number)]
    figure = new_figure(13, 4)
    sweep, shares, layers = figure.subplots(1, 3)
    trials = found["trials"]
    alphas = [max(trial["alpha"], ALPHAS[1] / 2) for trial in trials]
    for key, label in (("train", "training texts"), ("test", "held-out texts")):
        sweep.plot(alphas, [trial[key] for trial in trials], marker="o", markersize=3, label=label)
    for key, label in (("of target", "of the target"), ("of background", "of the background")):
        shares.plot(alphas, [100 * trial[key] for trial in trials], marker="o", markersize=3, label=label)
    for axes, ylabel in ((sweep, "AUC of the first direction"), (shares, "share of variance along it, %")):
        axes.set(xscale="log", xlabel="alpha (leftmost: 0, plain PCA)", ylabel=ylabel)
        for how, style in (("no labels", "--"), ("labels", ":")):
            axes.axvline(max(found["alpha"][how], alphas[0]), color="grey", linestyle=style, linewidth=1)
        axes.legend(frameon=False, fontsize=8)
    shares.set_yscale("log")
    sweep.set_ylim(0.35, 1.02)
    sweep.set_title(f"layer {number}; alpha by background (dashed), by labels (dotted)", fontsize=9)
    shares.set_title(f"layer {number}", fontsize=9)
    numbers = sorted(map(int, results["layers"]))
    for label in list(found["directions"])[:5]:
        rows = [results["layers"][str(layer)]["directions"][label] for layer in numbers]
        layers.plot(numbers, [row["auc"] for row in rows], marker="o", markersize=3, label=label)
    layers.axhline(0.5, color="grey", linestyle=":", linewidth=1)
    layers.set(xlabel="layer (decoder block)", ylabel="held-out AUC", ylim=(0, 1.02))
    layers.legend(frameon=False, fontsize=7, loc="lower right")
    figure.suptitle(f"{name}: contrastive PCA of reviews", fontsize=10)
    save_figure(figure, path)


def plot_planes(results: dict[str, Any], path: Path, name: str) -> None:
    """Held-out reviews in the planes of common, of largest and of salient directions."""
    figure = new_figure(12, 4)
    for axes, (label, points) in zip(
        figure.subplots(1, len(results["points"])), results["points"].items(), strict=True
    ):
        values = np.asarray(points)
        for side, (what, colour) in enumerate((("good", "C0"), ("bad", "C1"))):
            axes.scatter(*values[side::2].T, s=9, alpha=0.7, color=colour, label=what, linewidth=0)
        axes.set_title(label, fontsize=9)
        axes.set(xlabel="first component", ylabel="second component")
    axes.legend(frameon=False, fontsize=8)
    figure.suptitle(f"{name}, layer {results['config']['layer']}: held-out reviews", fontsize=10)
    save_figure(figure, path)


if __name__ == "__main__":
    sys.exit(main())
