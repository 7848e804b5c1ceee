r"""Decoders that look at a prompt's context, on benchmarks where the context and the model's memory disagree.

    python recipes/context.py --out runs/context --memotrap memotrap/ --nq nq_synth.jsonl
    python recipes/context.py --out runs/quick --memotrap memotrap/ --nq nq_synth.jsonl --limit 40

CAD (arXiv 2305.14739), AdaCAD (2409.07394) and COIECD (2402.11893) compare the prompt with the same one without its
context: in MemoTrap without the instruction, in NQ-Synth without the passage. Beside them stand methods that compare
other things: ICD with a dishonest instruction, DoLa, SLED and DeCo with the model's own layers. MemoTrap asks which of
two endings is likelier, with every plausibility constraint off; NQ-Synth takes written answers, with every decoder as
it was published, and beside them the controls of all: sampling, cooler sampling, and the constraint alone.

Every row is tested against greedy search over the same items: a paired bootstrap over prompts or questions, and
McNemar's exact test of right and wrong. p is corrected by Holm's method over the rows of a table, controls included. A
run that was stopped goes on where it was; each row is also a folder for `truthkit compare` and `truthkit report`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.table import Table
from rich.text import Text

import truthkit as tk
from truthkit.decoding.spec import parse_spec
from truthkit.evaluation.report.compare import compare, read_run
from truthkit.evaluation.running.asking import Asking
from truthkit.evaluation.running.runs import run
from truthkit.evaluation.tasks import benchmarks
from truthkit.files.writing import write_atomically
from truthkit.output import Output
from truthkit.statistics.intervals import holm

OF_CHOICES = (
    *("greedy", "cad:alpha=0.5", "cad:alpha=1", "cad:alpha=2", "adacad", "coiecd"),
    *("icd:beta=0", "dola:beta=0", "deco:top_p=1,top_k=0", "sled"),
)
"""For given endings: no constraint, which would give most of them a probability of zero."""

WRITTEN = ("greedy", "cad:alpha=0.5", "cad:alpha=1", "cad:alpha=2", "adacad", "coiecd", "icd", "dola", "deco", "sled")
"""For written answers: as published, but for CAD's strengths."""


class Row(NamedTuple):
    """One way to decode; `label` is its folder and its row."""

    label: str
    decoder: str
    sample: bool = False
    temperature: float = 1.0


def rows_of(decoders: Sequence[str], *, written: bool) -> list[Row]:
    """The decoders, and behind them what their methods name as controls, each once."""
    rows = [Row(one, one) for one in decoders]
    for control in (control for one in decoders for control in parse_spec(one).controls()):
        drawn = f", sampled at {1 / control.cooler:.2g}" if control.sample else ""
        row = Row(control.decoder + drawn, control.decoder, control.sample, 1 / control.cooler)
        if row not in rows and row.label != "greedy" and (written or not control.sample):
            rows.append(row)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    args = _parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    console = Output(width=None if sys.stdout.isatty() else 132)
    given = {"memotrap": args.memotrap, "context-qa": args.nq}
    try:
        if not any(given.values()):
            raise tk.ArgumentError("there is no data; give --memotrap, --nq or both.")
        model, processor = tk.load(args.model, dtype=args.dtype)
        for name, data in given.items():
            if data is not None:
                found = asked(name, data, model, processor, args)
                write_atomically(args.out / f"{name}.json", found)
                console.print(table(name, found, args), "")
    except tk.TruthkitError as error:
        console.print(f"context: {error}", style="red", markup=False)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for the runs and tables")
    add("--memotrap", type=Path, help="folder of MemoTrap's .csv files, or one of them")
    add("--nq", type=Path, help="nq_synth.jsonl, or another file that `truthkit eval context-qa` takes")
    add("--model", help="hub id or folder (default: the bundled model)")
    add("--dtype", default="float32")
    add("--decoders", nargs="+", help="the first of which is greedy (default: those of the tables in the docs)")
    add("--limit", type=int, help="so many items of each, drawn by the seed (default: all)")
    add("--limit-nq", type=int, help="so many questions of --nq instead")
    add("--batch-size", type=int, default=16)
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "2")))
    return parser


def asked(name: str, data: Path, model: Any, processor: Any, args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Every row's figures, with its differences from greedy search."""
    task = benchmarks()[name].task(data)
    written = bool(task.max_new_tokens)
    rows = rows_of(args.decoders or (WRITTEN if written else OF_CHOICES), written=written)
    limit = args.limit_nq if written and args.limit_nq else args.limit
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        asking = Asking(
            model,
            processor,
            parse_spec(row.decoder),
            {},
            max_new_tokens=task.max_new_tokens,
            sample=row.sample,
            temperature=row.temperature,
            seed=args.seed,
            batch_size=args.batch_size,
        )
        folder = args.out / name / row.label
        made = run(task, asking, folder, model_name=args.model or "bundled model", limit=limit)
        found[row.label] = {key: made[key] for key in ("metrics", "intervals", "n", "headline")}
        found[row.label]["seconds"] = made["provenance"]["seconds_of_items"]
        if row.label != "greedy":
            change = compare(read_run(args.out / name / "greedy"), read_run(folder))
            assert change.answers is not None
            found[row.label] |= {
                "against_greedy": {key: one._asdict() for key, one in change.changes.items()},
                "mcnemar": change.answers.p,
            }
    tested = [one for one in found.values() if "mcnemar" in one]
    for one, p in zip(tested, holm([one["mcnemar"] for one in tested]), strict=True):
        one["mcnemar_holm"] = p
    return found


def table(name: str, found: dict[str, dict[str, Any]], args: argparse.Namespace) -> Table:
    """The figures in percent, with differences from greedy search."""
    benchmark, first = benchmarks()[name], found["greedy"]
    headline = first["headline"]
    others = [metric for metric in first["metrics"] if metric != headline and metric != "raw_accuracy"]
    title = (
        f"{benchmark.title}, {args.model or 'SmolLM2-135M-Instruct'}, {first['n'][headline]} items; %, 95 % intervals"
    )
    shown = Table(title=Text(title), title_justify="left")
    for column in ("", headline, "against greedy", "McNemar p", "p, Holm", *others, "seconds"):
        shown.add_column(column, justify="right" if column else "left", overflow="fold")
    for label, one in found.items():
        change = one["against_greedy"][headline] if "against_greedy" in one else None
        shown.add_row(
            label,
            f"{100 * one['metrics'][headline]:.1f} [{_ends(one['intervals'][headline])}]",
            f"{100 * change['value']:+.1f} [{_ends((change['low'], change['high']))}]" if change else "",
            *(f"{one[key]:.2g}" if key in one else "" for key in ("mcnemar", "mcnemar_holm")),
            *(f"{100 * one['metrics'][metric]:.1f}" for metric in others),
            f"{one['seconds']:.0f}",
        )
    return shown


def _ends(interval: Sequence[float]) -> str:
    return ", ".join(f"{100 * end:.1f}" for end in interval)


if __name__ == "__main__":
    sys.exit(main())
