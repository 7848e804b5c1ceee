"""What REFLEX's runs come to: one table over all seeds, with intervals, paired tests and controls; and plots."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from truthkit.evaluation.tasks.factcheck import FACTCHECK
from truthkit.evaluation.tasks.factcheck.scorer import averaged, confusion, control, mentions_agree, paired_tests, score
from truthkit.factcheck.claims import LABELS_2
from truthkit.factcheck.verdicts import as_verdicts
from truthkit.files.writing import strict
from truthkit.statistics.score import Score

ROWS = {
    "majority": "control: the most frequent training label",
    "prior": "control: labels drawn with the training shares",
    "zero_shot": "backbone, zero-shot",
    "zero_shot_even": "backbone, labels evened out",
    "sft_verdict": "SFT: verdict",
    "sft": "SFT: verdict and explanation",
    "sft_even": "  + labels evened out to the prior (control)",
    "truth": "  + single truth direction (ITI/CAA-like)",
    "style": "  + style",
    "substance": "  + substance",
    "both": "  + both",
    "random": "  + random directions, chosen as the others (control)",
    "refined": "  + self-refined on Q2 and Q4",
    "refined_random": "  + trained on as many random claims (control)",
    "verdict_guided": "SFT: verdict, guided by the vectors of the explained one",
}


FEW = 100
"""Test claims: with fewer, an interval of macro-F1 spans a fifth of the scale and more."""

PAPER = {"L-Defense": (61.2, 30.5), "FactLLaMA": (55.7, 30.4), "HiSS": (53.9, 37.5), "REFLEX": (65.0, 50.6)}
"""Macro-F1 on RAW-FC and LIAR-RAW in three labels, as published (2511.20233)."""


def _score(run: dict[str, Any], scores: list[list[float]]) -> Score:
    labels = run["labels"]
    shares = [verdict.probabilities for verdict in as_verdicts(torch.tensor(scores, dtype=torch.float64), labels)]
    ids = [claim["id"] for claim in run["test"]]
    return score([claim["label"] for claim in run["test"]], shares, labels, ids=ids)


def _control(run: dict[str, Any], kind: str) -> Score:
    shares = control(run["train_labels"], len(run["test"]), run["labels"], kind=kind, seed=run["seed"])
    ids = [claim["id"] for claim in run["test"]]
    return score([claim["label"] for claim in run["test"]], shares, run["labels"], ids=ids)


def summarised(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of all seeds: macro-F1 and its kin are means over them, their intervals are over claims."""
    rows: dict[str, Score] = {}
    for name in ROWS:
        of = [_control(r, name) if name in ("majority", "prior") else _score(r, r["scores"][name]) for r in runs]
        rows[name] = of[0] if len(runs) == 1 else averaged(of)
    table = []
    for name, scored in rows.items():
        interval = scored.intervals(resamples=2000)["macro_f1"]
        entry: dict[str, Any] = {
            "name": name,
            "what": ROWS[name].strip(),
            "metrics": {key: round(value, 4) for key, value in scored.metrics.items()},
            "macro_f1_interval": [round(end, 4) for end in interval],
        }
        base = "sft_verdict" if name == "verdict_guided" else "sft"
        if name != base:
            entry["against"] = base
            against = paired_tests(rows[base], scored, resamples=2000).as_dict()
            entry["difference"] = against["differences"]["macro_f1"]
            entry["mcnemar"] = against["mcnemar"]
        if len(runs) == 1:
            entry["confusion"] = confusion(scored)
        table.append(entry)
    refined = paired_tests(rows["refined_random"], rows["refined"], resamples=2000).differences["macro_f1"]
    return {
        "units": FACTCHECK.units(table[0]["metrics"]),
        "metrics": {entry["name"]: entry["metrics"] for entry in table},
        "table": table,
        "refined_against_random": refined._asdict(),
        "seeds": [run["seed"] for run in runs],
        "test_claims": len(runs[0]["test"]),
        "quadrants": [run["quadrants"] for run in runs],
        "quadrants_by_label": [run["by_label"] for run in runs],
        "refined_claims": [run["refined_claims"] for run in runs],
        "chosen": [run["chosen"] for run in runs],
        "vectors": [run["vectors"] for run in runs],
        "explanations": [_explanations(run) for run in runs],
        "transfer": [_transfer(run["transfer"]) for run in runs if run["transfer"]],
    }


def _explanations(run: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, rows in run["explanations"].items():
        for form in ("explanation", "cleaned"):
            said, verdicts = [row[form] for row in rows], [row["verdict"] for row in rows]
            common: dict[str, Any] = {"explanations": said, "references": [row["reference"] for row in rows]}
            given = ([row["label"] for row in rows], [row["probabilities"] for row in rows], run["labels"])
            by_words = mentions_agree(verdicts, said, run["labels"])
            by_model = [
                None if row[f"{form}_implies"] is None else row[f"{form}_implies"] == row["verdict"] for row in rows
            ]
            scored = score(*given, **common, consistent=by_model)
            intervals = scored.intervals(resamples=1000)
            worded = [one for one in by_words if one is not None]
            found[f"{name}, {form}"] = {
                "claims": len(rows),
                "words": round(scored.metrics["explanation_words"], 1),
                "rouge_l": round(scored.metrics["rouge_l"], 4),
                "rouge_l_interval": [round(end, 4) for end in intervals["rouge_l"]],
                "consistency_by_backbone": round(scored.metrics["consistency"], 4),
                "named_a_rating": len(worded),
                "named_the_verdict": sum(worded),
                "sentences_dropped": sum(len(row["dropped"]) for row in rows) if form == "cleaned" else 0,
            }
    return found


def _transfer(found: dict[str, Any]) -> dict[str, Any]:
    table, base = {}, None
    for name, scores in found["scores"].items():
        shares = torch.tensor(scores, dtype=torch.float64).softmax(dim=-1)[:, found["true"]].sum(dim=-1).tolist()
        scored = score(found["labels"], [{"true": one, "false": 1 - one} for one in shares], LABELS_2)
        base = base or scored
        interval = scored.intervals(resamples=2000)["macro_f1"]
        difference = paired_tests(base, scored, resamples=2000).differences["macro_f1"]
        table[name] = {
            "claims": len(shares),
            "macro_f1": round(scored.metrics["macro_f1"], 4),
            "interval": [round(end, 4) for end in interval],
            "difference": difference._asdict(),
        }
    return table


def show(console: Console, summary: dict[str, Any]) -> None:
    """The table, and lines of what it has no room for."""
    seeds = len(summary["seeds"])
    title = f"{summary['test_claims']} test claims, {seeds} seed{'s' * (seeds > 1)}"
    if summary["test_claims"] < FEW:
        title += ": too few to tell one row from another"
    paper = ", ".join(f"{name} {rawfc} / {liar}" for name, (rawfc, liar) in PAPER.items())
    caption = (
        "Shares from 0 to 1; p is the paired bootstrap's of macro-F1, not corrected for the number of rows. ECE: less "
        f"is better. PAPER in %, RAW-FC / LIAR-RAW in three labels: {paper}; steering adds up to 5.0 to fine-tuning. "
        "Other models, more data, another merge of labels: compare the order of rows, and their distance from the "
        "controls."
    )
    table = Table("", "macro-F1", "95 %", "accuracy", "ECE", "against SFT", "p", title=title, caption=caption)
    for row in summary["table"]:
        low, high = row["macro_f1_interval"]
        change = row.get("difference")
        table.add_row(
            ROWS[row["name"]],
            f"{row['metrics']['macro_f1']:.3f}",
            f"{low:.3f}–{high:.3f}",
            f"{row['metrics']['accuracy']:.3f}",
            f"{row['metrics']['ece']:.3f}",
            f"{change['value']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}]" if change else "",
            f"{change['p']:.3f}" if change else "",
        )
    console.print(table)
    gain = summary["refined_against_random"]
    console.print(
        f"self-refined on {summary['refined_claims']} claims, against as many random ones: {gain['value']:+.3f} "
        f"[{gain['low']:+.3f}, {gain['high']:+.3f}], p {gain['p']:.3f}",
        markup=False,
    )
    for found in summary["explanations"]:
        for name, row in found.items():
            console.print(f"explanations, {name}: {json.dumps(strict(row))}", markup=False)
    for found in summary["transfer"]:
        for name, row in found.items():
            console.print(f"other data, {name}: {json.dumps(strict(row))}", markup=False)


def plot(out: Path, runs: list[dict[str, Any]]) -> None:
    """Gains by layer, quadrants by gold label, and states along style and substance; a panel for each seed."""
    with _panels(out / "gains.png", runs, 3.5) as panels:
        for axes, run in panels:
            for name, gains in run["gains"].items():
                layers = sorted(gains["by_layer"], key=int)
                means = [gains["by_layer"][layer][1] for layer in layers]
                errors = [gains["by_layer"][layer][2] for layer in layers]
                at = list(map(int, layers))
                dashes = "--" if name == "substance" else "-"  # it may lie on the style
                axes.plot(at, means, dashes, marker="o", markersize=3, label=name.replace("_", " "))
                low, high = ([m + sign * e for m, e in zip(means, errors, strict=True)] for sign in (-1, 1))
                axes.fill_between(at, low, high, alpha=0.15, linewidth=0)
            axes.axhline(0, color="grey", linestyle=":", linewidth=1)
            axes.set(xlabel="layer (decoder block)", ylabel="held-out gain in P(gold), best strength")
    with _panels(out / "quadrants.png", runs, 3.5) as panels:
        for axes, run in panels:
            names, bottom = list(run["quadrants"]), [0] * 4
            for label in run["labels"]:
                counts = [run["by_label"].get(name, {}).get(label, 0) for name in names]
                axes.bar(names, counts, bottom=bottom, label=label)
                bottom = [a + b for a, b in zip(bottom, counts, strict=True)]
            axes.set(ylabel="training claims, by gold label")
    with _panels(out / "projections.png", runs, 4, share=False) as panels:
        for axes, run in panels:
            shown = run["projections"]
            for name in ("Q1", "Q2", "Q3", "Q4"):
                dots = [xy for xy, of in zip(shown["along"], shown["quadrants"], strict=True) if of == name]
                axes.scatter([x for x, _ in dots], [y for _, y in dots], s=9, label=name, alpha=0.7)
            axes.set(xlabel=f"along style, layer {shown['layer']}", ylabel="along substance")


@contextmanager
def _panels(path: Path, runs: list[dict[str, Any]], height: float, *, share: bool = True) -> Iterator[Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1 + 4 * len(runs), height), layout="constrained")
    panels = list(zip(figure.subplots(1, len(runs), sharey=share, squeeze=False)[0], runs, strict=True))
    yield panels
    for axes, run in panels:
        axes.set_title(f"seed {run['seed']}")
        if share:
            axes.label_outer()
    panels[-1][0].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=150)
