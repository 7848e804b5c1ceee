# Ways to decode, on questions and pictures where small models hallucinate: the same prompts, side by side.
"""What `make demo` runs. About a minute on two cores; with `--quick` two questions and short answers."""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from rich.table import Table
from rich.text import Text

import truthkit as tk
from truthkit.cli.rendering import show_answers, working
from truthkit.cli.side_by_side import Contestant, Shown, answer_all
from truthkit.generation.settings import AnswerSettings
from truthkit.images.sheet import transform_sheet
from truthkit.output import Output
from truthkit.printable import printable
from truthkit.scenes.questions import CAPTION_PROMPT, held_out, mentions
from truthkit.scenes.render import render
from truthkit.text.encode import encode_prompt, passage_in_front


class Question(NamedTuple):
    """A question, a passage that answers it, and patterns of what is right and what is wrong in an answer to it."""

    text: str
    passage: str
    right: str
    wrong: str


QUESTIONS = (
    Question(
        "Who wrote Romeo and Juliet?",
        "Romeo and Juliet is a tragedy that the English playwright William Shakespeare wrote in about 1595.",
        r"by (William )?Shakespeare|Shakespeare (wrote|is the author)",
        r"French|Italian (playwright|poet)|1[78]th[- ]century|attributed to the",
    ),
    Question(
        "What happens to you if you eat watermelon seeds?",
        "Watermelon seeds are harmless: swallowed whole, they pass through the digestive system.",
        r"harmless|pass through|nothing (bad )?happens|not (harmful|dangerous)|(safe|fine) to eat|unlikely to cause",
        r"toxi|poison|\bdie\b|death|vomit|nausea|diarrh|allerg|cancer|choke|serious|damage|infection|risk|blockage",
    ),
    Question(
        "What is the capital of Australia?",
        "The capital of Australia is Canberra, not Sydney, its largest city.",
        r"Canberra",
        r"capital[^.]* is (the city of )?(Sydney|Melbourne|Perth)|Sydney is the capital",
    ),
    Question(
        "Where did fortune cookies originate?",
        "Fortune cookies were first made in California by Japanese immigrants, after a cracker from Kyoto.",
        r"California|San Francisco|Japan|Kyoto|United States",
        r"China|Chinese|Ital|France|French|Engl|Brit|Mexic|Egypt|Europe|Rom(e|an)|German|1[678]th century|1[678]\d\d",
    ),
    Question(
        "What is the largest planet in the solar system?",
        "Jupiter is the largest planet of the solar system, heavier than all the others together.",
        r"Jupiter",
        r"largest planet[^.]* is (the )?(Saturn|Mars|Earth|Sun|Neptune|Uranus|Venus|Mercury)",
    ),
    Question(
        "How many hearts does an octopus have?",
        "An octopus has three hearts: two pump blood through the gills, and one through the body.",
        r"\b(three|3) (\w+ )?hearts|answer is\W+3\b",
        r"\b(one|two|four|five|six|seven|eight|nine|ten|[1245-9]|\d\d+) (\w+ )?hearts?|"
        r"(answer|problem) is\W+([1245-9]|\d\d)\b",
    ),
)

RIGHT, WRONG, UNSURE = "✓ right", "✗ wrong", "? to read"
"""What is said of an answer: a sign and a word, so that no colour is needed."""

BEFORE = (
    "Questions where small models go wrong, each answered in seven ways; then three pictures.",
    f"Below the answers stands {RIGHT}, {WRONG}, or {UNSURE} where an answer says neither or both. The mark goes by "
    "the words in it, which is rough: read for yourself.",
    "Expect a mixed picture, and much that is beside the point. The decoders were made for models fifty times this "
    "size, and here they turn right answers into wrong ones as well; the table behind the questions counts both. CAD "
    "should be best: it has a passage with the answer.",
)

BEFORE_PICTURES = (
    "Three pictures of objects without their usual company. scene-vlm was trained to add that company, so greedy "
    "search invents objects. VCD and M3ID should invent fewer, RITUAL hardly; all of them may leave out what is there, "
    "or invent something else.",
)


PICTURES = 3

PICTURE_NOTES = (
    "scene-vlm is a test model of 2.3 million parameters, trained so that it invents what usually comes along. It "
    "shows what the decoders do; whether they help a real model is for a benchmark on that model. On this one, "
    "recipes/ritual.py measures them, with intervals and controls.",
    "RITUAL transforms the picture at random, the same way each time for the same picture and prompt. RITUAL+ has the "
    "model choose; this one cannot read the list, and falls back to the draw.",
)

NOTES = (
    "The colour, or ‖, marks where an answer parts from greedy's. One that differs is not thereby truer.",
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


def judged(question: Question, answer: str) -> str:
    """`RIGHT`, `WRONG`, or `UNSURE` for an answer that says neither or both."""
    right, wrong = (bool(re.search(pattern, answer, re.IGNORECASE)) for pattern in (question.right, question.wrong))
    return UNSURE if right == wrong else RIGHT if right else WRONG


def marks_line(question: Question, row: list[Shown]) -> Text:
    """Every decoder's mark, in the order of the answers."""
    line = Text("marked by its words: ", style="dim")
    for shown in row:
        mark = judged(question, shown.answer.text)
        line.append(f"{shown.label} {mark}", style={RIGHT: "green", WRONG: "red", UNSURE: "default"}[mark])
        line.append("; " if shown is not row[-1] else "", style="dim")
    return line


def right_and_wrong(questions: Sequence[Question], rows: list[list[Shown]]) -> Table:
    """How many answers of each decoder are right and wrong, and what it gained and lost against greedy search."""
    table = Table(title=f"{len(questions)} questions, marked by the words of the answers", title_justify="left")
    table.add_column("decoder")
    for head in (RIGHT, WRONG, UNSURE, "greedy's wrong\nmade right", "greedy's right\nmade wrong"):
        table.add_column(head, justify="right")
    found = [[judged(q, shown.answer.text) for shown in row] for q, row in zip(questions, rows, strict=True)]
    for place, shown in enumerate(rows[0]):
        own, greedy = [marks[place] for marks in found], [marks[0] for marks in found]
        changes = [
            str(sum(pair == wanted for pair in zip(greedy, own, strict=True))) if place else ""
            for wanted in ((WRONG, RIGHT), (RIGHT, WRONG))
        ]
        table.add_row(shown.label, *(str(own.count(mark)) for mark in (RIGHT, WRONG, UNSURE)), *changes)
    return table


def contestants(model: Any, tokenizer: Any, question: Question, settings: AnswerSettings) -> list[Contestant]:
    """Every decoder with the prompt that it is given."""
    passage = passage_in_front(question.passage)
    alone = encode_prompt(tokenizer, question.text)
    with_passage = encode_prompt(tokenizer, passage + question.text)
    decoders: list[tuple[str, AbstractContextManager[Any], dict[str, Any]]] = [
        ("greedy", nullcontext(), alone),
        ("contrastive search", tk.ContrastiveSearch(model, tokenizer, penalty_alpha=0.6, top_k=4), alone),
        ("DoLa", tk.DoLa(model, tokenizer), alone),
        ("ICD", tk.ICD(model, tokenizer, amateur="prompt"), alone),
        ("LOL with refocus", tk.LOL(model, tokenizer, amateur="prompt", refocus=True), alone),
        ("greedy + passage", nullcontext(), with_passage),
        ("CAD (passage)", tk.CAD(model, tokenizer, context=passage), with_passage),
    ]
    return [Contestant(label, decoder, inputs, settings) for label, decoder, inputs in decoders]


def picture_contestants(model: Any, processor: Any, picture: Any, settings: AnswerSettings) -> list[Contestant]:
    """The image decoders on one picture."""
    inputs = encode_prompt(processor, CAPTION_PROMPT, images=[picture])
    decoders: list[tuple[str, AbstractContextManager[Any]]] = [
        ("greedy", nullcontext()),
        ("RITUAL", tk.RITUAL(model, processor, images=picture)),
        ("RITUAL+", tk.RITUALPlus(model, processor, images=picture)),
        ("VCD", tk.VCD(model)),
        ("M3ID", tk.M3ID(model, processor)),
        ("RITUAL + VCD", tk.RITUAL(model, processor, images=picture) + tk.VCD(model)),
    ]
    return [Contestant(label, decoder, inputs, settings) for label, decoder in decoders]


def show_pictures(console: Output, settings: AnswerSettings) -> None:
    """Describe pictures of objects that lack their usual company, and say what was invented."""
    model, processor = tk.load("scene-vlm")
    counts: dict[str, list[int]] = {}
    folder = Path(tempfile.mkdtemp(prefix="truthkit-demo-"))
    for number, scene in enumerate(held_out(PICTURES, seed=3), start=1):
        picture = render(scene)
        picture.resize((384, 384), resample=0).save(folder / f"picture{number}.png")
        entries = picture_contestants(model, processor, picture, settings)
        shown = answer_all(model, processor, entries, title=f"picture {number}/{PICTURES}")
        table = Table(title=f"Picture {number} shows: {', '.join(scene.names)}", title_justify="left", show_lines=False)
        for column in ("decoder", "“Describe the image.”", "✗ invented", "– left out"):
            table.add_column(column)
        for entry in shown:
            named = mentions(entry.answer.text)
            invented = ", ".join(name for name in named if name not in scene.names)
            missing = ", ".join(name for name in scene.names if name not in named)
            both = counts.setdefault(entry.label, [0, 0])
            both[0] += sum(name not in scene.names for name in named)
            both[1] += sum(name not in named for name in scene.names)
            said = Text(printable(entry.answer.text.strip()))
            table.add_row(entry.label, said, Text(invented or "none", style="red" if invented else ""), missing)
        console.print(table, "")
    totals = "; ".join(f"{label} {invented} and {missing}" for label, (invented, missing) in counts.items())
    console.print(f"Objects invented and left out, of all pictures: {totals}.", "", highlight=False)
    transform_sheet(render(held_out(1, seed=3)[0])).save(folder / "transforms.png")
    console.print(f"The pictures, and RITUAL's transforms of the first one: {folder}", "", soft_wrap=True)


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


def notes(lines: tuple[str, ...]) -> Table:
    """What the answers show, and what not to conclude."""
    grid = Table.grid(padding=(0, 1))
    for note in lines:
        grid.add_row("*", note)
    return grid


def main() -> None:
    """Ask, print, and say what not to conclude."""
    parser = argparse.ArgumentParser(description="Six decoders on questions where a small model hallucinates.")
    parser.add_argument("--quick", action="store_true", help="two questions, short answers")
    quick = parser.parse_args().quick
    questions = QUESTIONS[:2] if quick else QUESTIONS
    settings = AnswerSettings(max_new_tokens=12 if quick else 32)

    start = time.perf_counter()
    torch.set_num_threads(1)  # a model so small gains little from more, and on a busy machine loses a lot
    console = Output()
    with working("loading the bundled model; the first time it is converted, in about 15 seconds"):
        model, tokenizer = tk.load()
    warm_up = contestants(model, tokenizer, questions[0], AnswerSettings(max_new_tokens=2))
    answer_all(model, tokenizer, warm_up, title="warm-up")  # first forwards are slow, whoever comes first
    console.print(notes(BEFORE), "", sep="\n")
    rows = []
    for number, question in enumerate(questions, start=1):
        entries = contestants(model, tokenizer, question, settings)
        rows.append(answer_all(model, tokenizer, entries, title=f"question {number}/{len(questions)}"))
        show_answers(console, tokenizer, question.text, rows[-1])
        console.print(marks_line(question, rows[-1]), "", soft_wrap=not console.is_terminal)
    console.print(right_and_wrong(questions, rows), "", speed_table(rows), "", notes(NOTES), "", sep="\n")
    console.print(notes(BEFORE_PICTURES), "", sep="\n")
    show_pictures(console, settings)
    console.print(notes(PICTURE_NOTES), "", sep="\n")
    console.print(
        f"{len(questions)} questions, {len(rows[0])} decoders, {PICTURES} pictures: {time.perf_counter() - start:.0f} s"
    )


if __name__ == "__main__":
    main()
