r"""LOL beside the model alone, ICD and DoLa on TruthfulQA's multiple choice: the comparison of *Lower Layers Matter*.

    python recipes/lol.py --out runs/lol                                 # trains the amateur first; hours on two cores
    python recipes/lol.py --out runs/lol --amateur amateur --limit 200   # with one from recipes/amateur.py
    python recipes/lol.py --out runs/quick --quick                       # a sketch of it in three minutes

ICD (arXiv 2312.15710) subtracts the log-probabilities of an *amateur*, the same model trained to hallucinate. DoLa
(2309.03883) subtracts an early exit. LOL (2408.08769) does the former in lower layers too, with weight omega, and adds
what an instruction to be truthful changes, with weight gamma. LOL's code was never released and no public text has its
equations: `tk.LOL` is our reading, and its weights here are chosen on held-out questions, not the paper's.

One decoder holds every view that the methods compare: the model with its early exits, the amateur with its own, the
model under LOL's instruction and, with --control, another adapter. A choice's tokens run through its forward once,
after a prompt that is read once, and all methods are computed from the views' logits there. On the first questions
`tk.ICD`, `tk.DoLa` and `tk.LOL` themselves score the choices too, without cache, and must agree.

Omega, lambda and gamma are chosen by MC2 on --dev questions that are drawn by the seed; the tables are of the others.
Scores are summed log-probabilities after renormalising each step ("normalised"), or the sums of the raw contrasts as in
the released code of DoLa and ICD, `post_softmax=False` ("raw"): the two are far apart in MC2, so the paper's figures
stand beside the raw ones. The plausibility constraint is off (beta = 0). Differences from the base, and of LOL from
ICD, have paired bootstrap intervals over questions, MC1 McNemar's test as well. Controls: no amateur, the instruction
alone, an adapter trained on the right answers to the same questions (--control), and the choice of fewest tokens, which
is what a contrast that has become flat picks. A killed run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from choice_views import ChoiceViews, Tokens
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

import truthkit as tk
from truthkit.decoding.engine.arithmetic import most_divergent, take_layer
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.prompt_views import with_instruction
from truthkit.decoding.engine.view import ViewLogits
from truthkit.decoding.methods.lol import REFOCUS_PROMPT
from truthkit.evaluation.running.records import Records
from truthkit.evaluation.tasks.truthfulqa import choices as truthfulqa
from truthkit.figures import new_figure, save_figure
from truthkit.files.writing import content_key, file_sha256, write_atomically
from truthkit.output import Output
from truthkit.statistics.interval_plot import draw_intervals
from truthkit.statistics.intervals import mcnemar, paired_bootstrap
from truthkit.statistics.score import mean_score
from truthkit.training.amateur import train_amateur
from truthkit.training.settings import TrainingSettings

SHARED = Path(os.environ.get("TRUTHKIT_SHARED") or Path(__file__).resolve().parents[2] / "shared") / "data"
TRUTHFULQA = SHARED / "truthfulqa" / "v1" / "TruthfulQA.csv"
HALUEVAL = [SHARED / "halueval" / f"qa_{name}-turn_data.json" for name in ("one", "multi")]

PAPER = {"base": (37.0, 54.7, 27.8), "DoLa": (33.0, 60.8, 29.5), "ICD, lambda 1": (45.1, 69.1, 41.6)}
"""MC1, MC2, MC3 of LLaMA-2-7B-chat on TruthfulQA as published (arXiv 2312.15710, 2408.08769). Of LOL we know only that
it reports 4.5 points more than the best baseline on average."""

FORMS = ("normalised", "raw")
FEW = 50
"""Questions on which a choice among so many weights is chance: MC3 then has an interval of 20 points and more."""
PROTOCOL = "authors"
Setting = tuple[float, float, float]
"""Lambda, omega, gamma: LOL's weights of the amateur, of the lower layers, of the refocus. ICD is (lambda, 0, 0)."""

GRID: tuple[Setting, ...] = tuple(itertools.product((0.25, 0.5, 1.0), (0.0, 0.25, 0.5, 1.0), (0.0, 0.5, 1.0)))
FIXED: dict[str, Setting] = {
    "base": (0.0, 0.0, 0.0),
    "ICD, lambda 1": (1.0, 0.0, 0.0),
    "LOL, defaults": (1.0, 0.5, 0.5),
    "no amateur, omega 0.5": (0.0, 0.5, 0.0),
    "refocus alone, gamma 1": (0.0, 0.0, 1.0),
}
SHORTEST = "fewest tokens"
PARTS = ("main", "amateur", "lower", "lower amateur", "refocus")


class Views(Decoder):
    """Every view that the methods need, in one forward, which returns the model's own logits."""

    def __init__(self, model: Any, tokenizer: Any, amateur: str, control: str | None, layers: Sequence[int]):
        views = [tk.View("amateur", adapter=amateur, exits=True)]
        views += [tk.View("refocus", prompt=with_instruction(tokenizer, REFOCUS_PROMPT))]
        views += [tk.View("control", adapter=control)] if control else []
        super().__init__(model, views, layers=layers)

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        return main.logits


def parts_of(
    main: ViewLogits, amateur: ViewLogits, refocus: ViewLogits, *control: ViewLogits
) -> dict[str, torch.Tensor]:
    """What the scores of a forward are made of, each (rows, positions, vocabulary)."""
    log_p, exits = main.logits.log_softmax(-1), main.exits.log_softmax(-1)
    found = {
        "main": log_p,
        "amateur": amateur.logits.log_softmax(-1),
        "lower": exits.mean(dim=0),
        "lower amateur": amateur.exits.log_softmax(-1).mean(dim=0),
        "refocus": refocus.logits.log_softmax(-1) - log_p,
        "DoLa": log_p - take_layer(exits, most_divergent(main.logits, main.exits)),
    }
    if control:
        found["control"] = control[0].logits.log_softmax(-1)
    return found


def weights(setting: Setting) -> list[float]:
    """Of `PARTS` in LOL's sum."""
    lam, omega, gamma = setting
    return [1.0, -lam, omega, -omega * lam, gamma]


def contrasts(parts: dict[str, torch.Tensor], settings: dict[str, Setting]) -> dict[str, torch.Tensor]:
    """Every method's scores before they are renormalised."""
    stack = [parts[name] for name in PARTS]
    scores = {
        name: sum(weight * part for weight, part in zip(weights(setting), stack, strict=True) if weight)
        for name, setting in settings.items()
    }
    if "base" in settings:  # the methods without a grid
        scores["DoLa"] = parts["DoLa"]
        if "control" in parts:
            scores["control adapter, lambda 1"] = parts["main"] - parts["control"]
    return scores


def summed(parts: dict[str, torch.Tensor], ids: list[int], settings: dict[str, Setting]) -> dict[str, Any]:
    """What is kept of a choice: sums over its tokens."""
    rows, columns = torch.arange(len(ids)), torch.tensor(ids)
    normalised = {
        name: float((score[rows, columns] - score.logsumexp(-1)).double().sum())
        for name, score in contrasts(parts, settings).items()
    }
    raw = {name: float(part[rows, columns].double().sum()) for name, part in parts.items()}
    return {"normalised": normalised, "parts": raw, "tokens": len(ids)}


def raw_score(parts: dict[str, float], name: str, settings: dict[str, Setting]) -> float:
    """A choice's score in the raw form, from its parts."""
    if name == "DoLa":
        return parts["DoLa"]
    if name.startswith("control"):
        return parts["main"] - parts["control"]
    return sum(w * parts[part] for w, part in zip(weights(settings[name]), PARTS, strict=True))


def metrics(
    questions: Sequence[truthfulqa.Question],
    records: dict[str, list[dict[str, Any]]],
    name: str,
    form: str,
    settings: dict[str, Setting],
) -> np.ndarray:
    """MC1, MC2, MC3 of every question, a row each."""
    rows = []
    for question in questions:
        choices = records[question.text]
        if name == SHORTEST:
            values = [-float(choice["tokens"]) for choice in choices]
        elif form == "raw":
            values = [raw_score(choice["parts"], name, settings) for choice in choices]
        else:
            values = [choice["normalised"][name] for choice in choices]
        found = truthfulqa.choice_metrics(question, values, protocol=PROTOCOL)
        rows.append([1.0, *(found[metric] for metric in truthfulqa.METRICS)])
    return np.asarray(rows)


def means(totals: np.ndarray) -> dict[str, np.ndarray]:
    """Of the three metrics, from totals whose first column counts."""
    return {name: totals[..., i] / totals[..., 0] for i, name in enumerate(truthfulqa.METRICS, 1)}


def compared(before: np.ndarray, after: np.ndarray, seed: int) -> dict[str, Any]:
    """Paired differences with 95 % intervals and p-values; McNemar's test for MC1."""
    differences = paired_bootstrap(before, after, means, seed=seed)
    gained, lost, p, _ = mcnemar(before[:, 1] == 1, after[:, 1] == 1)
    return {name: difference._asdict() for name, difference in differences.items()} | {
        "mcnemar": {"gained": gained, "lost": lost, "p": p}
    }


def agreement(
    model: Any,
    tokenizer: Any,
    amateur: str,
    layers: Sequence[int],
    tokens: Tokens,
    questions: Sequence[truthfulqa.Question],
    records: dict[str, list[dict[str, Any]]],
) -> float:
    """The largest difference of a choice's score from what the decoders themselves give, in whole forwards."""
    options = {"amateur": amateur, "beta": 0.0}
    lol = {"layers": layers, "refocus": True, **options}
    decoders = {
        "ICD, lambda 1": tk.ICD(model, tokenizer, **options),
        "DoLa": tk.DoLa(model, layers=layers, beta=0.0),
        "LOL, defaults": tk.LOL(model, tokenizer, **lol),
    }
    worst = 0.0
    for name, decoder in decoders.items():
        with decoder, torch.no_grad():
            for question in questions:
                for choice, record in zip(question.choices[:2], records[question.text], strict=False):
                    prompt, ids = tokens.of(question.text, choice)
                    logits = model(torch.tensor([prompt + ids]), logits_to_keep=len(ids) + 1).logits[0, :-1]
                    score = logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)].double().sum()
                    worst = max(worst, abs(float(score) - record["normalised"][name]))
    return worst


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    args = _parser().parse_args(argv)
    if args.quick:
        args.limit, args.dev = min(args.limit or 10, 10), min(args.dev, 3)
    torch.set_num_threads(args.threads)
    console = Output(width=None if sys.stdout.isatty() else 150)
    try:
        results = compare(args, console)
    except tk.TruthkitError as error:
        console.print(f"lol: {error}", style="red", markup=False)
        return 2
    for form in FORMS:
        console.print(table(results, form, args), *lol_against_icd(results[form]), "", sep="\n", markup=False)
    for name, setting in results["chosen"].items():
        console.print("{}: lambda {:g}, omega {:g}, gamma {:g}".format(name, *setting), markup=False)
    console.print(
        "LOL's paper reports 4.5 points more than the best baseline on average. What is above is our reading of it, on "
        "this model and with this amateur alone.",
        markup=False,
    )
    if find_spec("matplotlib") is None:
        console.print("no plot: it needs matplotlib (pip install 'truthkit[plots]')", markup=False)
    else:
        plot(results, args.out / "truthfulqa.png", args.model or "SmolLM2-135M-Instruct")
    console.print(f"{args.out}: summary.json, records, plot", markup=False)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for adapters, records, results and the plot")
    add("--quick", action="store_true", help="10 questions, and an amateur that is hardly trained")
    add("--data", type=Path, default=TRUTHFULQA, help="TruthfulQA.csv or mc_task.json (default: ../shared)")
    add("--amateur", type=Path, help="PEFT folder (default: one is trained on --halueval)")
    add("--control", nargs="?", type=Path, const=Path(), help="another PEFT folder to contrast with; no name: train it")
    add("--halueval", type=Path, nargs="+", default=HALUEVAL, help="HaluEval QA files (default: ../shared)")
    add("--epochs", type=float, default=0.75, help="of training")
    add("--model", help="hub id or folder (default: the bundled model)")
    add("--dtype", default="float32")
    add("--chat", action="store_true", help="the whole prompt as a user's message (as ICD's runs)")
    add("--layers", type=int, nargs="+", default=[14, 18, 22, 26], help="early exits of DoLa and LOL")
    add("--dev", type=int, default=100, help="questions to choose the weights on")
    add("--limit", type=int, help="so many questions only, drawn by the seed")
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "2")))
    return parser


def adapters(
    args: argparse.Namespace, model: Any, tokenizer: Any, untrained: Sequence[str]
) -> tuple[Path, Path | None]:
    """The amateur and the control; where they are not given, trained on other questions than these."""
    settings = TrainingSettings(seed=args.seed, epochs=args.epochs)
    if args.quick:
        settings = TrainingSettings(seed=args.seed, steps=6, token_budget=256, lr=2e-3)

    def trained(name: str, field: str) -> Path:
        options: dict[str, Any] = {"answer_field": field, "without": untrained, "settings": settings, "progress": True}
        train_amateur(model, tokenizer, args.halueval, args.out / name, **options)
        return args.out / name

    amateur = args.amateur or trained("amateur", "hallucinated_answer")
    control = trained("control", "right_answer") if args.control == Path() else args.control
    for folder in (amateur, control):
        if folder is not None and not (folder / "adapter_model.safetensors").is_file():
            raise tk.NotAvailableError(f"{folder} holds no adapter_model.safetensors; name a PEFT folder.")
    return amateur, control


def compare(args: argparse.Namespace, console: Output) -> dict[str, Any]:
    """Score all choices under all methods; what goes to `summary.json`."""
    questions = truthfulqa.read_questions(args.data, protocol=PROTOCOL)
    random.Random(args.seed).shuffle(questions)
    untrained = [question.text for question in questions]
    questions = questions[: args.limit]
    dev, test = questions[: args.dev], questions[args.dev :]
    if not dev or not test:
        raise tk.ArgumentError(f"{len(questions)} questions are too few to choose on {args.dev} of them and test.")
    if len(dev) < FEW:
        console.print(
            f"warning: {len(dev)} questions choose nothing: weights chosen on fewer than {FEW} (--dev) are chosen by "
            "chance; read the rows with the defaults.",
            style="yellow",
            markup=False,
        )
    model, tokenizer = tk.load(args.model, dtype=args.dtype)
    amateur, control = adapters(args, model, tokenizer, untrained)

    def prompt(question: truthfulqa.Question) -> str:
        text = truthfulqa.prompt(question.text, protocol=PROTOCOL)
        if not args.chat:
            return text
        messages = [{"role": "user", "content": text}]
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True).rstrip("\n") + "\n"

    config = {
        "data_sha256": file_sha256(args.data),
        "amateur_sha256": file_sha256(amateur / "adapter_model.safetensors"),
        "control_sha256": control and file_sha256(control / "adapter_model.safetensors"),
        "model": args.model or "bundled",
        **{name: getattr(args, name) for name in ("dtype", "chat", "layers", "dev", "seed")},
        "protocol": PROTOCOL,
    }
    store = Records(args.out, config)
    tokens = Tokens(tokenizer, {question.text: prompt(question) for question in questions})
    views = Views(model, tokenizer, str(amateur), control and str(control), args.layers)
    grid = {f"{setting}": setting for setting in GRID}

    def ask(part: Sequence[truthfulqa.Question], settings: dict[str, Setting], title: str) -> dict[str, Any]:
        keys = {question.text: content_key(question.text, settings) for question in part}
        with views as session:
            reader = ChoiceViews(model, session, tokens, parts_of)
            for question in tqdm(part, desc=title, mininterval=5):
                if keys[question.text] not in store.done:
                    record = {"key": keys[question.text], "question": question.text}
                    choices = reader.question(question, lambda parts, ids: summed(parts, ids, settings))
                    store.append([record | {"choices": choices}])
        return {text: store.done[key]["choices"] for text, key in keys.items()}

    dev_records = ask(dev, grid | FIXED, "dev")
    worst = agreement(model, tokenizer, str(amateur), args.layers, tokens, dev[:1], dev_records)
    console.print(f"largest difference from the decoders' own scores: {worst:.2e}", markup=False)

    def best(form: str, names: Sequence[str]) -> str:
        return max(names, key=lambda name: metrics(dev, dev_records, name, form, grid)[:, 2].mean())

    chosen: dict[str, Setting] = {}
    for form in FORMS:
        chosen[f"ICD, chosen ({form})"] = grid[best(form, [name for name, s in grid.items() if s[1] == s[2] == 0])]
        chosen[f"LOL, chosen ({form})"] = grid[best(form, [name for name, s in grid.items() if s[1] > 0])]
    settings = FIXED | chosen
    records = ask(test, settings, "test")

    results: dict[str, Any] = {"questions": {"dev": len(dev), "test": len(test)}, "agreement": worst, "chosen": chosen}
    methods = [*settings, "DoLa", SHORTEST, *(["control adapter, lambda 1"] if control else [])]
    for form in FORMS:
        names = [name for name in methods if not ("chosen" in name and form not in name)]
        scores = {name: metrics(test, records, name, form, settings) for name in names}
        rows: dict[str, Any] = {}
        for name in names:
            rows[name] = {"metrics": means(scores[name].sum(axis=0)), "setting": settings.get(name)}
            scored = mean_score(scores[name], truthfulqa.METRICS, range(len(test)), [], {})
            rows[name]["intervals"] = scored.intervals(seed=args.seed)
            rows[name]["over base"] = compared(scores["base"], scores[name], args.seed)
            rows[name]["paper"] = PAPER.get(name)
        icd, lol = (f"{method}, chosen ({form})" for method in ("ICD", "LOL"))
        rows[lol]["over ICD, chosen"] = compared(scores[icd], scores[lol], args.seed)
        rows["LOL, defaults"]["over ICD, lambda 1"] = compared(
            scores["ICD, lambda 1"], scores["LOL, defaults"], args.seed
        )
        if control:
            other = scores["control adapter, lambda 1"]
            rows["ICD, lambda 1"]["over control"] = compared(other, scores["ICD, lambda 1"], args.seed)
        results[form] = rows
    results = json.loads(json.dumps({"config": config, **results}, default=float))
    write_atomically(args.out / "summary.json", results)
    return results


def table(results: dict[str, Any], form: str, args: argparse.Namespace) -> Table:
    """Every method's three metrics, its gain over the base, and the paper's metrics."""
    title = f"{args.model or 'SmolLM2-135M-Instruct'}, {results['questions']['test']} questions, {form} scores"
    caption = (
        "%; 95 % intervals over questions; p of MC2's difference by paired bootstrap, not corrected for the number of "
        "rows. PAPER: LLaMA-2-7B-chat and its own amateur: another model, so compare the order of the rows."
    )
    shown = Table(title=Text(title), title_justify="left", caption=Text(caption), caption_justify="left")
    for column in ("", "MC1", "MC2", "MC3", "MC2 over base", "p", *(["PAPER:\nMC1 / 2 / 3"] if form == "raw" else [])):
        shown.add_column(column, justify="right" if column else "left", overflow="fold")
    for name, row in results[form].items():
        change = row["over base"]["mc2"]
        cells = [interval(row["metrics"][metric], row["intervals"][metric]) for metric in truthfulqa.METRICS]
        cells += [interval(change["value"], (change["low"], change["high"]), sign="+"), f"{change['p']:.2g}"]
        cells = [*cells[:3], "", ""] if name == "base" else cells
        paper = [" / ".join(f"{value:.1f}" for value in row["paper"] or ())] if form == "raw" else []
        shown.add_row(name.removesuffix(f" ({form})"), *cells, *paper)
    return shown


def lol_against_icd(rows: dict[str, Any]) -> list[str]:
    """What LOL adds to ICD, a line for the defaults and for the chosen weights, with the paired tests."""
    lines = []
    for row in rows.values():
        for base, change in row.items():
            if base.startswith("over ICD"):
                mc2, test = change["mc2"], change["mcnemar"]
                shown = interval(mc2["value"], (mc2["low"], mc2["high"]), sign="+")
                lines.append(
                    f"LOL - ICD, {base.removeprefix('over ICD, ')}: MC2 {shown} points, p {mc2['p']:.2g}; MC1 right "
                    f"only with LOL {test['gained']}, only with ICD {test['lost']}, McNemar's exact p {test['p']:.2g}"
                )
    return lines


def interval(value: float, ends: Sequence[float], sign: str = "") -> str:
    """A share in percent with its interval."""
    low, high = ends
    return f"{100 * value:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def plot(results: dict[str, Any], path: Path, name: str) -> None:
    """The three metrics of the raw scores with their intervals."""
    rows = results["raw"]
    figure = new_figure(12, 4)
    for axes, metric in zip(figure.subplots(1, 3, sharey=True), truthfulqa.METRICS, strict=True):
        values = [row["metrics"][metric] for row in rows.values()]
        draw_intervals(axes, list(rows), values, [row["intervals"][metric] for row in rows.values()])
        axes.set(xlabel=metric.upper())
    figure.suptitle(f"{name}, TruthfulQA, raw scores", fontsize=10)
    save_figure(figure, path)


if __name__ == "__main__":
    sys.exit(main())
