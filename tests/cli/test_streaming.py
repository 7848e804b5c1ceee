"""Answers while they are written. Oracle: the text of the answers, and what a terminal of few lines has room for."""

from __future__ import annotations

import io
import re
from contextlib import nullcontext
from typing import Any

from rich.console import Console

from truthkit.cli.side_by_side import Contestant, answer_all
from truthkit.cli.streaming import Streaming
from truthkit.generation.settings import AnswerSettings
from truthkit.text.encode import encode_prompt


def terminal(width: int = 60, height: int = 20) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None)


def screens(console: Console) -> list[str]:
    """What was on the screen, one state after the other: all is rewritten from its first line."""
    file = console.file
    assert isinstance(file, io.StringIO)
    states = re.split(r"(?:\r?\x1b\[2K(?:\x1b\[1A)?)+", re.sub(r"\x1b\[\?25[lh]", "", file.getvalue()))
    return [re.sub(r"\x1b\[[0-9;]*[mKA]", "", state).strip() for state in states if state.strip()]


def test_tokens_appear_as_they_are_made(smollm2: Any) -> None:
    model, tokenizer = smollm2
    inputs = encode_prompt(tokenizer, "Who wrote Romeo and Juliet?")
    console = terminal()
    settings = AnswerSettings(max_new_tokens=4)
    entries = [Contestant("one", nullcontext(), inputs, settings), Contestant("two", nullcontext(), inputs, settings)]
    first, second = answer_all(model, tokenizer, entries, title="prompt 1/1", console=console)
    assert first.answer.text == second.answer.text
    ends = [tokenizer.decode(first.answer.token_ids[:count]) for count in range(5)]
    seen = [f"prompt 1/1\none\n{text}".strip() for text in ends]
    seen += [f"{seen[-1]}\ntwo\n{text}".strip() for text in ends]
    assert list(dict.fromkeys(screens(console))) == seen


def test_the_end_of_what_has_no_room(smollm2: Any) -> None:
    console = terminal(width=10, height=4)
    ids = smollm2[1]("one two three four five six seven eight").input_ids
    with Streaming(console, smollm2[1], "prompt 1/1") as streaming:
        advance = streaming.begin("greedy", 20, final=True)
        for token in ids:
            advance(token)
    assert [line.strip() for line in screens(console)[-1].splitlines()] == ["five six", "seven", "eight"]


def test_beams_are_counted_only(smollm2: Any) -> None:
    console = terminal()
    with Streaming(console, smollm2[1], "prompt 1/1") as streaming:
        advance = streaming.begin("greedy", 20, final=False)
        advance(100)
        advance(101)
    assert screens(console)[-1] == "prompt 1/1\ngreedy\n2 of 20 tokens"
