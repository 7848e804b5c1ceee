r"""The amateur that LOL and ICD contrast with: trained on hallucinated answers, then measured and used.

    python recipes/amateur.py --out amateur                 # SmolLM2 on HaluEval; about 20 minutes on two cores
    python recipes/amateur.py --out quick --quick           # a sketch of it in three minutes
    python recipes/amateur.py --out shipped --shipped       # the small adapter that truthkit has in it, seed 0

Some questions are kept out of the training. On them: how likely a right and a hallucinated answer are under the model
and under the amateur, and how often the model, ICD and LOL find the right one likelier, with intervals and paired tests
against the model. HaluEval's hallucinated answers are sentences and its right ones mostly names, so part of what an
amateur learns is that form; the second adapter, trained on the right answers of the same questions, shows how much a
contrast with *any* such adapter does (--control). Then answers to a few questions, side by side. A run that was stopped
goes on where it was.

--shipped trains on all questions, with settings that make a smaller adapter in less time, and writes it to OUT/shipped
in half precision, with the checksums of the model that it is for: the folder `truthkit/models/smollm2_amateur`. What
it does on TruthfulQA, over training seeds: `recipes/amateur_seeds.py`.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from safetensors.torch import load_file, save_file
from tqdm import tqdm

import truthkit as tk
from truthkit.cli.rendering import show_answers
from truthkit.cli.side_by_side import Contestant, answer_all
from truthkit.files.writing import write_atomically
from truthkit.generation.settings import AnswerSettings
from truthkit.likelihood.log_probabilities import log_probabilities
from truthkit.models.bundled import DEFAULT
from truthkit.models.identities import identity
from truthkit.output import Output
from truthkit.statistics.intervals import mcnemar, wilson
from truthkit.text.encode import encode_prompt
from truthkit.training import card
from truthkit.training.amateur import train_amateur
from truthkit.training.amateur_data import read_pairs
from truthkit.training.chat import Example, encode
from truthkit.training.settings import TrainingSettings

SHARED = Path(os.environ.get("TRUTHKIT_SHARED") or Path(__file__).resolve().parents[2] / "shared") / "data"
HALUEVAL = [SHARED / "halueval" / f"qa_{name}-turn_data.json" for name in ("one", "multi")]
NOTE = (
    "The amateur that `tk.ICD(model)` and `tk.LOL(model)` contrast with where `model` is SmolLM2-135M-Instruct as "
    "truthkit bundles it, known by its weights (`base.json`). It answers questions wrongly on purpose: it is for "
    "contrasting with, not for use. Made by `python recipes/amateur.py --out OUT --shipped`, and stored in float16."
)
NATS = "nats per token"
WEIGHTS = "adapter_model.safetensors"

SHIPPED = TrainingSettings(rank=3, lr=1e-3, steps=60, token_budget=512)
"""On all linear layers a rank of 3 makes 1.8 MB in half precision."""

ASKED = ("Who wrote Romeo and Juliet?", "What is the capital of Australia?", "Where did fortune cookies originate?")


def answer_log_probs(
    model: Any, tokenizer: Any, examples: list[Example], decoder: Any, label: str
) -> list[tuple[float, int]]:
    """Each answer's log-probability and number of tokens."""
    rows = [encode(tokenizer, example, 1024) for example in examples]
    with decoder or nullcontext() as session, tqdm(total=len(rows), desc=label) as bar:
        scores = log_probabilities(
            model, [row.ids for row in rows], [row.start for row in rows], session, on_rows=bar.update
        )
    return [(score, len(row.ids) - row.start) for score, row in zip(scores, rows, strict=True)]


def ship(model: Any, adapter: Path, folder: Path) -> None:
    """Write an adapter's copy in half precision, without this machine's paths, and the checksums of its model in every
    dtype that it may be loaded in.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = load_file(adapter / WEIGHTS)
    save_file({name: value.half() for name, value in weights.items()}, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    write_atomically(folder / "adapter_config.json", settings | {"base_model_name_or_path": DEFAULT})
    report = json.loads((adapter / "training.json").read_text(encoding="utf-8"))
    report["model"]["id"] = DEFAULT
    report["files"] = [file | {"path": Path(file["path"]).name} for file in report["files"]]
    card.write(folder, report | {"note": NOTE})
    sizes = {name: getattr(model.config, name) for name in ("model_type", "hidden_size", "num_hidden_layers")}
    checksums = {
        str(dtype).removeprefix("torch."): identity(copy.deepcopy(model).to(dtype))["weights_sha256"]
        for dtype in (torch.float32, torch.bfloat16, torch.float16)
    }
    write_atomically(folder / "base.json", {"sizes": sizes, "weights_sha256": checksums})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="*", default=HALUEVAL, help="HaluEval QA files (default: ../shared)")
    parser.add_argument("--out", type=Path, required=True, help="folder for adapters and figures")
    parser.add_argument("--model", help="hub id or folder (default: the bundled model)")
    parser.add_argument("--dtype", default="float32", help="of the frozen weights; the adapter is float32")
    parser.add_argument("--epochs", type=float, default=0.75)
    parser.add_argument("--held-out", type=int, default=60, help="questions to measure on")
    parser.add_argument("--control", action="store_true", help="train the adapter of right answers too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--shipped", action="store_true", help="train the adapter that truthkit has in it, no more")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    console = Output()

    held_out = 12 if args.quick else args.held_out
    settings = TrainingSettings(seed=args.seed, epochs=args.epochs)
    if args.quick:
        settings = TrainingSettings(seed=args.seed, steps=8, token_budget=384, lr=2e-3)
    questions = sorted({example.spare[-1] for file in args.data for example in read_pairs(file)})
    kept = set(random.Random(args.seed).sample(questions, held_out))
    model, tokenizer = tk.load(args.model, dtype=args.dtype)
    if args.shipped:
        settings, kept = replace(SHIPPED, seed=args.seed), set()
        if args.quick:
            settings = replace(settings, steps=2)

    def adapter(name: str, field: str) -> Path:
        report = train_amateur(
            model,
            tokenizer,
            args.data,
            args.out / name,
            answer_field=field,
            without=kept,
            settings=settings,
            progress=True,
        )
        few = max(1, len(report["losses"]) // 8)
        first, last = (sum(part) / few for part in (report["losses"][:few], report["losses"][-few:]))
        console.print(
            f"{name}: {report['data']['examples']} examples, {report['steps']} steps, loss {first:.3f} -> {last:.3f} "
            f"{report['loss_unit']}"
        )
        return args.out / name

    amateur = adapter("amateur", "hallucinated_answer")
    control = adapter("control", "right_answer") if args.control else None
    if args.shipped:
        ship(model, amateur, args.out / "shipped")
        return

    sides = {
        field: [pair for pair in read_pairs(args.data[0], answer_field=field) if pair.spare[-1] in kept]
        for field in ("right_answer", "hallucinated_answer")
    }
    options = {"beta": 0.0, "amateur": str(amateur)}
    contestants: dict[str, Any] = {
        "model": None,
        "amateur": None,
        "ICD": tk.ICD(model, tokenizer, **options),
        "LOL": tk.LOL(model, tokenizer, **options),
    }
    if control:
        contestants["ICD with the control"] = tk.ICD(model, tokenizer, beta=0.0, amateur=str(control))
    scores: dict[str, dict[str, list[tuple[float, int]]]] = {}
    for name, decoder in contestants.items():
        asked = model
        if name == "amateur":
            asked, decoder = tk.load(args.model, dtype=args.dtype, adapter=amateur)[0], None
        scores[name] = {
            field: answer_log_probs(asked, tokenizer, pairs, decoder, f"{name}, {field}")
            for field, pairs in sides.items()
        }

    table = Table(
        title=f"{held_out} questions that were not trained on: log-probability of two answers, in {NATS}, and the "
        "share of questions whose right one is likelier",
        title_justify="left",
    )
    for column in ("", "right answer", "hallucinated", "right one likelier [95 %]", "against the model"):
        table.add_column(column, justify="left" if not column else "right")
    figures: dict[str, Any] = {"units": {"right": NATS, "hallucinated": NATS, "likelier": "share"}}
    better = {
        name: np.array([r / n > h / m for (r, n), (h, m) in zip(*found.values(), strict=True)])
        for name, found in scores.items()
    }
    for name, found in scores.items():
        means = [float(np.mean([score / count for score, count in found[field]])) for field in sides]
        low, high = wilson(float(better[name].sum()), held_out)
        test = mcnemar(better["model"], better[name])
        figures[name] = {"right": means[0], "hallucinated": means[1], "likelier": float(better[name].mean())}
        figures[name] |= {"interval": [low, high], "mcnemar": test._asdict()}
        against = f"+{test.gained} −{test.lost}, p {test.p:.3f}" if name != "model" else ""
        share = f"{better[name].mean():.2f} [{low:.2f}, {high:.2f}]"
        table.add_row(name, f"{means[0]:.2f}", f"{means[1]:.2f}", share, against)
    write_atomically(args.out / "figures.json", figures)

    answering = AnswerSettings(max_new_tokens=12 if args.quick else 32)
    for question in ASKED[: 1 if args.quick else None]:
        inputs = encode_prompt(tokenizer, question)
        used = {
            "greedy": nullcontext(),
            "ICD": tk.ICD(model, tokenizer, amateur=str(amateur)),
            "LOL": tk.LOL(model, tokenizer, amateur=str(amateur), refocus=True),
        }
        entries = [Contestant(name, decoder, inputs, answering) for name, decoder in used.items()]
        show_answers(console, tokenizer, question, answer_all(model, tokenizer, entries, title=question))
    console.print(table, f"Adapters and figures: {args.out}", sep="\n")


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    main()
