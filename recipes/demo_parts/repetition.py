"""Text that goes in circles: greedy search against contrastive search."""

from __future__ import annotations

from contextlib import nullcontext
from statistics import median
from typing import Any

from demo_parts.answering import perplexities, write
from demo_parts.screen import Part, Result, compared, mark, measured
from rich.table import Table
from rich.text import Text

import truthkit as tk
from truthkit.evaluation.tasks.open_ended import scorer
from truthkit.output import Output
from truthkit.printable import printable

PART = Part(
    "Text that goes in circles",
    "Greedy search always takes the likeliest next word. On open-ended text a small model soon repeats itself.",
    "Contrastive search takes, of the four likeliest words, one that does not echo what is already there.",
    "Eight openings, one each of a news item, a tale, a recipe, a letter, a science page, a history, a travel guide "
    "and an opinion; written before the first run and not changed since.",
)

OPENINGS = (
    "The city council announced on Monday that the old harbour bridge will",
    "Once upon a time, in a village at the edge of a dark forest, there lived",
    "To bake a good loaf of bread at home, you first need to",
    "Dear Anna, I am writing to you from the mountains, where we",
    "Scientists who study the deep sea have found that",
    "In the year 1815, the people of the small town",
    "When you visit Lisbon for the first time, you should",
    "The best thing about learning to play the piano is",
)

SHOWN = 2
"""Openings whose continuations are shown; all are counted."""


def show(console: Output, model: Any, tokenizer: Any, *, quick: bool = False) -> list[Result]:
    """Go on from the openings both ways, print, and give the results."""
    openings, length = (OPENINGS[:2], 12) if quick else (OPENINGS, 96)
    blocks = {
        "greedy": nullcontext(),
        "contrastive": tk.ContrastiveSearch(model, tokenizer, penalty_alpha=0.6, top_k=4),
    }
    answers = {
        name: write(model, tokenizer, openings, block, max_new_tokens=length, raw=True)
        for name, block in blocks.items()
    }
    scores = {name: scorer.score([one.text for one in some], drop_last=False) for name, some in answers.items()}
    rep_4 = {name: [item["rep_4"] for item in score.items] for name, score in scores.items()}
    surprise = {name: perplexities(model, some) for name, some in answers.items()}

    for number, opening in enumerate(openings[:SHOWN]):
        table = Table(title=Text(f"{opening} …"), title_justify="left", expand=True, show_lines=True)
        for column in ("", "goes on", "rep-4"):
            table.add_column(column, justify="right" if "rep" in column else "left")
        for name, some in answers.items():
            least = rep_4[name][number] == min(rep[number] for rep in rep_4.values())
            figure = Text.assemble(mark(least), f" {100 * rep_4[name][number]:.0f} %")
            table.add_row(name, Text(printable(" ".join(some[number].text.split()))), figure)
        console.print(table, "")

    pairs = list(zip(rep_4["greedy"], rep_4["contrastive"], strict=True))
    shares = [f"{100 * scores[name].metrics['rep_4']:.0f} %" for name in blocks]
    spread = [f"{scores[name].metrics['diversity']:.2f}" for name in blocks]
    single = {name: [_diversity(item) for item in score.items] for name, score in scores.items()}
    fluent = [median(surprise[name]) for name in blocks]
    results = [
        compared("contrastive search", "rep-4 ↓", (shares[0], shares[1]), [(-a, -b) for a, b in pairs]),
        compared(
            "contrastive search",
            "diversity ↑",
            (spread[0], spread[1]),
            list(zip(single["greedy"], single["contrastive"], strict=True)),
        ),
        compared(
            "contrastive search",
            "perplexity ↓",
            (f"{fluent[0]:.1f}", f"{fluent[1]:.1f}"),
            [(-a, -b) for a, b in zip(surprise["greedy"], surprise["contrastive"], strict=True)],
        ),
    ]
    measured(
        console,
        results,
        [
            "rep-4 is the share of four-word sequences that have come before; diversity is high where few sequences of "
            "two, three and four words have.",
            "Perplexity is how surprised the plain model is. Greedy search keeps it low by writing what is expected, "
            "so losing here is the price, and a text may be fresh and untrue.",
        ],
    )
    return results


def _diversity(item: dict[str, Any]) -> float:
    return float((1 - item["rep_2"]) * (1 - item["rep_3"]) * (1 - item["rep_4"]))
