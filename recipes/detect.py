r"""Detectors and the gate, measured: what `docs/benchmarks/detect.md` and `docs/methods/detection.md` report.

    python recipes/detect.py prepare --halueval qa.json --truthfulqa mc_task.json --out runs/detect
    python recipes/detect.py gate --memotrap 1-proverb-ending.csv --out runs/gate
    python recipes/detect.py plot runs/detect/qa-* --out curves.png

`prepare` writes what `truthkit eval detect` is then given: scenes with the objects that they show; of every set of
questions a half to fit a probe and a lookback lens on, and the other half to judge. `gate` holds `tk.When` against the
decoder without a gate, greedy search and a gate that opens at random in the same share of the steps: CAD on MemoTrap's
proverbs, where the view is the prompt without its instruction, by the likelihood of the two endings; M3ID on captions
of `scene-vlm`, by the objects that they invent. `plot` draws the risk and coverage of finished runs. All is seeded.
"""

from __future__ import annotations

import argparse
import ast
import random
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

import truthkit as tk
from truthkit.decoding.engine.view import ViewLogits
from truthkit.decoding.methods.when import When
from truthkit.detection.asked import Asked
from truthkit.detection.lookback import fit_lens
from truthkit.detection.reading import Reader
from truthkit.evaluation.tasks.detect.data import Question, read_questions
from truthkit.figures import new_figure, save_figure
from truthkit.files.reading import read_json, read_records
from truthkit.files.writing import content_key, write_atomically
from truthkit.likelihood.continuation import continued
from truthkit.output import Output
from truthkit.scenes import CAPTION_PROMPT, PARTNERS, Scene, caption, held_out, mentions, render, sample_scene
from truthkit.statistics.intervals import bootstrap, paired_bootstrap, ratio
from truthkit.steering.extraction.pairs import Pair
from truthkit.text.encode import encode_prompts
from truthkit.text.tokens import padded

_SIDE = 64
_THRESHOLDS = (0.5, 1.0, 2.0, 3.0)
_ROWS = 16


# -- prepare -----------------------------------------------------------------------------------------------------------


def prepare(args: argparse.Namespace) -> None:
    """Write scenes, halves of the data, probes and lenses."""
    args.out.mkdir(parents=True, exist_ok=True)
    write_scenes(args.out / "scenes", args.scenes, args.seed)
    model, processor = tk.load("scene-vlm")
    _probe_of_scenes(model, processor, args.seed).save(args.out / "scenes-probe.safetensors")
    model, processor = tk.load(args.model)
    for name, path in (("halueval", args.halueval), ("truthfulqa", args.truthfulqa)):
        if path is None:
            continue
        _, questions = read_questions(path)
        fit = [one for one in questions if _in_half(one, args.seed)]
        judged = [one for one in questions if not _in_half(one, args.seed)]
        lines = [
            {"prompt": one.prompt, "answer": said, "false": false}
            for one in judged
            for said, false in zip(one.answers, one.false, strict=True)
        ]
        write_atomically(args.out / f"{name}.jsonl", lines, lines=True)
        vector = tk.extract(model, processor, _pairs(fit), method="logistic", positions="answer", seed=args.seed)
        vector.save(args.out / f"{name}-probe.safetensors")
        asked = [Asked(one.prompt, said) for one in fit for said in one.answers]
        false = [one for question in fit for one in question.false]
        groups = [question.prompt for question in fit for _ in question.answers]
        lens = fit_lens(Reader(model, processor), asked, false, groups, seed=args.seed)
        lens.save(args.out / f"{name}-lens.safetensors")
        best = vector.scores[vector.best_layer()]
        Output().print(
            f"{name}: fitted on {len(fit)} questions, {len(judged)} to judge; probe of layer {vector.best_layer()}, "
            f"held-out AUC {best['auc']:.3f}; lens, held-out AUC {lens.provenance['held_out_auroc']:.3f}"
        )


def write_scenes(folder: Path, count: int, seed: int) -> None:
    """Pictures of scenes, and `scenes.jsonl` with what each shows."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, scene in enumerate(held_out(count, seed)):
        render(scene, _SIDE).save(folder / f"{number:04}.png")
        lines.append({"image": f"{number:04}.png", "prompt": CAPTION_PROMPT, "objects": list(scene.names)})
    write_atomically(folder / "scenes.jsonl", lines, lines=True)


def _in_half(question: Question, seed: int) -> bool:
    """Whether a question is one to fit on: by its text, so that its copies are too."""
    return int(content_key(question.prompt, seed), 16) % 2 == 0


def _pairs(questions: Sequence[Question]) -> list[Pair]:
    """Right answers against false ones, as many pairs of a question as it has of the fewer kind."""
    pairs = []
    for one in questions:
        right, wrong = ([a for a, f in zip(one.answers, one.false, strict=True) if f is kind] for kind in (False, True))
        prompt = [{"role": "user", "content": one.prompt}]
        pairs += [Pair(a, b, prompt, one.prompt) for a, b in zip(right, wrong, strict=False)]
    return pairs


def _probe_of_scenes(model: Any, processor: Any, seed: int) -> tk.SteeringVector:
    """A probe of captions that name what is there, against the same with one object's usual partner in its place."""
    rng, pairs = random.Random(f"probe {seed}"), list[Pair]()
    while len(pairs) < 300:
        scene = sample_scene(rng, bias=0.5)
        said = caption(scene, rng)
        named = [name for name in mentions(said) if name in PARTNERS and PARTNERS[name] not in scene.names]
        if not named:
            continue
        name = rng.choice(named)
        changed = said.replace(f"a {name}", f"a {PARTNERS[name]}").replace(f"an {name}", f"a {PARTNERS[name]}")
        picture = {"type": "image", "image": render(scene, _SIDE)}
        prompt = [{"role": "user", "content": [picture, {"type": "text", "text": CAPTION_PROMPT}]}]
        pairs.append(Pair(said, changed, prompt, str(len(pairs))))
    return tk.extract(model, processor, pairs, method="logistic", positions="answer", seed=seed)


# -- gate --------------------------------------------------------------------------------------------------------------


def gate(args: argparse.Namespace) -> None:
    """Measure both gates, and write what was found."""
    found: dict[str, Any] = {"seed": args.seed}
    if args.memotrap is not None:
        found["memotrap"] = memotrap(args.memotrap, args.limit, args.seed)
        _show("CAD on MemoTrap's proverbs", found["memotrap"], "accuracy")
    found["scenes"] = captions(args.scenes, args.seed)
    _show("M3ID on captions of scene-vlm", found["scenes"], "invented")
    args.out.mkdir(parents=True, exist_ok=True)
    write_atomically(args.out / "gate.json", found)


def memotrap(path: Path, limit: int | None, seed: int) -> list[dict[str, Any]]:
    """Which of two endings is likelier, under CAD whose view lacks the instruction: gated, not, and at random."""
    model, tokenizer = tk.load()
    records = [record.fields for record in read_records(path)]
    records = sorted(records, key=lambda one: content_key(one["prompt"], seed))[:limit]
    contexts = [one["prompt"][: one["prompt"].index('": ') + 3] for one in records]
    decoders: dict[str, Callable[[Any, str], Any]] = {
        "greedy": lambda model, _context: tk.APC(model, beta=0.0),
        "cad": lambda model, context: tk.CAD(model, tokenizer, context=context, alpha=1.0),
    }

    def gated(detector: Any, threshold: float) -> Callable[[Any, str], Any]:
        return lambda model, context: When(
            model, decoder=decoders["cad"](model, context), detector=detector, threshold=threshold, seed=seed, skip=True
        )

    seen = _endings(model, tokenizer, records, contexts)
    table, greedy = [], None
    for name, decoder, share in _arms(decoders, "cad", gated, lambda make: _share(make, model, contexts[0], seen)):
        built = decoder(model, contexts[0])
        right = np.array([_prefers(built, views) for views in seen], float)
        greedy = right if greedy is None else greedy
        table.append(_means(name, share, "accuracy", right, greedy))
    return _timed(table, decoders, gated, model, tokenizer, records[:8], contexts, seed)


def _endings(
    model: Any, tokenizer: Any, records: Sequence[dict[str, Any]], contexts: Sequence[str]
) -> list[dict[str, Any]]:
    """What both views say before every token of both endings of each prompt; read once for all decoders."""
    rows = [
        (continued(tokenizer, one["prompt"], ending), context, number)
        for number, (one, context) in enumerate(zip(records, contexts, strict=True))
        for ending in ast.literal_eval(one["classes"])
    ]
    seen: list[dict[str, Any]] = [{"endings": [], "label": int(one["answer_index"])} for one in records]
    for at in range(0, len(rows), _ROWS):
        some = rows[at : at + _ROWS]
        ids, mask = padded([row for (row, _), _, _ in some])
        keep = max(len(row) - start for (row, start), _, _ in some) + 1
        kept: list[ViewLogits] = []
        session: Any
        with tk.CAD(model, tokenizer, context=[context for _, context, _ in some]) as session, torch.no_grad():
            session.observers.append(lambda views, _combined, kept=kept: kept.extend(views))
            places = (mask.cumsum(dim=1) - 1).clamp_min(0)
            model(input_ids=ids, attention_mask=mask, position_ids=places, use_cache=False, logits_to_keep=keep)
        for number, ((row, start), _, of) in enumerate(some):
            own = slice(start - len(row) - 1, -1)  # each token is chosen from the logits before it
            views = [ViewLogits(one.logits[number : number + 1, own].clone()) for one in kept]
            seen[of]["endings"].append((views, torch.tensor(row[start:])))
    return seen


def _prefers(decoder: Any, seen: dict[str, Any]) -> bool:
    scores = []
    for views, tokens in seen["endings"]:
        given = views if len(decoder.views) > 1 else views[:1]
        log_probs = decoder.combine(*given)[0].log_softmax(dim=-1)
        scores.append(float(log_probs.gather(1, tokens[:, None]).sum()))
    return scores[seen["label"]] > scores[1 - seen["label"]]


def _share(make: Any, model: Any, context: str, seen: Sequence[dict[str, Any]]) -> float:
    """In which share of the endings' steps a gate fires."""
    decoder = make(model, context)
    fired = [decoder.fires(*views)[0] for one in seen for views, _ in one["endings"]]
    return float(torch.cat(fired).double().mean())


def _arms(decoders: dict[str, Any], inner: str, gated: Any, share: Any) -> list[tuple[str, Any, float]]:
    """Greedy, the decoder, its gates, and for each one a gate at random that fires as often."""
    arms = [("greedy", decoders["greedy"], 0.0), (inner, decoders[inner], 1.0)]
    for threshold in _THRESHOLDS:
        opened = share(gated("entropy", threshold))
        arms.append((f"when entropy > {threshold:g}", gated("entropy", threshold), opened))
        at_random = gated("random", 1.0 - opened)
        arms.append((f"when random, {opened:.2f}", at_random, share(at_random)))
    return arms


def _means(name: str, share: float, metric: str, values: Any, greedy: Any) -> dict[str, Any]:
    """A mean with its interval, and its paired difference from greedy search."""
    counts = np.stack([np.ones(len(values)), values], axis=1)

    def measure(totals: Any) -> dict[str, Any]:
        return {metric: ratio(totals[..., 1], totals[..., 0])}

    before = np.stack([np.ones(len(values)), greedy], axis=1)
    change = paired_bootstrap(before, counts, measure)[metric]
    return {
        "name": name,
        "share": share,
        "n": len(values),
        metric: float(values.mean()),
        "interval": list(bootstrap(counts, measure)[metric]),
        "difference": [change.value, change.low, change.high],
    }


def _timed(
    table: list[dict[str, Any]],
    decoders: dict[str, Any],
    gated: Any,
    model: Any,
    tokenizer: Any,
    records: Sequence[dict[str, Any]],
    contexts: Sequence[str],
    seed: int,
) -> list[dict[str, Any]]:
    """CPU seconds for each of sixteen new tokens, greedy, with views that wait and with views that don't; medians."""
    inputs = [tokenizer(one["prompt"], return_tensors="pt") for one in records]

    def seconds(make: Any) -> tuple[float, float | None]:
        times, shares = [], []
        for given, context in zip(inputs, contexts, strict=False):
            start = time.process_time()
            with make(model, context) as session:
                model.generate(**given, min_new_tokens=16, max_new_tokens=16, do_sample=False)
            times.append((time.process_time() - start) / 16)
            shares.append(session.share if session is not None else None)
        known = [one for one in shares if one is not None]
        return float(np.median(times)), float(np.mean(known)) if known else None

    def in_batch(threshold: float) -> Any:
        return lambda model, context: When(
            model, decoder=decoders["cad"](model, context), threshold=threshold, skip=False, seed=seed
        )

    makes = {"greedy": lambda _model, _context: nullcontext(), "cad": decoders["cad"]}
    makes |= {f"when entropy > {threshold:g}": gated("entropy", threshold) for threshold in _THRESHOLDS}
    for row in table:
        if row["name"] in makes:
            row["seconds"], row["share_generating"] = seconds(makes[row["name"]])
    for threshold in _THRESHOLDS:
        row = next(one for one in table if one["name"] == f"when entropy > {threshold:g}")
        row["seconds_in_batch"], _ = seconds(in_batch(threshold))
    return table


def captions(count: int, seed: int) -> list[dict[str, Any]]:
    """Captions of scenes under M3ID: gated, not, and at random: the objects that they invent, and their cost."""
    model, processor = tk.load("scene-vlm")
    scenes = held_out(count, seed)
    decoders: dict[str, Callable[[Any, str], Any]] = {
        "greedy": lambda _model, _context: nullcontext(),
        "m3id": lambda model, _context: tk.M3ID(model, processor),
    }

    def gated(detector: Any, threshold: float) -> Callable[[Any, str], Any]:
        return lambda model, _context: When(
            model, decoder=tk.M3ID(model, processor), detector=detector, threshold=threshold, seed=seed
        )

    said: dict[Any, tuple[list[str], float, float | None]] = {}

    def share(make: Any) -> float:
        said[make] = _captions(model, processor, make(model, ""), scenes)
        return float(said[make][2] or 0.0)

    arms = []
    for name, make in decoders.items():
        said[make] = _captions(model, processor, make(model, ""), scenes)
        arms.append((name, make, float(name != "greedy")))
    for threshold in (0.25, 0.5, 1.0):
        opened = share(one := gated("entropy", threshold))
        arms.append((f"when entropy > {threshold:g}", one, opened))
        opened = share(one := gated("random", 1.0 - opened))
        arms.append((f"when random, {opened:.2f}", one, opened))
    base = _objects(said[decoders["greedy"]][0], scenes)
    return [_of_captions(name, shared, said[make], scenes, base) for name, make, shared in arms]


def _captions(model: Any, processor: Any, decoder: Any, scenes: Sequence[Scene]) -> tuple[list[str], float, Any]:
    """A caption of each scene, the CPU seconds for each, and the share of its steps in which a gate fired."""
    texts: list[str] = []
    start = time.process_time()
    with decoder as session:
        for at in range(0, len(scenes), 16):
            images = [[render(scene, _SIDE)] for scene in scenes[at : at + 16]]
            inputs = encode_prompts(processor, [CAPTION_PROMPT] * len(images), images)
            ids = model.generate(**inputs, max_new_tokens=64, do_sample=False)[:, inputs["input_ids"].shape[1] :]
            texts += processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
    seconds = (time.process_time() - start) / len(scenes)
    return texts, seconds, None if session is None else session.share


def _objects(texts: Sequence[str], scenes: Sequence[Scene]) -> Any:
    """Of every caption: objects named, invented ones, those there, and found."""
    rows = []
    for text, scene in zip(texts, scenes, strict=True):
        named, there = set(mentions(text)), set(scene.names)
        rows.append([len(named), len(named - there), len(there), len(named & there)])
    return np.array(rows, float)


def _of_captions(
    name: str, share: float, said: tuple[list[str], float, Any], scenes: Sequence[Scene], base: Any
) -> dict[str, Any]:
    def measure(totals: Any) -> dict[str, Any]:
        return {
            "invented": ratio(totals[..., 1], totals[..., 0]),
            "recall": ratio(totals[..., 3], totals[..., 2]),
        }

    rows = _objects(said[0], scenes)
    changes, intervals = paired_bootstrap(base, rows, measure), bootstrap(rows, measure)
    values = measure(rows.sum(axis=0))
    return {
        "name": name,
        "share": share,
        "n": len(scenes),
        "invented": float(values["invented"]),
        "interval": list(intervals["invented"]),
        "difference": list(changes["invented"])[:3],
        "recall": float(values["recall"]),
        "recall_difference": list(changes["recall"])[:3],
        "seconds": said[1],
    }


def _show(title: str, rows: Sequence[dict[str, Any]], metric: str) -> None:
    table = Table(title=f"{title}, n = {rows[0]['n']}", title_justify="left")
    extra = [
        name for name in ("recall", "seconds", "seconds_in_batch", "share_generating") if any(name in r for r in rows)
    ]
    for column in ("", "share", metric, "95 %", "against greedy", *extra):
        table.add_column(column, justify="right")
    for row in rows:
        low, high = row["interval"]
        value, least, most = row["difference"]
        rest = [f"{row[name]:.4f}" if row.get(name) is not None else "–" for name in extra]
        span = f"{value:+.3f} [{least:+.3f}, {most:+.3f}]"
        table.add_row(row["name"], f"{row['share']:.3f}", f"{row[metric]:.3f}", f"{low:.3f} to {high:.3f}", span, *rest)
    Output().print(table)


# -- plot --------------------------------------------------------------------------------------------------------------


def plot(args: argparse.Namespace) -> None:
    """Risk against coverage of finished runs, and of knowing nothing."""
    figure = new_figure(6, 4)
    axes = figure.subplots()
    for folder in args.runs:
        summary = read_json(folder / "summary.json")
        coverages, risks = zip(*summary["config"]["risk_coverage"], strict=True)
        axes.plot(coverages, risks, label=summary["config"]["method"].partition(":")[0])
        base = summary["metrics"]["base_rate"]
    axes.axhline(base, color="grey", linestyle=":", linewidth=1)
    axes.set(xlabel="coverage: share of answers kept, lowest scores first", ylabel="risk: share false among them")
    axes.legend(fontsize=8)
    save_figure(figure, args.out)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("prepare")
    one.add_argument("--halueval", type=Path)
    one.add_argument("--truthfulqa", type=Path)
    one.add_argument("--model")
    one.add_argument("--scenes", type=int, default=500)
    one.set_defaults(run=prepare)
    one = commands.add_parser("gate")
    one.add_argument("--memotrap", type=Path)
    one.add_argument("--limit", type=int)
    one.add_argument("--scenes", type=int, default=500)
    one.set_defaults(run=gate)
    one = commands.add_parser("plot")
    one.add_argument("runs", type=Path, nargs="+")
    one.set_defaults(run=plot)
    for command in commands.choices.values():
        command.add_argument("--out", type=Path, required=True)
        command.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    args.run(args)


if __name__ == "__main__":
    main()
