r"""RITUAL beside greedy search, sampling, VCD and M3ID on POPE and CHAIR: the comparison of the RITUAL paper.

    python recipes/ritual.py --out runs/ritual                  # scene-vlm on 150 drawn scenes; minutes on two cores
    python recipes/ritual.py --out runs/quick --quick           # a sketch of it in a minute
    python recipes/ritual.py --out runs/more --decoder pai:alpha=0.5 --decoder sid:rank=16 --decoder avisc
    python recipes/ritual.py --out runs/llava --model llava-hf/llava-1.5-7b-hf --dtype bfloat16 --images val2014 \
        --pope pope/coco --suffix " Please answer this question with one word." --chair chair --parser opera

RITUAL (arXiv 2405.17821) adds the logits under a transformed image to those under the image itself: what is really
there is still there in a mirrored or blurred picture, what the model only expects is not. VCD subtracts the logits
under noise, M3ID those without an image. POPE asks whether an object is in the picture, CHAIR counts the objects that a
description invents. As in the papers, methods sample at temperature 1; --greedy adds each of them under greedy search.

Part of what such methods gain has nothing to do with looking twice. RITUAL's alpha of 3 alone turns sampling into
sampling at temperature 1 / (1 + 3), and its plausibility constraint cuts off the tail (arXiv 2504.10020). So the table
has the controls: greedy search, sampling at that temperature, the constraint alone, and how often yes is said.
Intervals are 95 % bootstrap intervals over images; p is McNemar's exact test of the answers against greedy's, paired
bootstrap for descriptions, neither corrected for the number of rows.

Without --pope and --chair the pictures are drawn scenes in which no object has its usual partner, and the model is
`scene-vlm`, a test model that was trained to expect the partner. That shows the comparison, not what these methods do
to real models. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from rich.text import Text

import truthkit as tk
from truthkit.decoding.spec import parse_spec
from truthkit.evaluation.report.compare import read_run
from truthkit.evaluation.running.asking import Asking
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.runs import run as run_task
from truthkit.evaluation.running.task import Task
from truthkit.evaluation.tasks import benchmarks
from truthkit.evaluation.tasks.chair import scorer as chair
from truthkit.evaluation.tasks.chair.task import task as chair_task
from truthkit.evaluation.tasks.pope import scorer as pope
from truthkit.evaluation.tasks.pope.task import task as pope_task
from truthkit.figures import new_figure, save_figure
from truthkit.files.writing import write_atomically
from truthkit.output import Output
from truthkit.scenes.questions import CAPTION_PROMPT, KINDS, held_out, mentions, questions
from truthkit.scenes.render import render
from truthkit.statistics.interval_plot import draw_intervals
from truthkit.statistics.intervals import mcnemar, paired_bootstrap
from truthkit.statistics.score import Score

PAPER_POPE = {
    "sampling": (84.1, 80.9, 76.2),
    "VCD": (85.4, 81.1, 75.6),
    "M3ID": (86.0, 82.8, 77.7),
    "RITUAL": (88.9, 85.8, 78.8),
    "RITUAL+": (89.2, 86.7, 79.4),
}
"""Accuracy on POPE-COCO random, popular and adversarial of LLaVA-1.5-7B (arXiv 2405.17821)."""

PAPER_CHAIR = {"sampling": (26.2, 9.3), "RITUAL": (20.6, 6.9), "RITUAL+": (19.6, 6.8)}
"""CHAIR_s and CHAIR_i of LLaVA-1.5-7B (arXiv 2405.17821)."""


@dataclass(frozen=True)
class Way:
    """A way to answer: a decoder as the command line writes it, and how tokens are drawn."""

    label: str
    decoder: str
    sample: bool = True
    temperature: float = 1.0


METHODS = {
    "VCD": "vcd",
    "M3ID": "m3id",
    "RITUAL": "ritual",
    "RITUAL+": "ritual_plus",
    "RITUAL + VCD": "ritual+vcd",
    "RITUAL + M3ID": "ritual+m3id",
}


def ways(*, greedy: bool, also: Sequence[str] = ()) -> list[Way]:
    """The baseline, the controls, the methods, and decoders that somebody wants beside them."""
    methods = METHODS | {spec: spec for spec in also}
    found = [
        Way("greedy", "greedy", sample=False),
        Way("sampling", "greedy"),
        Way("sampling, temperature 0.25", "greedy", temperature=0.25),
        Way("sampling, constraint alone", "apc:beta=0.1"),
    ]
    found += [Way(label, decoder) for label, decoder in methods.items()]
    return found + [Way(f"{label}, greedy", way, sample=False) for label, way in methods.items() if greedy]


def scene_tasks(count: int, seed: int, folder: Path) -> dict[str, Task]:
    """POPE's questions about drawn scenes, and their descriptions; the pictures are written to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes, rng = held_out(count, seed), random.Random(seed)
    paths = [str(folder / f"{number:04}.png") for number in range(count)]
    for scene, path in zip(scenes, paths, strict=True):
        render(scene).save(path)
    asked = [
        pope.Question(str(number), str(number), question.text, "yes" if question.present else "no", kind)
        for number, scene in enumerate(scenes)
        for kind in KINDS
        for question in questions(scene, rng, kind=kind)
    ]

    def score_answers(which: Sequence[int], outputs: Sequence[str]) -> Score:
        return pope.score([asked[i] for i in which], outputs)

    def score_descriptions(which: Sequence[int], outputs: Sequence[str]) -> Score:
        rows, items = [], []
        for i, text in zip(which, outputs, strict=True):
            named, there = mentions(text), scenes[i].names
            invented = [name for name in named if name not in there]
            rows.append((1, bool(invented), len(named), len(invented), len(there), len(named) - len(invented)))
            said = {"image": i, "caption": text, "objects": named, "hallucinated": invented}
            items.append(said | {"ground_truth": sorted(there), "correct": not invented})
        return Score(np.asarray(rows, float), list(which), chair.measure, items, {"scenes": len(rows)})

    about = {"scenes": count, "scenes_seed": seed}
    items = [Item(f"{i} {q.category} {q.text}", q.text, (paths[int(q.image)],)) for i, q in enumerate(asked)]
    described = [Item(str(number), CAPTION_PROMPT, (path,)) for number, path in enumerate(paths)]
    return {
        "pope": Task("pope", items, score_answers, "accuracy", 4, about),
        "chair": Task("chair", described, score_descriptions, "chair_i", 48, about),
    }


def real_tasks(args: argparse.Namespace) -> dict[str, Task]:
    """The benchmarks that the command line names."""
    found = {}
    if args.pope:
        found["pope"] = pope_task(args.pope, images=args.images, parser=args.parser, suffix=args.suffix)
    if args.chair:
        found["chair"] = chair_task(args.chair, images=args.images, lemmatizer=args.lemmatizer)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    args = _parser().parse_args(argv)
    if args.quick:
        args.scenes, args.limit = min(args.scenes, 10), args.limit or 30
    torch.set_num_threads(args.threads)
    console, compared = Output(width=None if sys.stdout.isatty() else 132), ways(greedy=args.greedy, also=args.decoder)
    real = args.pope or args.chair
    try:
        tasks = real_tasks(args) if real else scene_tasks(args.scenes, args.seed, args.out / "pictures")
        model, processor = tk.load(args.model or "scene-vlm", dtype=args.dtype, device_map=args.device_map)
        name, limit = args.model or "scene-vlm", args.limit if real else None
        scores = {
            kind: {way.label: asked(task, way, model, processor, args, name, limit) for way in compared}
            for kind, task in tasks.items()
        }
    except tk.TruthkitError as error:
        console.print(f"ritual: {error}", style="red", markup=False)
        return 2
    summary: dict[str, Any] = {
        kind: {label: row(kind, label, found["greedy"], score) for label, score in found.items()}
        for kind, found in scores.items()
    }
    config = {"config": vars(args), "model": name, "data": "real" if real else "drawn scenes"}
    write_atomically(args.out / "summary.json", json.loads(json.dumps(summary | config, default=str)))
    for kind, rows in summary.items():
        items = len(scores[kind]["greedy"].clusters)
        title = f"{kind.upper()}, {name}: {items} items of {'the benchmark' if real else f'{args.scenes} drawn scenes'}"
        console.print((pope_table if kind == "pope" else chair_table)(rows, title), "")
    if not real:
        console.print(
            "scene-vlm is a test model of 2.3 million parameters, trained to hallucinate: its rows show what the "
            "methods and controls look like side by side, and nothing about real models.",
            markup=False,
        )
    if find_spec("matplotlib") is None:
        console.print("no plot: it needs matplotlib (pip install 'truthkit[plots]')", markup=False)
    else:
        plot(summary, args.out / "comparison.png", name)
    console.print(f"{args.out}: summary.json, plot, and a run for `truthkit compare` per row", markup=False)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for pictures, runs, figures and the plot")
    add("--quick", action="store_true", help="10 scenes; or 30 items of a benchmark")
    add("--greedy", action="store_true", help="add every method under greedy search")
    add("--decoder", action="append", default=[], metavar="SPEC", help="one more method, as pai:alpha=0.5; repeatable")
    add("--model", help="hub id or folder of an image-text model (default: scene-vlm)")
    add("--dtype", help="float32, bfloat16, float16 (default: as in the checkpoint)")
    add("--device-map", help="auto: spread a large model over all devices")
    add("--batch-size", type=int, default=64)
    add("--seed", type=int, default=0, help="of scenes, transforms, noise and sampling")
    add("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "2")))
    add("--scenes", type=int, default=150, help="drawn scenes (default: %(default)s)")
    real = parser.add_argument_group("real benchmarks, instead of drawn scenes")
    real.add_argument("--pope", type=Path, help="POPE's question file, or the folder of the three")
    real.add_argument("--chair", type=Path, help="folder with chair_gt_*.json or COCO's annotations, and synonyms.txt")
    real.add_argument("--images", type=Path, help="folder of COCO's images")
    real.add_argument("--parser", default="official", help="of POPE's answers; RITUAL's script reads as opera does")
    real.add_argument("--suffix", default="", help="put behind POPE's questions")
    real.add_argument("--lemmatizer", default="nltk", help="of CHAIR: nltk or pattern")
    real.add_argument("--limit", type=int, help="so many items only, drawn by the seed")
    return parser


def asked(
    task: Task, way: Way, model: Any, processor: Any, args: argparse.Namespace, name: str, limit: int | None
) -> Score:
    """The score of a task under a way to answer; what is on the disk is not asked again."""
    spec = parse_spec(way.decoder)
    asking = Asking(
        model,
        processor,
        spec,
        {"seed": args.seed} if spec.takes("seed") else {},
        max_new_tokens=task.max_new_tokens,
        sample=way.sample,
        temperature=way.temperature,
        seed=args.seed,
        batch_size=args.batch_size,
    )
    folder = args.out / task.name / way.label.replace(" + ", "+").replace(", ", "-").replace(" ", "-")
    run_task(task, asking, folder, model_name=name, limit=limit, units=benchmarks()[task.name].units)
    outputs = {item["key"]: item["output"] for item in read_run(folder).items}
    some = [number for number, item in enumerate(task.items) if item.key in outputs]
    return task.score(some, [outputs[task.items[number].key] for number in some])


def row(kind: str, label: str, baseline: Score, found: Score) -> dict[str, Any]:
    """A way's figures with intervals, its differences from greedy search, and the paper's figures."""
    made: dict[str, Any] = {"metrics": found.metrics, "intervals": found.intervals()}
    if kind == "pope":
        made["by_category"] = {name: part.metrics["accuracy"] for name, part in pope.by_category(found).items()}
        right = [[item["correct"] for item in score.items] for score in (baseline, found)]
        made["mcnemar"] = mcnemar(*right)._asdict()
    if found is not baseline:
        change = paired_bootstrap(baseline.counts, found.counts, found.measure, found.clusters)
        made["against_greedy"] = {name: difference._asdict() for name, difference in change.items()}
    if paper := (PAPER_POPE if kind == "pope" else PAPER_CHAIR).get(label):
        made["paper"] = paper
    return made


def percent(found: dict[str, Any], metric: str) -> str:
    """A share with its interval."""
    low, high = found["intervals"][metric]
    return f"{100 * found['metrics'][metric]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def pope_table(rows: dict[str, Any], title: str) -> Table:
    """Accuracy and the share of yes; the paper's accuracies."""
    caption = (
        "%; 95 % intervals over images; r/p/a: random, popular, adversarial. PAPER: LLaVA-1.5-7B on COCO, its base in "
        "the row of sampling: another model and other images, so compare the order of the rows, not the figures."
    )
    table = _table(title, caption, "accuracy", "r/p/a", "yes", "p", "PAPER: accuracy\nr/p/a")
    for label, found in rows.items():
        table.add_row(
            label,
            percent(found, "accuracy"),
            " / ".join(f"{100 * value:.1f}" for value in found["by_category"].values()),
            percent(found, "yes_ratio"),
            f"{found['mcnemar']['p']:.2g}" if "against_greedy" in found else "",
            " / ".join(f"{value:.1f}" for value in found.get("paper", ())),
            end_section=label == "sampling, constraint alone",
        )
    return table


def chair_table(rows: dict[str, Any], title: str) -> Table:
    """CHAIR's measures; the paper's."""
    caption = (
        "%; 95 % intervals over images; less is better but for recall, the share of the objects there that are named. "
        "PAPER: LLaVA-1.5-7B on COCO, its base in the row of sampling: another model, other images."
    )
    table = _table(title, caption, "CHAIR_s", "CHAIR_i", "recall", "p, CHAIR_s", "p, CHAIR_i", "PAPER:\nCHAIR_s / i")
    for label, found in rows.items():
        change = found.get("against_greedy")
        table.add_row(
            label,
            *(percent(found, metric) for metric in chair.METRICS),
            *(f"{change[metric]['p']:.2g}" if change else "" for metric in ("chair_s", "chair_i")),
            " / ".join(f"{value:.1f}" for value in found.get("paper", ())),
            end_section=label == "sampling, constraint alone",
        )
    return table


def _table(title: str, caption: str, *columns: str) -> Table:
    table = Table(title=Text(title), title_justify="left", caption=Text(caption), caption_justify="left")
    table.add_column("", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    return table


def plot(summary: dict[str, Any], path: Path, name: str) -> None:
    """Accuracy and CHAIR_i with their intervals, side by side."""
    headlines = {"pope": ("accuracy", "POPE accuracy"), "chair": ("chair_i", "CHAIR_i (less is better)")}
    figure = new_figure(1.5 + 4.5 * len(summary), 4)
    for axes, (kind, rows) in zip(figure.subplots(1, len(summary), squeeze=False)[0], summary.items(), strict=True):
        metric, label = headlines[kind]
        values = [found["metrics"][metric] for found in rows.values()]
        draw_intervals(axes, list(rows), values, [found["intervals"][metric] for found in rows.values()])
        axes.set(xlabel=label)
        if axes is not figure.axes[0]:
            axes.set_yticklabels([])
    figure.suptitle(name, fontsize=10)
    save_figure(figure, path)


if __name__ == "__main__":
    sys.exit(main())
