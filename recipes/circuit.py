r"""Two tasks, one circuit? Indirect objects and coloured objects in one model, attention head by attention head.

    python recipes/circuit.py --out runs/circuit            # SmolLM2; under 15 minutes on two cores
    python recipes/circuit.py --out runs/quick --quick      # a sketch of it in two or three

*Circuit Component Reuse Across Tasks in Transformer Language Models* (Merullo, Eickhoff and Pavlick, arXiv 2310.08744)
finds that GPT2-Medium solves coloured objects ("What color is the pencil?") mostly with the heads that find indirect
objects ("John gave a drink to", Wang et al., 2211.00593), and repairs it by a change to four heads in middle layers.
This recipe asks the same of any model. Prompts are made by templates of our own; no item is left out for its answer.

What a head matters is how the lead (the right answer's logit less the mean of the wrong ones') changes where its
output is that of another prompt, in which the word that repeats an earlier one is replaced:

- *activations*: at all tokens, the rest of the model runs on;
- *to the logits*: the direct path alone, all other heads frozen, MLPs computed anew;
- *to the movers*: the direct paths to what the heads that matter most for the logits read at the last token.

A task's circuit is the share --share of heads that matter most, in either direction, along either path. The paper goes
one step further back, to what the heads found last read at the repeated word, which this recipe does not.

The overlap of two circuits is the share of heads of either that are in both. Beside it stand: what two random sets with
as many heads in each layer have, and what one task's circuit has with itself, found on two halves of the prompts, which
is the most to hope for. Intervals resample prompts. The change: the heads of the middle half of the layers that matter
most to the movers for indirect objects, --change of them, attend at the last token to the wrong answers alone: our form
of what the paper's abstract calls making the circuit behave as for indirect objects. Then each circuit's heads give
their mean over prompts without repetition. Both are measured on other prompts, against as many random heads: of the
middle layers, and of all. A killed run goes on with the stage it was in.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from circuit_patching import Head, Patching, attending, over_layers
from circuit_prompts import TASKS, Batch, batches, make_items
from rich.table import Table
from rich.text import Text
from stages import Stages, write_json
from tqdm import tqdm

import truthkit as tk
from truthkit.figures import new_figure, save_figure
from truthkit.hf.attention import check_readable
from truthkit.hf.sites import decoder_blocks, text_decoder
from truthkit.output import Output
from truthkit.statistics.interval_plot import draw_intervals
from truthkit.statistics.intervals import FloatArray, paired_bootstrap
from truthkit.statistics.score import mean_score

PAPER = {"overlap": 0.78, "coloured objects": 0.496, "coloured objects, changed": 0.937, "changed heads": 4}
"""GPT2-Medium, from the abstract of arXiv 2310.08744."""

WAYS = {"activations": "activations", "logits": "to the logits", "movers": "to the movers"}
PATHS = ("logits", "movers")
CIRCUIT = "circuit"
MEASURES = ("accuracy", "says it")
"""Whether the right answer is likelier than the wrong ones, and whether it is the likeliest token of all."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    args = _parser().parse_args(argv)
    if args.quick:
        args.prompts, args.test, args.draws = min(args.prompts, 4), min(args.test, 12), min(args.draws, 3)
        args.resamples = min(args.resamples, 100)
    torch.set_num_threads(args.threads)
    console = Output(width=None if sys.stdout.isatty() else 150)
    try:
        results = compare(args, console)
    except tk.TruthkitError as error:
        console.print(f"circuit: {error}", style="red", markup=False)
        return 2
    name = args.model or "SmolLM2-135M-Instruct"
    console.print(overlap_table(results, name), "", change_table(results, name), sep="\n")
    if find_spec("matplotlib") is None:
        console.print("no plots: they need matplotlib (pip install 'truthkit[plots]')", markup=False)
    else:
        plot_heads(results, args.out / "heads.png", name)
        plot_changes(results, args.out / "changes.png", name)
    console.print(f"{args.out}: summary.json, a file per stage, heads.png, changes.png", markup=False)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for stages, results and plots")
    add("--quick", action="store_true", help="4 prompts, 12 to test on, 3 draws")
    add("--model", help="hub id or folder (default: the bundled model)")
    add("--dtype", default="float32")
    add("--prompts", type=int, default=24, help="of each task, to find heads with")
    add("--test", type=int, default=200, help="of each task, others, to measure changes on")
    add("--share", type=float, default=0.02, help="of all heads that a path adds to a circuit (the paper: 2 %%)")
    add("--change", type=int, default=4, help="how many middle heads are changed (the paper: 4)")
    add("--draws", type=int, default=20, help="of random heads")
    add("--batch", type=int, default=12, help="prompts of a forward; each is run once for every head of a layer")
    add("--resamples", type=int, default=1000, help="of prompts and of random sets, for the overlap")
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "2")))
    return parser


# -- finding heads -----------------------------------------------------------------------------------------------------


class Finding:
    """What every head matters to one task, a stage for each way; the prompts are read where a stage is run."""

    def __init__(self, model: Any, args: argparse.Namespace, stages: Stages, task: str, prompts: Iterable[Batch]):
        self._model, self._share, self._stages = model, args.share, stages
        self._task, self._prompts = task, list(prompts)

    def effects(self) -> dict[str, FloatArray]:
        """By way, (items, layers, heads)."""
        found = {"activations": self._found("activations", Patching.activations)}
        found["logits"] = self._found("logits", Patching.to_logits)
        movers = lowering(found["logits"].mean(axis=0), top_size(found["logits"], self._share))
        found["movers"] = self._found("movers", lambda run, layer: run.to_heads(layer, movers), movers=movers)
        return found

    @cached_property
    def _runs(self) -> list[Patching]:
        return [Patching(self._model, batch) for batch in self._prompts]

    def _found(self, way: str, act: Callable[[Patching, int], torch.Tensor], **also: Any) -> FloatArray:
        layers = len(decoder_blocks(self._model))

        def make() -> Any:
            total, title = len(self._runs) * layers, f"{TASKS[self._task]}, {WAYS[way]}"
            with tqdm(total=total, desc=title, mininterval=5) as bar:
                return over_layers(self._runs, layers, act, lambda: bar.update()).tolist()

        return np.asarray(self._stages.run(f"{self._task}-{way}", make, "model dtype seed prompts", **also))


def compare(args: argparse.Namespace, console: Output) -> dict[str, Any]:
    """All stages; what goes to `summary.json`."""
    if args.prompts < 2 or args.test < 1 or args.draws < 1 or args.change < 1 or not 0 < args.share < 1:
        raise tk.ArgumentError(
            "expected --prompts of 2 or more, --test, --draws and --change of 1 or more, 0 < --share < 1."
        )
    model, tokenizer = tk.load(args.model, dtype=args.dtype)
    check_readable(text_decoder(model))
    decides = {
        name: getattr(args, name) for name in ("model", "dtype", "seed", "prompts", "share", "test", "draws", "change")
    }
    stages = Stages(args.out, decides, lambda line: console.print(line, markup=False))
    items = {task: make_items(task, tokenizer, args.prompts, f"{args.seed} finding") for task in TASKS}
    effects = {
        task: Finding(model, args, stages, task, batches(items[task], tokenizer, args.batch)).effects()
        for task in TASKS
    }
    size = top_size(effects["ioi"]["logits"], args.share)
    layers, heads = effects["ioi"]["logits"].shape[1:]
    results: dict[str, Any] = {
        "config": {**decides, "batch": args.batch},
        "model": {"layers": layers, "heads": heads, "a path adds": size},
        "paper": PAPER,
        "tasks": {
            task: {
                "example": items[task][0]._asdict(),
                "heads": {way: named(top(found[way].mean(axis=0), size), found[way]) for way in WAYS},
                "movers": lowering(found["logits"].mean(axis=0), size),
                "circuit": circuit(found, slice(None), size),
                "effects": {way: found[way].mean(axis=0).tolist() for way in WAYS},
            }
            for task, found in effects.items()
        },
        "overlap": {way: overlap(effects, way, size, args.seed, args.resamples) for way in (*WAYS, CIRCUIT)},
    }
    changed = middle_heads(effects["ioi"]["movers"].mean(axis=0), args.change)
    results["changed"] = changed
    circuits = {task: results["tasks"][task]["circuit"] for task in TASKS}
    sets = changes(args, model, changed, circuits)
    made = stages.run(
        "changes",
        lambda: {task: measured(args, model, tokenizer, task, sets) for task in TASKS},
        "model dtype seed prompts share test draws change",
        circuits=circuits,
        changed=changed,
    )
    results["changes"] = {task: summarised(made[task], args.seed) for task in TASKS}
    write_json(args.out / "summary.json", results)
    return results


def top_size(effects: FloatArray, share: float) -> int:
    """How many heads a share of all is, at least one."""
    return max(1, round(share * effects[0].size))


def top(mean: FloatArray, size: int) -> list[Head]:
    """The heads whose effect, (layers, heads), is largest in either direction, the largest first."""
    return _heads(np.argsort(-np.abs(mean), axis=None, kind="stable")[:size], mean.shape)


def lowering(mean: FloatArray, size: int) -> list[Head]:
    """The heads without which the lead falls most."""
    return _heads(np.argsort(mean, axis=None, kind="stable")[:size], mean.shape)


def middle_heads(mean: FloatArray, size: int) -> list[Head]:
    """Of those in the middle half of the layers."""
    layers = len(mean)
    first, stop = layers // 4, layers - layers // 4
    return [(layer + first, head) for layer, head in lowering(mean[first:stop], size)]


def _heads(flat: Iterable[int], shape: tuple[int, ...]) -> list[Head]:
    return [(int(at) // shape[1], int(at) % shape[1]) for at in flat]


def circuit(found: dict[str, FloatArray], rows: Any, size: int) -> list[Head]:
    """The heads that some of the items' effects put into a task's circuit, in order."""
    return sorted({head for way in PATHS for head in top(found[way][rows].mean(axis=0), size)})


def named(heads: list[Head], effects: FloatArray) -> list[dict[str, Any]]:
    """Heads with their mean effect and its interval over items."""
    values = np.stack([effects[:, layer, head] for layer, head in heads], axis=1)
    rows = np.column_stack([np.ones(len(values)), values])
    names = [f"{layer}.{head}" for layer, head in heads]
    score = mean_score(rows, names, range(len(values)), [], {}, shares=False)
    intervals = score.intervals()
    return [{"head": name, "effect": score.metrics[name], "interval": list(intervals[name])} for name in names]


# -- overlap -----------------------------------------------------------------------------------------------------------


def shared(one: Iterable[Head], other: Iterable[Head]) -> float:
    """The share of heads of either set that are in both."""
    a, b = set(one), set(other)
    return len(a & b) / len(a | b)


def overlap(
    effects: dict[str, dict[str, FloatArray]], way: str, size: int, seed: int, resamples: int
) -> dict[str, Any]:
    """What the two tasks share, with an interval over prompts, beside chance and beside a task's own two halves."""
    rng = np.random.default_rng(seed)
    count, layers, heads = effects["ioi"]["logits"].shape

    def chosen(task: str, rows: Any) -> list[Head]:
        found = effects[task]
        return circuit(found, rows, size) if way == CIRCUIT else top(found[way][rows].mean(axis=0), size)

    sets = {task: chosen(task, slice(None)) for task in TASKS}
    one, other = sets.values()
    both = sorted(set(one) & set(other))
    drawn = [shared(*(chosen(task, rng.integers(count, size=count)) for task in TASKS)) for _ in range(resamples)]
    halves: dict[str, float] = {}
    for task in TASKS:
        orders = [rng.permutation(count) for _ in range(resamples // 10)]
        halves[task] = float(
            np.mean([shared(chosen(task, o[: count // 2]), chosen(task, o[count // 2 :])) for o in orders])
        )
    random_sets = [[_as_deep(heads_of, heads, rng) for heads_of in (one, other)] for _ in range(resamples)]
    by_chance = np.asarray([shared(*pair) for pair in random_sets])
    found = shared(one, other)
    return {
        "heads": sets,
        "both": both,
        "shared": found,
        "of each": {task: len(both) / len(sets[task]) for task in TASKS},
        "interval": np.quantile(drawn, [0.025, 0.975]).tolist(),
        "halves": halves,
        "chance": float(by_chance.mean()),
        "p": float((1 + (by_chance >= found - 1e-12).sum()) / (1 + resamples)),
        "both by chance, any layer": len(one) * len(other) / (layers * heads),
        "p, any layer": hypergeometric(len(both), len(one), len(other), layers * heads),
        "rank correlation": None
        if way == CIRCUIT
        else rank_correlation(*(effects[t][way].mean(axis=0) for t in TASKS)),
    }


def _as_deep(chosen: Sequence[Head], heads: int, rng: np.random.Generator) -> list[Head]:
    """Random heads, as many in each layer as were chosen."""
    by_layer = itertools.groupby(sorted(layer for layer, _ in chosen))
    return [
        (layer, int(head))
        for layer, group in by_layer
        for head in rng.choice(heads, size=len(list(group)), replace=False)
    ]


def hypergeometric(both: int, one: int, other: int, total: int) -> float:
    """How likely two random sets of these sizes have `both` or more members in common."""
    ways = sum(math.comb(one, k) * math.comb(total - one, other - k) for k in range(both, min(one, other) + 1))
    return ways / math.comb(total, other)


def rank_correlation(one: FloatArray, other: FloatArray) -> float:
    """Spearman's, of the sizes of all heads' effects."""
    orders = (np.abs(values).ravel().argsort(kind="stable") for values in (one, other))
    ranks = np.stack([order.argsort(kind="stable") for order in orders]).astype(float)
    return float(np.corrcoef(ranks)[0, 1])


# -- changes -----------------------------------------------------------------------------------------------------------


class Change(NamedTuple):
    """What is done to sets of heads, "attend" or "mean"; several sets are draws of random ones."""

    what: str
    sets: list[list[Head]]


def changes(
    args: argparse.Namespace, model: Any, changed: list[Head], circuits: dict[str, list[Head]]
) -> dict[str, Change]:
    """Every change by its name, a control behind what it is the control of."""
    layers, rng = range(len(decoder_blocks(model))), random.Random(f"draws {args.seed}")
    heads = range(int(model.config.get_text_config(decoder=True).num_attention_heads))
    middle = range(len(layers) // 4, len(layers) - len(layers) // 4)

    def draws(pool: Iterable[int], size: int, without: Sequence[Head]) -> list[list[Head]]:
        left = [head for head in itertools.product(pool, heads) if head not in without]
        return [rng.sample(left, min(size, len(left))) for _ in range(args.draws)]

    every = [head for heads_of in circuits.values() for head in heads_of]
    found = {"as it is": Change("nothing", [[]])}
    found[f"{len(changed)} middle heads attend to the wrong answers"] = Change("attend", [changed])
    found["control: random middle heads"] = Change("attend", draws(middle, len(changed), changed))
    for task, title in TASKS.items():
        own = circuits[task]
        found[f"without the circuit of {title}"] = Change("mean", [own])
        found[f"control: {len(own)} random heads (for {title})"] = Change("mean", draws(layers, len(own), every))
    return found


def measured(
    args: argparse.Namespace, model: Any, tokenizer: Any, task: str, made: dict[str, Change]
) -> dict[str, Any]:
    """Whether each test item of a task is answered rightly under each change and draw, by `MEASURES`."""
    finding, test = (
        make_items(task, tokenizer, count, f"{args.seed} {part}")
        for part, count in (("finding", args.prompts), ("test", args.test))
    )
    others = [Patching(model, batch).others[:, :, -1] for batch in batches(finding, tokenizer, args.batch)]
    means = torch.cat(others, dim=1).mean(dim=1)
    rights = {name: np.zeros((len(change.sets), args.test, len(MEASURES))) for name, change in made.items()}
    parts = list(batches(test, tokenizer, 4 * args.batch))
    total = len(parts) * sum(len(change.sets) for change in made.values())
    with tqdm(total=total, desc=f"{TASKS[task]}, changes", mininterval=5) as bar:
        for run in (Patching(model, batch) for batch in parts):
            for name, change in made.items():
                for draw, heads in enumerate(change.sets):
                    blocks: list[AbstractContextManager[Any]] = []
                    if change.what == "attend":
                        blocks = [attending(model, heads, run.batch.wrong_places)]
                    elif change.what == "mean":
                        blocks = [run.patch(head, means[head[0]]) for head in heads]
                    rights[name][draw, run.batch.items] = right_answers(run, run.plain(*blocks))
                    bar.update()
    return {name: values.tolist() for name, values in rights.items()}


def right_answers(run: Patching, logits: torch.Tensor) -> FloatArray:
    """By each of `MEASURES`, (items, measures)."""
    answers = run.batch.answers.to(logits.device)
    offered = logits.gather(1, answers)
    ahead = offered[:, 0] > offered[:, 1:].max(dim=1).values
    return torch.stack([ahead, logits.argmax(dim=1) == answers[:, 0]], dim=1).cpu().double().numpy()


def summarised(made: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """Every change's accuracy with its interval over items, its difference from none, and its rank among random heads.

    Random heads stand behind what they are the control of; theirs is the mean over draws, beside every draw's.
    """
    rows: list[dict[str, Any]] = []
    base = _columns(np.asarray(made["as it is"])[0])
    for name, tries in made.items():
        values = np.asarray(tries)
        score = mean_score(_columns(values.mean(axis=0)), MEASURES, range(values.shape[1]), [], {})
        row: dict[str, Any] = {"name": name, "metrics": score.metrics, "intervals": score.intervals(seed=seed)}
        if name != "as it is":
            over = paired_bootstrap(base, _columns(values.mean(axis=0)), score.measure, seed=seed)
            row["over none"] = {measure: difference._asdict() for measure, difference in over.items()}
        if name.startswith("control"):
            of_draws = values[:, :, 0].mean(axis=1)
            row["draws"] = of_draws.tolist()
            before = rows[-1]["metrics"]["accuracy"]
            extreme = min((of_draws >= before).sum(), (of_draws <= before).sum())
            rows[-1]["p against random"] = min(1.0, 2 * float(1 + extreme) / (1 + len(of_draws)))
        rows.append(row)
    return rows


def _columns(values: FloatArray) -> FloatArray:
    return np.column_stack([np.ones(len(values)), values])


# -- what is shown -----------------------------------------------------------------------------------------------------


def overlap_table(results: dict[str, Any], name: str) -> Table:
    """What the tasks share, way by way."""
    config, model = results["config"], results["model"]
    title = f"{name}, {model['layers']} × {model['heads']} heads, {config['prompts']} prompts of each task"
    caption = (
        "SHARED: heads in both over heads in either, 95 % interval over prompts. CHANCE: random heads of the same "
        "layers. HALVES: one task with itself. RANKS: Spearman over all heads. "
        f"PAPER: GPT2-Medium, about {PAPER['overlap']:.0%} of in-circuit heads, with one step more of path patching: "
        "another model and other prompts."
    )
    shown = Table(title=Text(title), title_justify="left", caption=Text(caption), caption_justify="left")
    for column in ("", *TASKS.values(), "both", "shared, %", "chance, %", "p", "halves, %", "ranks"):
        shown.add_column(column, justify="right" if column.endswith("%") else "left", overflow="fold")
    for way, row in results["overlap"].items():
        ends, ranks = row["interval"], row["rank correlation"]
        shown.add_row(
            WAYS.get(way, "circuit: both paths"),
            *(listed(row["heads"][task]) for task in TASKS),
            listed(row["both"]) or "none",
            f"{100 * row['shared']:.0f} [{100 * ends[0]:.0f}, {100 * ends[1]:.0f}]",
            f"{100 * row['chance']:.0f}",
            f"{row['p']:.2g}",
            " / ".join(f"{100 * half:.0f}" for half in row["halves"].values()),
            "" if ranks is None else f"{ranks:.2f}",
        )
    return shown


def listed(heads: Iterable[Sequence[int]]) -> str:
    """As layer.head, in order."""
    return " ".join(f"{layer}.{head}" for layer, head in sorted(map(tuple, heads)))


def change_table(results: dict[str, Any], name: str) -> Table:
    """Accuracy under every change."""
    config = results["config"]
    title = f"{name}, {config['test']} other prompts of each task; changed: {listed(results['changed'])}"
    draws, before, after = config["draws"], PAPER["coloured objects"], PAPER["coloured objects, changed"]
    caption = (
        f"%; 95 % intervals over prompts. SAYS IT: the likeliest of all tokens. RANDOM: mean and range of {draws} "
        f"draws; p: the rank among them, two-sided, at the least {2 / (1 + draws):.2g}. PAPER: GPT2-Medium, coloured "
        f"objects, {100 * before:.1f} as it is and {100 * after:.1f} with {PAPER['changed heads']} middle heads "
        "changed: another model and other prompts."
    )
    shown = Table(title=Text(title), title_justify="left", caption=Text(caption), caption_justify="left")
    for column in ("", "accuracy", "over none", "random", "p", "says it"):
        shown.add_column(column, justify="right" if column else "left", overflow="fold")
    for task, title in TASKS.items():
        rows = results["changes"][task]
        shown.add_row(Text(f"{title} (chance {100 / (2 if task == 'ioi' else 3):.0f})", style="bold"))
        for at, row in enumerate(rows):
            if "draws" in row:
                continue
            cells = ["", "", ""]
            if at:
                over, drawn = row["over none"]["accuracy"], [100 * draw for draw in rows[at + 1]["draws"]]
                random_heads = f"{np.mean(drawn):.1f} ({min(drawn):.0f} to {max(drawn):.0f})"
                cells = [interval(over["value"], (over["low"], over["high"]), sign="+"), random_heads]
                cells.append(f"{row['p against random']:.2g}")
            shown.add_row(
                "  " + row["name"],
                interval(row["metrics"]["accuracy"], row["intervals"]["accuracy"]),
                *cells,
                f"{100 * row['metrics']['says it']:.1f}",
            )
    return shown


def interval(value: float, ends: Sequence[float], sign: str = "") -> str:
    """A share in percent with its interval."""
    low, high = ends
    return f"{100 * value:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def plot_heads(results: dict[str, Any], path: Path, name: str) -> None:
    """What every head matters, a map for each task and way; heads of a circuit have a frame, of both a thick one."""
    layers, heads = results["model"]["layers"], results["model"]["heads"]
    figure = new_figure(3 + 0.09 * layers * len(WAYS) + 3, 1.6 + 0.36 * heads)
    grid = figure.subplots(len(TASKS), len(WAYS), sharex=True, sharey=True)
    for axes_row, (task, title) in zip(grid, TASKS.items(), strict=True):
        for axes, way in zip(axes_row, WAYS, strict=True):
            values = np.asarray(results["tasks"][task]["effects"][way])
            limit = float(np.abs(values).max()) or 1.0
            image = axes.imshow(values.T, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto", origin="lower")
            figure.colorbar(image, ax=axes, shrink=0.85)
            own, both = (results["overlap"][way]["heads"][task], results["overlap"][way]["both"])
            for layer, head in own:
                width = 2.2 if [layer, head] in [list(one) for one in both] else 0.8
                axes.add_patch(_frame(layer, head, width))
            axes.set_title(f"{title}: {WAYS[way]}", fontsize=9)
            axes.set_yticks(range(0, heads, 1 + heads // 12))
    for axes in grid[-1]:
        axes.set_xlabel("layer")
    for axes in grid[:, 0]:
        axes.set_ylabel("head")
    figure.suptitle(
        f"{name}: change of the lead (logits) where a head is patched; framed: the most, thick: in both tasks",
        fontsize=10,
    )
    save_figure(figure, path)


def _frame(layer: int, head: int, width: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((layer - 0.5, head - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=width)


def plot_changes(results: dict[str, Any], path: Path, name: str) -> None:
    """Accuracy under every change with its interval, and the draws of random heads as dots."""
    figure = new_figure(12, 3.6)
    for axes, (task, title) in zip(figure.subplots(1, len(TASKS), sharey=True), TASKS.items(), strict=True):
        rows = results["changes"][task]
        names = [row["name"] for row in rows]
        values = [row["metrics"]["accuracy"] for row in rows]
        draw_intervals(axes, names, values, [row["intervals"]["accuracy"] for row in rows])
        for place, row in zip(range(len(rows))[::-1], rows, strict=True):
            draws = row.get("draws", [])
            axes.plot(draws, [place - 0.25] * len(draws), "|", color="grey", markersize=6)
        axes.axvline(1 / (2 if task == "ioi" else 3), color="C3", linewidth=0.8, linestyle="--")
        axes.set(xlim=(-0.02, 1.02), title=title, xlabel="accuracy among the answers offered")
    figure.suptitle(
        f"{name}: changed heads; dotted: as it is, dashed: chance, strokes: draws of random heads", fontsize=10
    )
    save_figure(figure, path)


if __name__ == "__main__":
    sys.exit(main())
