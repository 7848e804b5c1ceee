# What each family of methods is for, in six short parts: what goes wrong, what the method does, what came of it.
"""What `make demo` runs: about two minutes on one core. With `--quick` a few items of each part, and short answers."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from demo_parts import amateur, claims, memory, pictures, repetition, steering
from demo_parts.screen import CHANCE, RIGHT, WRONG, Part, Result, bullets, closing, heading, output

import truthkit as tk
from truthkit.cli.rendering import working
from truthkit.output import Output


class Stage(NamedTuple):
    """A part, and what shows it: given the console, the text model and its tokenizer."""

    part: Part
    show: Callable[..., list[Result]]


STAGES = (
    Stage(repetition.PART, repetition.show),
    Stage(memory.PART, memory.show),
    Stage(amateur.PART, amateur.show),
    Stage(pictures.PART, lambda console, _model, _tokenizer, quick: pictures.show(console, quick=quick)),
    Stage(steering.PART, steering.show),
    Stage(claims.PART, claims.show),
)

BEFORE = (
    "Six things that go wrong with language models, and what truthkit does about each. All of it runs now, on this "
    "machine, with a model of 135 million parameters (SmolLM2) and, for pictures, one of 2.3 million.",
    f"{RIGHT} is right or better, {WRONG} wrong or worse; ↑ more is better, ↓ less is. What is asked was fixed "
    "beforehand, not picked by what came out.",
    "Below each part stands what was measured, without the method and with it; on how many items it does better, and "
    "on how many worse; and in how many of 100 demos chance alone would part the items as unevenly. Losses stand there "
    "as gains do.",
    "These methods were made for models fifty times as large. Expect some to help here and some not.",
)

QUICK = "This is the quick run: the first few of what is asked in each part, and short answers. Its figures are no use."

AFTER = (
    f"“leans”: chance alone would do as much in more than {100 * CHANCE:.0f} of 100 demos; with so few items that says "
    "little. Even a plain “better” is one of many comparisons on this page.",
    "Nothing here says that a method makes your model more truthful. That is for a benchmark on your model, with "
    "intervals and controls: `truthkit eval --help`.",
    'Next: `truthkit generate "Who wrote Hamlet?" --decoder greedy --decoder dola`, or docs/quickstart.md.',
)


def run(console: Output, model: Any, tokenizer: Any, *, quick: bool) -> tuple[list[tuple[str, Result]], list[str]]:
    """Show all parts; the results with their part's title, and how long each part took."""
    results: list[tuple[str, Result]] = []
    took = []
    for number, (part, show) in enumerate(STAGES, start=1):
        heading(console, number, len(STAGES), part)
        start = time.perf_counter()
        with console.status("computing; it takes up to half a minute") if console.is_terminal else nullcontext():
            found = show(console, model, tokenizer, quick=quick)
        results += [(part.title, one) for one in found]
        took.append(f"{part.title} {time.perf_counter() - start:.0f} s")
    return results, took


def main(argv: Sequence[str] | None = None) -> None:
    """Load, show, and say what not to conclude."""
    parser = argparse.ArgumentParser(description="What each family of methods is for, in six short parts.")
    parser.add_argument("--quick", action="store_true", help="a few items of each part, short answers")
    quick = parser.parse_args(argv).quick
    start = time.perf_counter()
    torch.set_num_threads(1)  # a model so small gains little from more, and on a busy machine loses a lot
    console = output()
    console.print(bullets([*BEFORE, QUICK] if quick else BEFORE), "")
    with working("loading the model; the first time it is converted, in about 15 seconds"):
        model, tokenizer = tk.load()
    took = [f"loading {time.perf_counter() - start:.0f} s"]
    results, parts = run(console, model, tokenizer, quick=quick)
    console.print(closing(results), "", bullets(AFTER), "")
    whole = f"{time.perf_counter() - start:.0f} s, of them {time.process_time():.0f} s of CPU time"
    console.print(f"It took {whole}: {', '.join([*took, *parts])}.")


if __name__ == "__main__":
    main()
