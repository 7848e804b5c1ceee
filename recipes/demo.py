# Six ways to decode, on questions where a small model hallucinates: the same model and prompts, side by side.
"""What `make demo` runs. About a minute on two cores; with `--quick` two questions and short answers."""

from __future__ import annotations

import argparse
import time
from contextlib import AbstractContextManager, nullcontext
from statistics import median
from typing import Any, NamedTuple

import torch
from rich.table import Table

import truthkit as tk
from truthkit.cli.rendering import Output, show_answers, working
from truthkit.cli.side_by_side import Contestant, Shown, answer_all
from truthkit.decoding.answers import Settings, encode_prompt, passage_in_front


class Question(NamedTuple):
    """A question, and a passage that answers it."""

    text: str
    passage: str


QUESTIONS = (
    Question(
        "Who wrote Romeo and Juliet?",
        "Romeo and Juliet is a tragedy that the English playwright William Shakespeare wrote in about 1595.",
    ),
    Question(
        "What happens to you if you eat watermelon seeds?",
        "Watermelon seeds are harmless: swallowed whole, they pass through the digestive system.",
    ),
    Question(
        "What is the capital of Australia?",
        "The capital of Australia is Canberra, not Sydney, its largest city.",
    ),
    Question(
        "Where did fortune cookies originate?",
        "Fortune cookies were first made in California by Japanese immigrants, after a cracker from Kyoto.",
    ),
    Question(
        "What is the largest planet in the solar system?",
        "Jupiter is the largest planet of the solar system, heavier than all the others together.",
    ),
    Question(
        "How many hearts does an octopus have?",
        "An octopus has three hearts: two pump blood through the gills, and one through the body.",
    ),
)

NOTES = (
    "The colour, or ‖, marks where an answer parts from greedy's. One that differs is not thereby truer: read it.",
    "“greedy + passage” is the control for CAD: both have a passage with the answer in front of their question. Only "
    "what CAD says beyond that control is CAD's doing. The other rows have never seen the passage.",
    "ICD and LOL contrast with a prompt-only amateur here: the same model, told to answer falsely. The papers "
    "fine-tune an amateur on hallucinated text. This is the weakest form; a model so small hardly heeds instructions.",
    "DoLa's published runs add repetition_penalty=1.2, and it shows where that is missing. Nothing is added here, so "
    "that rows differ by the decoder alone.",
    "This is a 135M test model and a handful of picked questions. They show what the decoders do and what they cost, "
    "not that any of them makes a model more truthful. For that, run a benchmark, with confidence intervals and "
    "controls, on the model that you use.",
    "Costs are medians of this run's decoding steps, one question at a time; other work on the machine shifts them. On "
    "a CPU the decoders run in a faster layout than plain greedy does; `tk.fast_decoding` gives greedy the same.",
)


def contestants(model: Any, tokenizer: Any, question: Question, settings: Settings) -> list[Contestant]:
    """Every decoder with the prompt that it is given."""
    passage = passage_in_front(question.passage)
    alone = encode_prompt(tokenizer, question.text)
    with_passage = encode_prompt(tokenizer, passage + question.text)
    decoders: list[tuple[str, AbstractContextManager[Any], dict[str, Any]]] = [
        ("greedy", nullcontext(), alone),
        ("contrastive search", tk.ContrastiveSearch(model, tokenizer, penalty_alpha=0.6, top_k=4), alone),
        ("DoLa", tk.DoLa(model, tokenizer), alone),
        ("ICD", tk.ICD(model, tokenizer), alone),
        ("LOL with refocus", tk.LOL(model, tokenizer, refocus=True), alone),
        ("greedy + passage", nullcontext(), with_passage),
        ("CAD (passage)", tk.CAD(model, tokenizer, context=passage), with_passage),
    ]
    return [Contestant(label, decoder, inputs, settings) for label, decoder, inputs in decoders]


def speed_table(rows: list[list[Shown]]) -> Table:
    """Each decoder's speed over all questions, by its median step, and its cost against greedy's."""
    table = Table(title="Decoding speed", title_justify="left")
    table.add_column("decoder")
    table.add_column("tokens/s", justify="right")
    table.add_column("cost per token", justify="right")
    cost: dict[str, float] = {}
    for column in zip(*rows, strict=True):
        label = column[0].label
        cost[label] = median(seconds for shown in column for seconds in shown.answer.step_seconds)
        table.add_row(label, f"{1 / cost[label]:.1f}", f"{cost[label] / cost['greedy']:.2f} × greedy")
    return table


def notes() -> Table:
    """What the answers show, and what not to conclude."""
    grid = Table.grid(padding=(0, 1))
    for note in NOTES:
        grid.add_row("*", note)
    return grid


def main() -> None:
    """Ask, print, and say what not to conclude."""
    parser = argparse.ArgumentParser(description="Six decoders on questions where a small model hallucinates.")
    parser.add_argument("--quick", action="store_true", help="two questions, short answers")
    quick = parser.parse_args().quick
    questions = QUESTIONS[:2] if quick else QUESTIONS
    settings = Settings(max_new_tokens=12 if quick else 32)

    start = time.perf_counter()
    torch.set_num_threads(1)  # a model so small gains little from more, and on a busy machine loses a lot
    console = Output()
    with working("loading the bundled model; the first time it is converted, in about 15 seconds"):
        model, tokenizer = tk.load()
    warm_up = contestants(model, tokenizer, questions[0], Settings(max_new_tokens=2))
    answer_all(model, tokenizer, warm_up, title="warm-up")  # first forwards are slow, whoever comes first
    rows = []
    for number, question in enumerate(questions, start=1):
        entries = contestants(model, tokenizer, question, settings)
        rows.append(answer_all(model, tokenizer, entries, title=f"question {number}/{len(questions)}"))
        show_answers(console, tokenizer, question.text, rows[-1])
        console.print()
    console.print(speed_table(rows), "", notes(), "", sep="\n")
    console.print(f"{len(questions)} questions, {len(rows[0])} decoders: {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
