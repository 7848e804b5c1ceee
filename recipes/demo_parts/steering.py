"""A direction in the model's own states that makes answers glad, or gloomy."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from statistics import median
from typing import Any

from demo_parts.answering import Written, perplexities, write
from demo_parts.screen import Part, Result, compared, measured
from rich.table import Table
from rich.text import Text

import truthkit as tk
from truthkit.evaluation.tasks.open_ended import scorer
from truthkit.output import Output
from truthkit.printable import printable

PART = Part(
    "A vector that steers",
    "A prompt can ask for a tone; a small model hardly listens.",
    "A steering vector is what differs in the model's states between glad and sad sentences. Added to the states while "
    "it writes, it sets the tone; taken away, it sets the opposite one.",
    "The vector is made now, of twelve pairs of sentences. Six everyday questions, of which the first three are "
    "shown; layers and strength were chosen on three others. An answer is glad if it has more words of a glad list "
    "than of a sad one.",
)

THINGS = (
    *("the sea", "my work", "this town", "the rain", "our garden", "the new school"),
    *("this song", "the long train ride", "my breakfast", "the winter", "this book", "the market"),
)
PAIRS = [
    (f"I love {thing}. It is wonderful and makes me happy.", f"I hate {thing}. It is terrible and makes me sad.")
    for thing in THINGS
]
QUESTIONS = (
    "How was your day?",
    "What do you think of cats?",
    "How do you like the food here?",
    "What is it like to live in a big city?",
    "What will next year bring?",
    "Tell me about your best friend.",
)

SHOWN = 3

LAYERS, STRENGTH = (10, 12, 14, 16), 0.75
"""Chosen on "What do you think of Mondays?", "How was your holiday?" and "Tell me about your neighbours."."""

GLAD = """\
amazing beautiful celebrate celebrated cheerful comfort comfortable delicious delight delighted
delightful enjoy enjoyed enjoying excellent excited exciting fantastic fun glad great happily happiness
happy joy love loved lovely loving perfect pleasant pleased pleasure proud smile smiled smiles thrilled
warm welcoming wonderful
"""
SAD = """\
afraid alone angry awful bad bitter cruel cry crying dark darkness dead death die died dying evil fear
forced harsh hate hated hatred hopeless horrible hurt hurting lonely lost miserable nasty pain painful
poor sad sadness shadows sorry struggle struggling stuck suffer suffered suffering terrible tired ugly
violence violent worse worst
"""
"""An answer's mood goes by which of the two it has more of."""


def mood(text: str) -> int:
    """Above 0 for an answer with more glad words than sad ones, below for the reverse."""
    words = re.findall(r"[a-z]+", text.lower())
    glad, sad = (sum(word in listed.split() for word in words) for listed in (GLAD, SAD))
    return (glad > sad) - (glad < sad)


def show(console: Output, model: Any, tokenizer: Any, *, quick: bool = False) -> list[Result]:
    """Make the vector, answer with and against it, print, and give the results."""
    questions, length = (QUESTIONS[:2], 8) if quick else (QUESTIONS, 40)
    vector = tk.extract(model, tokenizer, PAIRS)
    blocks: dict[str, AbstractContextManager[Any]] = {
        "sad": vector.steer(model, layers=LAYERS, strength=-STRENGTH),
        "as it is": nullcontext(),
        "glad": vector.steer(model, layers=LAYERS, strength=STRENGTH),
    }
    answers = {name: write(model, tokenizer, questions, block, max_new_tokens=length) for name, block in blocks.items()}
    for number, question in enumerate(questions[:SHOWN]):
        table = Table(title=question, title_justify="left", expand=True)
        for name, sign in zip(blocks, ("–", "", "+"), strict=True):
            table.add_column(f"{sign} {name}".strip(), ratio=1)
        table.add_row(*(Text(printable(" ".join(some[number].text.split()))) for some in answers.values()))
        table.add_section()
        table.add_row(*(_mood_mark(name, some[number]) for name, some in answers.items()))
        console.print(table, "")

    moods = {name: [mood(one.text) for one in some] for name, some in answers.items()}
    surprise = {name: perplexities(model, some) for name, some in answers.items()}
    plain, n = "as it is", len(questions)
    results = [
        compared(
            f"steered {name}",
            f"{name} answers ↑",
            tuple(f"{sum(sign * one > 0 for one in moods[side])} of {n}" for side in (plain, name)),
            [(float(sign * a > 0), float(sign * b > 0)) for a, b in zip(moods[plain], moods[name], strict=True)],
        )
        for name, sign in (("glad", 1), ("sad", -1))
    ] + [
        compared(
            f"steered {name}",
            "perplexity ↓",
            tuple(f"{median(surprise[side]):.1f}" for side in (plain, name)),
            [(-a, -b) for a, b in zip(surprise[plain], surprise[name], strict=True)],
        )
        for name in ("glad", "sad")
    ]
    repeats = ", ".join(
        f"{name} {100 * scorer.score([one.text for one in some], drop_last=False).metrics['rep_4']:.0f} %"
        for name, some in answers.items()
    )
    measured(
        console,
        results,
        [
            "Steering costs fluency: perplexity is how surprised the plain model is by the answer. Share of repeated "
            f"four-word sequences: {repeats}.",
            "The tone changes, and what is said with it: neither side is truer for that.",
        ],
    )
    return results


def _mood_mark(name: str, answer: Written) -> Text:
    found = mood(answer.text)
    said = {1: "glad", 0: "neither", -1: "sad"}[found]
    if name == "as it is":
        return Text(said, style="dim")
    return Text(f"✓ {said}", style="green") if said == name else Text(f"✗ {said}", style="red")
