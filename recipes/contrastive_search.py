r"""Contrastive search beside greedy search, beams and sampling, as in *Contrastive Search Is What You Need*.

    python recipes/contrastive_search.py --out runs/contrastive           # 40 texts; about 20 minutes on one core
    python recipes/contrastive_search.py --out runs/quick --quick         # a sketch of it in two minutes
    python recipes/contrastive_search.py --out runs/gpt2 --model openai-community/gpt2-large --texts webtext.jsonl

Every method continues the same beginnings of texts, to the same length: repetition grows with length, so the end token
is held back. Three measures, as in the paper (arXiv 2210.14140): rep-n, the share of n-grams that were there before;
diversity, the product of 1 - rep-n for n = 2, 3, 4; coherence, the mean log-probability of the continuation's tokens
under a scoring model. The paper scores with OPT; here it is the model itself unless --scorer names another, and a
model likes its own most probable words best: greedy search and beams win that column by construction. MAUVE, the
paper's fourth measure, needs hundreds of texts: `truthkit eval open-ended` computes it where mauve-text is installed.

The text's own continuation is the row to come close to. Neither a high diversity nor a high coherence is good by
itself: random words have the one, "the the the" the other.

Then the isotropy of the model's token states, layer by layer. Contrastive search tells tokens apart by these states;
the paper's point is that those of most models are isotropic enough, GPT-2 small and medium being the exceptions.

Everything is drawn by each text's own seed. A run that was stopped goes on where it was; with a larger --limit it goes
on to more texts.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from rich.text import Text
from tqdm import tqdm
from transformers import TopKLogitsWarper, TypicalLogitsWarper

import truthkit as tk
from truthkit.activations.isotropy import plot_isotropy
from truthkit.activations.passages import PASSAGES
from truthkit.evaluation.running.records import Records
from truthkit.evaluation.running.sampling import SeededSampling
from truthkit.evaluation.tasks.open_ended import OPEN_ENDED
from truthkit.evaluation.tasks.open_ended import scorer as open_ended
from truthkit.figures import new_figure, save_figure
from truthkit.files.reading import read_records, read_text
from truthkit.files.writing import content_key, write_atomically
from truthkit.likelihood.log_probabilities import log_probabilities
from truthkit.likelihood.scoring_model import ScoringModel
from truthkit.output import Output
from truthkit.printable import printable
from truthkit.statistics.interval_plot import draw_intervals
from truthkit.statistics.intervals import paired_bootstrap
from truthkit.statistics.score import Score
from truthkit.text.tokens import text_tokenizer

SHARED = Path(os.environ.get("TRUTHKIT_SHARED") or Path(__file__).resolve().parents[2] / "shared") / "data"
NEWS = SHARED / "factor" / "news_factor.csv"

OWN = "the text's own"

PAPER = {"greedy": (5.38, -0.58), "nucleus": (93.61, -2.88), "contrastive search": (92.54, -1.52)}
"""Diversity in percent and coherence under OPT, of GPT-2-large on WebText (arXiv 2210.14140)."""

PAPER_ISOTROPY = {"GPT-2": 0.10, "GPT-2-medium": 0.25, "GPT-2-large": 0.70, "GPT-2-xl": 0.72}
"""After the final norm (arXiv 2210.14140)."""


@dataclass(frozen=True)
class Method:
    """A way to continue a text.

    Attributes:
        name: in tables; a key of `PAPER` where the paper has it.
        label: with its settings.
        options: of `generate`.
        sampling: from seeds to logits processors; the last one draws.
        contrastive: top_k and penalty_alpha of contrastive search.
    """

    name: str
    label: str
    options: tuple[tuple[str, Any], ...] = ()
    sampling: Callable[[list[int]], list[Any]] = lambda _seeds: []
    contrastive: tuple[int, float] | None = None


def methods(top_k: int, alpha: float) -> list[Method]:
    """The paper's methods with its settings, and typical sampling."""
    return [
        Method("greedy", "greedy"),
        Method("beam", "beam search, 4", (("num_beams", 4),)),
        Method("top-k", "top-k, k 50", sampling=lambda seeds: [TopKLogitsWarper(50), SeededSampling(seeds)]),
        Method("nucleus", "nucleus, p 0.95", sampling=lambda seeds: [SeededSampling(seeds, top_p=0.95)]),
        Method("typical", "typical, τ 0.95", sampling=lambda seeds: [TypicalLogitsWarper(0.95), SeededSampling(seeds)]),
        Method("contrastive search", f"contrastive, k {top_k} α {alpha:g}", contrastive=(top_k, alpha)),
    ]


def read(path: Path | None) -> list[str]:
    """Texts of a FACTOR table, of JSON lines with "text", or of lines; by default FACTOR's news, or else `PASSAGES`."""
    path = path or (NEWS if NEWS.exists() else None)
    if path is None:
        return list(PASSAGES)
    if path.suffix == ".csv":
        rows = csv.DictReader(io.StringIO(read_text(path), newline=""))
        if "full_prefix" not in (rows.fieldnames or ()):
            raise tk.ArgumentError(f"{path} has no column full_prefix; expected one of FACTOR's files.")
        texts = [row["full_prefix"] for row in rows]
    elif path.suffix == ".jsonl":
        texts = [record.text("text") for record in read_records(path)]
    else:
        texts = read_text(path).splitlines()
    return list(dict.fromkeys(text.strip() for text in texts if text.strip()))


class Run:
    """Continuations of some texts and their scores, each made once and kept in `store`."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.model, processor = tk.load(args.model, dtype=args.dtype, device_map=args.device_map)
        self.tokenizer = text_tokenizer(processor, "a text")
        length = args.prompt_tokens + args.new_tokens
        encoded = [self.tokenizer(text, truncation=True, max_length=length).input_ids for text in read(args.texts)]
        self.texts = [ids for ids in encoded if len(ids) == length][: args.limit]
        if not self.texts:
            raise tk.ArgumentError(
                f"none of the {len(encoded)} texts has {length} tokens; lower --prompt-tokens or --new-tokens, or give "
                "longer --texts."
            )
        names = ("model", "dtype", "prompt_tokens", "new_tokens", "scorer", "seed")
        self.store = Records(args.out, {name: getattr(args, name) for name in names})

    def continuations(self, method: Method) -> list[list[int]]:
        """Of every text's beginning by `method`."""

        def make(texts: list[list[int]], keys: list[str]) -> list[list[int]]:
            prompts = torch.tensor([ids[: self.args.prompt_tokens] for ids in texts], device=self.model.device)
            options: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
            options |= dict(method.options)
            count, seeds = self.args.new_tokens, [int(key, 16) >> 1 for key in keys]
            decoder: Any = nullcontext()
            if method.contrastive:
                top_k, alpha = method.contrastive
                decoder = tk.ContrastiveSearch(self.model, self.tokenizer, penalty_alpha=alpha, top_k=top_k)
            with decoder:
                output = self.model.generate(
                    prompts,
                    attention_mask=torch.ones_like(prompts),
                    max_new_tokens=count,
                    min_new_tokens=count,
                    pad_token_id=self.tokenizer.pad_token_id or 0,
                    logits_processor=method.sampling(seeds),
                    **options,
                )
            return output[:, prompts.shape[1] :].tolist()

        return self._each(self.texts, ("continuation", method.label, self.args.seed), make, method.label)

    def coherence(self, continuations: list[list[int]], scorer: ScoringModel | None, label: str) -> list[float]:
        """Mean log-probability of each continuation's tokens behind its prompt, under the model itself for None."""
        cut = self.args.prompt_tokens
        rows = [text[:cut] + more for text, more in zip(self.texts, continuations, strict=True)]

        def make(some: list[list[int]], _keys: list[str]) -> list[float]:
            if scorer is None:
                return [one / (len(some[0]) - cut) for one in log_probabilities(self.model, some, [cut] * len(some))]
            prompts = self.tokenizer.batch_decode([ids[:cut] for ids in some])
            wholes = zip(prompts, self.tokenizer.batch_decode(some), strict=True)
            found = scorer.log_probs(prompts, [whole.removeprefix(prompt) for prompt, whole in wholes])
            return [total / max(1, tokens) for total, tokens in found]

        return self._each(rows, ("coherence",), make, f"{label}: coherence")

    def _each(self, inputs: list[list[int]], about: tuple[Any, ...], make: Any, title: str) -> list[Any]:
        """`make` of every input, in batches, from the store where it is there."""
        keys = [content_key(*about, ids) for ids in inputs]
        todo = [i for i, key in enumerate(keys) if key not in self.store.done]
        size = self.args.batch_size
        with tqdm(total=len(keys), initial=len(keys) - len(todo), desc=title, unit="text") as bar:
            for start in range(0, len(todo), size):
                some = todo[start : start + size]
                made = make([inputs[i] for i in some], [keys[i] for i in some])
                self.store.append([{"key": keys[i], "value": value} for i, value in zip(some, made, strict=True)])
                bar.update(len(some))
        return [self.store.done[key]["value"] for key in keys]


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    args = _parser().parse_args(argv)
    if args.quick:
        args.limit, args.new_tokens = min(args.limit, 6), min(args.new_tokens, 32)
    torch.set_num_threads(args.threads)
    console = Output(width=None if sys.stdout.isatty() else 132)
    try:
        run = Run(args)
        scorer = ScoringModel(args.scorer) if args.scorer else None
        compared = methods(args.top_k, args.alpha)
        texts = {method.label: run.continuations(method) for method in compared}
        texts[OWN] = [ids[args.prompt_tokens :] for ids in run.texts]
        scores = {label: scored(run, label, found, scorer) for label, found in texts.items()}
        states = tk.isotropy(
            run.model,
            run.tokenizer,
            [run.tokenizer.decode(ids) for ids in run.texts],
            max_tokens=args.prompt_tokens + args.new_tokens,
            progress=True,
        )
    except tk.TruthkitError as error:
        console.print(f"contrastive_search: {error}", style="red", markup=False)
        return 2
    name = args.model or "the bundled SmolLM2-135M-Instruct"
    rows = {method.label: row(scores, method.label, method.name) for method in compared} | {OWN: row(scores, OWN, "")}
    shown = {name: states.metrics, "intervals": states.intervals(), "paper": PAPER_ISOTROPY}
    units = OPEN_ENDED.units(rows[OWN]["metrics"])
    summary = {"texts": len(run.texts), "units": units, "methods": rows, "isotropy": shown, "config": vars(args)}
    write_atomically(args.out / "summary.json", json.loads(json.dumps(summary, default=str)))
    show_texts(console, run, texts)
    console.print(table(rows, name, len(run.texts), args), "")
    console.print(
        f"isotropy of {name}, after the final norm: {interval(states.metrics['final'], states.intervals()['final'], 2)}"
        f"; least in a layer {min(states.metrics.values()):.2f}. The paper's, on other texts: "
        + ", ".join(f"{model} {value:.2f}" for model, value in PAPER_ISOTROPY.items()),
        markup=False,
    )
    if find_spec("matplotlib") is None:
        console.print("no plots: they need matplotlib (pip install 'truthkit[plots]')", markup=False)
    else:
        plot_isotropy({name: states}, args.out / "isotropy.png")
        plot(rows, args.out / "measures.png", name)
    console.print(f"{args.out}: summary.json, records, and plots", markup=False)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for records, figures and plots")
    add("--quick", action="store_true", help="6 texts, 32 new tokens")
    add("--model", help="hub id or folder (default: the bundled model)")
    add("--dtype", default="float32")
    add("--device-map", help="auto: on a GPU, or spread over several")
    add("--texts", type=Path, help="FACTOR's .csv, .jsonl with text, or .txt (default: FACTOR's news, or our passages)")
    add("--limit", type=int, default=40, help="so many texts (default: %(default)s)")
    add("--prompt-tokens", type=int, default=32, help="that a continuation starts from (default: %(default)s)")
    add("--new-tokens", type=int, default=128, help="of a continuation (default: %(default)s)")
    add("--top-k", type=int, default=5, help="candidates of contrastive search (default: %(default)s, the paper's)")
    add("--alpha", type=float, default=0.6, help="its penalty (default: %(default)s, the paper's)")
    add("--scorer", help="hub id or folder of the model for coherence (default: the same model)")
    add("--batch-size", type=int, default=8)
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "2")))
    return parser


def scored(run: Run, label: str, found: list[list[int]], scorer: ScoringModel | None) -> Score:
    """Repetition, diversity and coherence."""
    texts = run.tokenizer.batch_decode(found, skip_special_tokens=True)
    return open_ended.score(texts, log_probs=run.coherence(found, scorer, label))


def row(scores: dict[str, Score], label: str, name: str) -> dict[str, Any]:
    """A method's figures, intervals, differences from greedy search, and the paper's figures."""
    before, after = scores["greedy"], scores[label]
    made: dict[str, Any] = {"metrics": after.metrics, "intervals": after.intervals()}
    if label != "greedy":
        made["against_greedy"] = paired_bootstrap(before.counts, after.counts, after.measure)
    if name in PAPER:
        made["paper"] = dict(zip(("diversity", "coherence"), PAPER[name], strict=True))
    return made


def interval(value: float, ends: tuple[float, float], digits: int) -> str:
    """A figure with its interval."""
    return f"{value:.{digits}f} [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"


def table(rows: dict[str, dict[str, Any]], name: str, texts: int, args: argparse.Namespace) -> Table:
    """Ours, and the paper's beside it."""
    title = (
        f"{name}: {texts} texts, {args.prompt_tokens} tokens continued by {args.new_tokens}; 95 % intervals over texts"
    )
    caption = (
        "diversity and rep-n in %; p: paired bootstrap against greedy's diversity. Coherence is under "
        f"{args.scorer or 'the model itself'}. PAPER: GPT-2-large on WebText, coherence under OPT: another model, "
        "other texts, so compare the order of the rows, not the figures."
    )
    shown = Table(title=Text(title), title_justify="left", caption=Text(caption), caption_justify="left")
    for column in (
        "",
        "rep-2",
        "rep-3",
        "rep-4",
        "diversity",
        "p",
        "coherence,\nnats/token",
        "PAPER:\ndiversity",
        "PAPER:\ncoherence",
    ):
        shown.add_column(column, justify="right" if column else "left", overflow="fold")
    for label, found in rows.items():
        metrics, ends, paper = found["metrics"], found["intervals"], found.get("paper")
        change = found["against_greedy"]["diversity"] if "against_greedy" in found else None
        percent = [100 * end for end in ends["diversity"]]
        shown.add_row(
            label,
            *(f"{100 * metrics[f'rep_{n}']:.1f}" for n in open_ended.SIZES),
            interval(100 * metrics["diversity"], (percent[0], percent[1]), 1),
            f"{change.p:.2g}" if change else "",
            interval(metrics["coherence"], ends["coherence"], 2),
            *([f"{paper['diversity']:.1f}", f"{paper['coherence']:.2f}"] if paper else ["", ""]),
            end_section=label == list(rows)[-2],
        )
    return shown


def show_texts(console: Output, run: Run, texts: dict[str, list[list[int]]]) -> None:
    """The first text's continuations, to be read."""
    prompt = run.tokenizer.decode(run.texts[0][: run.args.prompt_tokens])
    console.print(Text(printable(prompt), style="bold"))
    for label, found in texts.items():
        console.print(Text(f"{label}: {printable(' '.join(run.tokenizer.decode(found[0]).split()))}"))
    console.print()


def plot(rows: dict[str, dict[str, Any]], path: Path, name: str) -> None:
    """Diversity and coherence with their intervals, side by side."""
    figure = new_figure(9, 3)
    measures = {"diversity": "diversity, share", "coherence": "coherence, nats per token"}
    for axes, (metric, label) in zip(figure.subplots(1, 2, sharey=True), measures.items(), strict=True):
        draw_intervals(
            axes,
            list(rows),
            [found["metrics"][metric] for found in rows.values()],
            [found["intervals"][metric] for found in rows.values()],
        )
        axes.set(xlabel=label)
    figure.suptitle(name, fontsize=10)
    save_figure(figure, path)


if __name__ == "__main__":
    sys.exit(main())
