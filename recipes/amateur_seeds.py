r"""What the amateur that comes along changes on TruthfulQA's multiple choice, over training seeds.

    python recipes/amateur.py --out seed-0 --shipped --seed 0            # and so for other seeds
    python recipes/amateur.py --out control --shipped --control          # an adapter of right answers, too
    python recipes/amateur_seeds.py --out seeds --amateurs seed-*/shipped --control control/control

One decoder holds every view: the model with its early exits, each amateur, the model told to be dishonest, and the
control. A choice's tokens run through its forward once, after prompts that are read once, and the scores of ICD and LOL
are computed there from the views' logits, by their own formulas with their defaults; on the first question `tk.ICD` and
`tk.LOL` themselves score the choices too, and must agree. The constraint is off, as in multiple choice it is in the
released code. "Raw" scores are sums of the contrasts, as there; "normalised" ones are log-probabilities. Differences
from the model alone have paired 95 % bootstrap intervals over questions. The questions are drawn by the seed; none of
them is among what the amateurs learnt from, which is checked. A killed run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from choice_views import ChoiceViews, Parts, Tokens
from lol import HALUEVAL, PROTOCOL, TRUTHFULQA, interval, means
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

import truthkit as tk
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.early_exits import named_layers
from truthkit.decoding.engine.view import ViewLogits
from truthkit.decoding.methods.amateur import amateur_view
from truthkit.evaluation.running.records import Records
from truthkit.evaluation.tasks.truthfulqa import choices as truthfulqa
from truthkit.files.writing import content_key, file_sha256, write_atomically
from truthkit.output import Output
from truthkit.statistics.intervals import mcnemar, paired_bootstrap
from truthkit.statistics.score import mean_score
from truthkit.text.fingerprint import fingerprint
from truthkit.training.amateur_data import read_pairs

BASE, PROMPT, CONTROL = "the model alone", "ICD, prompt-only amateur", "ICD, control of right answers"
FORMS = ("raw", "normalised")
OMEGA = 0.5


class Views(Decoder):
    """The model, and everything it is contrasted with, in one forward, which returns the model's own logits."""

    def __init__(self, model: Any, tokenizer: Any, amateurs: Sequence[str], control: str | None, *, fewer: bool):
        self.lol = not fewer
        adapters = [*amateurs, *([control] if control else []), *([] if fewer else ["prompt"])]
        exits = [self.lol and one == amateurs[0] for one in adapters]
        views = [
            amateur_view(model, tokenizer, one, None, exits=some) for one, some in zip(adapters, exits, strict=True)
        ]
        super().__init__(model, views, layers=named_layers(model, "high") if self.lol else ())
        self.names = [f"ICD, seed {seed}" for seed in range(len(amateurs))] + [CONTROL] * bool(control)
        self.names += [PROMPT] * self.lol

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        return main.logits

    def contrasts(self, main: ViewLogits, *views: ViewLogits) -> dict[str, torch.Tensor]:
        """Every method's scores before they are renormalised, each (rows, positions, vocabulary)."""
        log_p = main.logits.log_softmax(-1)
        scores = {name: log_p - view.logits.log_softmax(-1) for name, view in zip(self.names, views, strict=True)}
        if not self.lol:
            return {BASE: log_p, **scores}
        lower = (main.exits.log_softmax(-1) - views[0].exits.log_softmax(-1)).mean(dim=0)
        return {BASE: log_p, **scores, "LOL, seed 0": scores["ICD, seed 0"] + OMEGA * lower}


def both(scores: Parts, ids: list[int]) -> dict[str, list[float]]:
    """For each method, the raw and the normalised score of a choice."""
    return {name: _both(score, ids) for name, score in scores.items()}


def _both(scores: torch.Tensor, ids: list[int]) -> list[float]:
    """The sums over a choice's tokens, raw and normalised."""
    raw = scores[torch.arange(len(ids)), torch.tensor(ids)].double()
    return [float(raw.sum()), float((raw - scores.logsumexp(-1)).sum())]


def disagreement(
    decoders: dict[str, Callable[[], Any]],
    model: Any,
    tokens: Tokens,
    question: truthfulqa.Question,
    records: list[dict[str, list[float]]],
) -> float:
    """The largest difference of a choice's score from what the decoders themselves give, in whole forwards."""
    worst = 0.0
    for name, decoder in decoders.items():
        with decoder(), torch.no_grad():
            for choice, record in zip(question.choices, records, strict=True):
                prompt, ids = tokens.of(question.text, choice)
                logits = model(torch.tensor([prompt + ids]), logits_to_keep=len(ids) + 1).logits[0, :-1]
                score = logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)].double().sum()
                worst = max(worst, abs(float(score) - record[name][1]))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for records and figures")
    parser.add_argument("--amateurs", type=Path, nargs="+", required=True, help="adapters' folders, in order of seeds")
    parser.add_argument("--control", type=Path, help="an adapter trained on right answers")
    parser.add_argument("--data", type=Path, default=TRUTHFULQA, help="TruthfulQA.csv or mc_task.json")
    parser.add_argument("--halueval", type=Path, nargs="+", default=HALUEVAL, help="what the amateurs learnt from")
    parser.add_argument("--model", help="hub id or folder (default: the bundled model)")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--fewer", action="store_true", help="without LOL and the prompt-only amateur")
    parser.add_argument("--seed", type=int, default=0, help="of questions and bootstraps")
    args = parser.parse_args()
    questions = truthfulqa.read_questions(args.data, protocol=PROTOCOL)
    random.Random(args.seed).shuffle(questions)
    learnt = {fingerprint(pair.spare[-1]) for file in args.halueval for pair in read_pairs(file)}
    asked = [question for question in questions if fingerprint(question.text) not in learnt][: args.questions]
    model, tokenizer = tk.load(args.model)
    tokens = Tokens(tokenizer, {one.text: truthfulqa.prompt(one.text, protocol=PROTOCOL) for one in asked})
    amateurs, control = [str(folder) for folder in args.amateurs], args.control and str(args.control)
    weights = {one: file_sha256(Path(one) / "adapter_model.safetensors") for one in [*amateurs, control] if one}
    store = Records(
        args.out, {"weights": weights, "data": file_sha256(args.data), "seed": args.seed, "fewer": args.fewer}
    )
    keys = {question.text: content_key(question.text, weights) for question in asked}
    views = Views(model, tokenizer, amateurs, control, fewer=args.fewer)
    with views as session:
        reader = ChoiceViews(model, session, tokens, views.contrasts)
        for question in tqdm(asked, mininterval=5):
            if keys[question.text] not in store.done:
                store.append([{"key": keys[question.text], "choices": reader.question(question, both)}])
    records = [store.done[keys[question.text]]["choices"] for question in asked]
    decoders = {
        "ICD, seed 0": lambda: tk.ICD(model, tokenizer, amateur=amateurs[0], beta=0.0),
        "LOL, seed 0": lambda: tk.LOL(model, tokenizer, amateur=amateurs[0], beta=0.0),
        PROMPT: lambda: tk.ICD(model, tokenizer, amateur="prompt", beta=0.0),
    }
    decoders = {name: decoder for name, decoder in decoders.items() if name in records[0][0]}
    worst = disagreement(decoders, model, tokens, asked[0], records[0])
    results: dict[str, Any] = {"questions": len(asked), "seed": args.seed, "disagreement": worst, "forms": {}}
    console = Output()
    for form in FORMS:
        results["forms"][form] = rows = _rows(asked, records, FORMS.index(form), args.seed)
        console.print(_table(rows, f"{len(asked)} questions of TruthfulQA, {form} scores"))
    write_atomically(args.out / "summary.json", json.loads(json.dumps(results, default=float)))
    console.print(f"largest difference from the decoders' own scores: {worst:.1e}", markup=False)


def _rows(
    asked: Sequence[truthfulqa.Question], records: list[list[dict[str, list[float]]]], form: int, seed: int
) -> dict[str, Any]:
    """Of each method its three metrics and what they are more than the model's."""
    totals: dict[str, Any] = {}
    for name in records[0][0]:
        metrics = [
            truthfulqa.choice_metrics(question, [choice[name][form] for choice in choices], protocol=PROTOCOL)
            for question, choices in zip(asked, records, strict=True)
        ]
        totals[name] = np.asarray([[1.0, *(found[metric] for metric in truthfulqa.METRICS)] for found in metrics])
    rows = {}
    for name, found in totals.items():
        change = paired_bootstrap(totals[BASE], found, means, seed=seed)
        gained, lost, p, _ = mcnemar(totals[BASE][:, 1] == 1, found[:, 1] == 1)
        rows[name] = {
            "metrics": means(found.sum(axis=0)),
            "intervals": mean_score(found, truthfulqa.METRICS, range(len(asked)), [], {}).intervals(seed=seed),
            "over the model": {metric: value._asdict() for metric, value in change.items()},
            "mcnemar": {"gained": gained, "lost": lost, "p": p},
        }
    return rows


def _table(rows: dict[str, Any], title: str) -> Table:
    shown = Table(title=Text(title), title_justify="left", caption=Text("%, with 95 % intervals over questions"))
    for column in ("", *(metric.upper() for metric in truthfulqa.METRICS), "MC1 over the model", "MC2 over the model"):
        shown.add_column(column, justify="right" if column else "left")
    for name, row in rows.items():
        cells = [interval(row["metrics"][metric], row["intervals"][metric]) for metric in truthfulqa.METRICS]
        for metric in ("mc1", "mc2") if name != BASE else ():
            change = row["over the model"][metric]
            cells.append(interval(change["value"], (change["low"], change["high"]), sign="+"))
        shown.add_row(name, *cells)
    return shown


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    main()
