"""What is wrong is told before the line, for the field that is wrong."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from tests.app.conftest import Ask, asking
from tests.app.test_engine import picture
from tests.each import each
from truthkit.app.engine import Engine
from truthkit.app.examples import examples_for
from truthkit.app.request import MAX_NEW_TOKENS, read_request
from truthkit.decoding.catalog import catalog


def found(engine: Engine, *cards: Any, whole: bool = True, **fields: Any) -> list[tuple[int | None, str, str]]:
    request = read_request(asking(*cards, **fields))
    return [(one.card, one.field, one.message) for one in engine.problems(request, whole=whole)]


def card(decoder: str, steering: Any = (), **options: str) -> dict[str, Any]:
    return {"decoder": decoder, "options": options, "steering": list(steering)}


@each(
    ("wrong", "problems"),
    [
        (card("icd", lam="much", beta="0.5", amateur_prompt="Lie."), [("lam", "option 'lam' of decoder 'icd' is")]),
        (card("icd", lam="much", beta="7"), [("lam", "option 'lam'"), ("beta", "beta is 7.0; the plausibility")]),
        (card("vcd", alpha="2", noise_step="5000", beta="0.2"), [("noise_step", "step is 5000; expected")]),
        (card("dola", layers="99", beta="0.2"), [("layers", "layers contains 99")]),
        (card("ritual", transform="melt", alpha="1"), [("transform", "")]),
        (card("icd", lama="1"), [("lama", "decoder 'icd' has no option 'lama'")]),
        (card("icd", amateur="/etc"), [("amateur", "amateur is '/etc'; those given by --amateur")]),
        (card("nonsense"), [("decoder", "there is no decoder 'nonsense'")]),
        (card("opera"), [("decoder", "opera goes back over what it has said")]),
        ({"decoder": "vcd:alpha=2+vcd:step=3", "options": None}, [("decoder", "decoder 'vcd' has no option 'step'")]),
        ({"decoder": "icd:amateur=x+dola", "options": None}, [("decoder", "amateur is 'x'")]),
        (card("greedy", [{"strength": 1, "layers": "9"}]), [("layers 0", "")]),
        (card("greedy", [{"strength": 1, "layers": "two"}]), [("layers 0", "")]),
        (card("greedy", [{"strength": 0, "layers": "two"}]), []),
        (card("lol", amateur="twin", layers="1+2", dynamic="true"), []),
    ],
)
def test_fields_of_a_card(engine: Engine, wrong: dict[str, Any], problems: list[tuple[str, str]]) -> None:
    for whole in (True, False):
        told = found(engine, "greedy", wrong, whole=whole, images=[picture()])
        assert [(number, field) for number, field, _ in told] == [(1, field) for field, _ in problems]
        for (_, _, message), (_, start) in zip(told, problems, strict=True):
            assert message.startswith(start)
            assert "\n" not in message


@each(
    ("fields", "problems"),
    [
        ({"cards": [card("cad"), card("adacad")]}, ["context", "context"]),
        ({"cards": [card("vcd")], "images": []}, ["images"]),
        ({"prompt": "  "}, ["prompt"]),
        ({"prompt": "word " * 3000}, ["prompt"]),
        ({"settings": {"max_new_tokens": MAX_NEW_TOKENS}}, ["prompt"]),
        ({"settings": {"temperature": 0, "top_p": 1.5}}, ["temperature", "top_p"]),
        ({"raw": True, "system": "Be brief."}, ["system"]),
        ({"raw": True, "system": "Be brief.", "prompt": ""}, ["prompt"]),
        ({"context": "A fork.", "cards": [card("cad")]}, []),
    ],
)
def test_fields_of_the_request(engine: Engine, fields: dict[str, Any], problems: list[str]) -> None:
    asked = {"images": [picture()]} | fields
    cards = asked.pop("cards", ["greedy"])
    told = found(engine, *cards, **asked)
    assert [(None, field) for field in problems] == [(number, field) for number, field, _ in told]
    assert found(engine, *cards, whole=False, **asked) == []


def test_ends_of_sliders_can_be_chosen(engine: Engine) -> None:
    """Every decoder takes both ends of its sliders; but for a block's number, which depends on the model."""
    for decoder in catalog():
        if decoder.name == "opera":
            continue
        ranged = [option for option in decoder.options if option.range and option.name != "layer"]
        for end in (0, 1):
            values = {option.name: f"{option.range[end]:g}" for option in ranged if option.range}
            assert found(engine, card(decoder.name, **values), whole=False) == [], decoder.name


def test_looking_for_problems_disturbs_no_run(engine: Engine) -> None:
    """Every decoder is made in one thread, over and over, while others answer in another."""
    cards = [card(name, [{"strength": 1, "layers": ""}]) for name in ("dola", "vcd", "ritual", "lol")]
    request = read_request(asking(*cards, images=[picture()]))
    names = [decoder.name for decoder in catalog() if decoder.name != "opera"]
    plain: list[dict[str, Any]] = []
    beside: list[dict[str, Any]] = []
    engine.run(request, plain.append)
    answering = threading.Thread(target=engine.run, args=(request, beside.append))
    answering.start()
    rounds = 0
    while answering.is_alive() or not rounds:
        everything = [card(name, [{"strength": 2, "layers": "1"}]) for name in names]
        for few in (everything[i : i + 8] for i in range(0, len(everything), 8)):
            assert found(engine, *few, context="A fork.", images=[picture()]) == []
        rounds += 1
    answering.join()
    texts = [[event["text"] for event in events if event["event"] == "answer"] for events in (plain, beside)]
    assert texts[0] == texts[1]
    assert len(texts[0]) == len(cards)


@pytest.mark.parametrize("scenes", [True, False])
def test_examples_can_be_run(engine: Engine, smollm2: Any, scenes: bool) -> None:
    asked = engine if scenes else Engine(*smollm2, "smollm2")
    for example in examples_for(scenes=scenes):
        images = [] if example.scene is None else [picture()]
        cards = [card(one.decoder, **one.options) for one in example.cards]
        fields = {"prompt": example.prompt, "context": example.context, "raw": example.raw}
        assert found(asked, *cards, images=images, **fields) == [], example.title


def test_a_run_with_a_wrong_field_never_stands_in_the_line(ask: Ask) -> None:
    status, _, content = ask("POST", "/api/run", asking("greedy", card("vcd", alpha="x"), "cad"))
    answer = json.loads(content)
    assert status == 422
    assert [(one["card"], one["field"]) for one in answer["problems"]] == [(1, "alpha"), (None, "context")]
    assert answer["error"] == answer["problems"][0]["message"]


def test_cards_are_checked_while_they_are_filled_in(ask: Ask) -> None:
    status, _, content = ask("POST", "/api/check", {"cards": [card("vcd", beta="7"), card("cad")]})
    assert status == 200
    (problem,) = json.loads(content)["problems"]
    assert (problem["card"], problem["field"]) == (0, "beta")
    assert ask("POST", "/api/check", {"cards": []})[0] == 400
    assert ask("POST", "/api/check", {"cards": [card("vcd")]}, Authorization=None)[0] == 401
