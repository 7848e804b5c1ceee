"""Positions by hand, under padding on either side, and as `generate` meets them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import truthkit as tk
from tests.decoding.cases import ToyTokenizer
from truthkit.activations.positions import Characters, Role, Text, Tokens, check_positions, describe_positions, selected

LENGTHS, PROMPTS, WIDTH = (3, 6), (2, 4), 8


def tokens(side: str) -> Tokens:
    """Two texts of 3 and 6 tokens, 2 and 4 of them prompt, in 8 columns."""
    pads = [WIDTH - length if side == "left" else 0 for length in LENGTHS]
    column = torch.arange(WIDTH)
    number = torch.stack([column - pad for pad in pads])
    real = torch.stack([(column >= pad) & (column < pad + n) for pad, n in zip(pads, LENGTHS, strict=True)])
    given, prompt = torch.tensor(LENGTHS)[:, None], torch.tensor(PROMPTS)[:, None]
    return Tokens(number, real, prompt, given, ids=number + 10, image_token=11)


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ("all", [[0, 1, 2], [0, 1, 2, 3, 4, 5]]),
        ("prompt", [[0, 1], [0, 1, 2, 3]]),
        ("generated", [[2], [4, 5]]),
        ("answer", [[2], [4, 5]]),
        ("last", [[2], [5]]),
        ("image", [[1], [1]]),
        (0, [[0], [0]]),
        (4, [[], [4]]),
        (-1, [[2], [5]]),
        (-3, [[0], [3]]),
        (slice(1, 3), [[1, 2], [1, 2]]),
        (slice(-2, None), [[1, 2], [4, 5]]),
        (slice(None, -1), [[0, 1], [0, 1, 2, 3, 4]]),
        (slice(1, None, 2), [[1], [1, 3, 5]]),
        (("last", 0), [[0, 2], [0, 5]]),
        (lambda t: t.number % 2 == 1, [[1], [1, 3, 5]]),
    ],
    ids=lambda value: "callable" if callable(value) else str(value),
)
def test_selection(positions: Any, expected: list[list[int]]) -> None:
    for side in ("left", "right"):
        here = tokens(side)
        chosen = selected(check_positions(positions), here)
        assert [row[mask].tolist() for row, mask in zip(here.number, chosen, strict=True)] == expected, side


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ("lats", "positions contains 'lats'"),
        (1.5, r"positions contains 1\.5"),
        (True, "positions contains True"),
        (("last", "end"), "positions contains 'end'"),
        (Text("x"), "needs the tokenizer"),
    ],
)
def test_what_makes_no_sense_is_refused(positions: Any, message: str) -> None:
    with pytest.raises(tk.ArgumentError, match=message):
        check_positions(positions)


def test_a_backward_slice_is_refused() -> None:
    with pytest.raises(tk.ArgumentError, match="step -1"):
        selected(slice(None, None, -1), tokens("left"))


def test_roles_need_a_template() -> None:
    with pytest.raises(tk.ArgumentError, match="no chat template"):
        check_positions(Role("user"), ToyTokenizer())


def spans_of(tokenizer: Any, ids: list[int], position: Any) -> str:
    """What the selected tokens of one text say."""
    number = torch.arange(len(ids))[None]
    count = torch.tensor([[len(ids)]])
    here = Tokens(number, number >= 0, count, count, torch.tensor([ids]), [ids], tokenizer, None, {})
    return tokenizer.decode(torch.tensor(ids)[selected(position, here)[0]])


def test_characters_of_a_text(smollm2: Any) -> None:
    _, tokenizer = smollm2
    text = "The café on Main Street opens at 7:30 every day."
    ids = tokenizer(text).input_ids
    assert spans_of(tokenizer, ids, Text("Main Street")) == " Main Street"
    start = text.index("7:30")
    assert spans_of(tokenizer, ids, Characters(start, start + 4)).strip() == "7:30"
    with pytest.raises(tk.ArgumentError, match="pass a passage of it"):
        spans_of(tokenizer, ids, Text("no such words"))
    with pytest.raises(tk.ArgumentError, match="characters"):
        spans_of(tokenizer, ids, Characters(40, 400))


def test_roles_of_a_chat(smollm2: Any) -> None:
    _, tokenizer = smollm2
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "Three?"},
    ]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert spans_of(tokenizer, ids, Role("user")) == "One?Three?"
    assert spans_of(tokenizer, ids, Role("assistant")) == "Two."
    assert spans_of(tokenizer, ids, Role("system")) == "Be brief."
    open_ended = tokenizer("Four!", add_special_tokens=False).input_ids
    assert spans_of(tokenizer, ids + open_ended, Role("assistant")) == "Two.Four!"
    with pytest.raises(tk.ArgumentError, match="'tool'"):
        spans_of(tokenizer, ids, Role("tool"))


def test_descriptions() -> None:
    assert describe_positions(("last", -2, slice(1, 3))) == "last + -2 + 1:3:None"
    assert describe_positions(Text("a b")) == "Text(passage='a b')"
