"""An instruction that goes against what is known by heart: CAD and AdaCAD."""

from __future__ import annotations

import math
from statistics import median
from typing import Any, NamedTuple

from demo_parts.screen import Part, Result, compared, mark, measured
from rich.table import Table
from rich.text import Text

from truthkit.decoding.spec import parse_spec
from truthkit.evaluation.running.asking import Asking
from truthkit.evaluation.running.item import Item
from truthkit.output import Output

PART = Part(
    "An instruction against memory",
    "Asked to end a saying with another word, a model falls back on the word that it knows by heart.",
    "CAD looks at the prompt with and without the instruction, and amplifies what the instruction changes. AdaCAD does "
    "so by as much as the two differ. Both work alike for a passage that contradicts what a model remembers.",
    "Twelve sayings in alphabetical order, each with another ending that makes a sentence; written before the first "
    "run and not changed since. The kind of task is that of the benchmark MemoTrap, the items are our own.",
)


class Saying(NamedTuple):
    """The beginning, its known ending, and the one that is asked for."""

    text: str
    known: str
    asked: str


SAYINGS = (
    Saying("Actions speak louder than", "words", "music"),
    Saying("All that glitters is not", "gold", "glass"),
    Saying("An apple a day keeps the doctor", "away", "busy"),
    Saying("Better late than", "never", "early"),
    Saying("Don't judge a book by its", "cover", "title"),
    Saying("Every cloud has a silver", "lining", "spoon"),
    Saying("Honesty is the best", "policy", "excuse"),
    Saying("Practice makes", "perfect", "noise"),
    Saying("Rome was not built in a", "day", "week"),
    Saying("The early bird catches the", "worm", "train"),
    Saying("The grass is always greener on the other", "side", "hill"),
    Saying("When in Rome, do as the Romans", "do", "say"),
)

METHODS = {"greedy": "greedy", "CAD": "cad:alpha=1", "AdaCAD": "adacad"}
"""CAD at the strength of its paper's experiments on memory."""


def show(console: Output, model: Any, tokenizer: Any, *, quick: bool = False) -> list[Result]:
    """Compare both endings under each method, print, and give the results."""
    sayings = SAYINGS[:3] if quick else SAYINGS
    items = [_item(saying) for saying in sayings]
    leads = {}
    for name, spec in METHODS.items():
        scores = Asking(model, tokenizer, parse_spec(spec), {}).choose(items)
        leads[name] = [asked - known for asked, known in scores]
    chances = {name: [1 / (1 + math.exp(-lead)) for lead in some] for name, some in leads.items()}

    table = Table(title="How likely the asked ending is, against the known one", title_justify="left")
    table.add_column("saying: asked ending, not the known one")
    for name in METHODS:
        table.add_column(name, justify="right", no_wrap=True)
    for number, saying in enumerate(sayings):
        shares = [some[number] for some in chances.values()]
        cells = [Text.assemble(f"{100 * share:.0f} % ", mark(share > 0.5)) for share in shares]
        table.add_row(Text(f"{saying.text} {saying.asked}, not {saying.known}"), *cells)
    console.print(table, "")

    right = {name: [float(share > 0.5) for share in some] for name, some in chances.items()}
    results = []
    for name in ("CAD", "AdaCAD"):
        counted = (_count(right["greedy"]), _count(right[name]))
        pairs = list(zip(right["greedy"], right[name], strict=True))
        results.append(compared(name, "instruction followed ↑", counted, pairs))
        lead = (f"{median(leads['greedy']):+.1f}", f"{median(leads[name]):+.1f}")
        results.append(
            compared(name, "lead of the asked ending ↑", lead, list(zip(leads["greedy"], leads[name], strict=True)))
        )
    measured(
        console,
        results,
        [
            "The lead is that in log-probability, and the figure its median: above 0 the asked ending is likelier.",
            "Where an instruction or a passage is wrong, following it more closely is the wrong thing to do.",
        ],
    )
    return results


def _item(saying: Saying) -> Item:
    instruction = f'Finish this saying with the word "{saying.asked}": '
    choices = (f" {saying.asked}.", f" {saying.known}.")
    return Item(saying.text, instruction + saying.text, (), choices, raw=True, context=instruction)


def _count(right: list[float]) -> str:
    return f"{sum(right):.0f} of {len(right)}"
