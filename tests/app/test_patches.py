"""Tokens against patches, over the states that the model itself returns."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

import truthkit as tk
from tests.app.conftest import Ask, asking
from tests.app.test_engine import SCENE, picture
from tests.each import each
from tests.tiny import tiny
from tests.tiny_vlm import picture as any_picture
from tests.tiny_vlm import tiny_vlm
from truthkit.app.engine import Engine
from truthkit.app.patches import patch_cosines
from truthkit.app.request import read_map_request
from truthkit.text.encode import encode_prompt

ANSWER = [70, 71, 72]


def mapped(engine: Engine, **changes: Any) -> list[dict[str, Any]]:
    document = asking("greedy", images=[picture()], answer=ANSWER, layer=1) | changes
    events: list[dict[str, Any]] = []
    engine.map(read_map_request(document), events.append)
    return json.loads(json.dumps(events, allow_nan=False))


def expected(states: torch.Tensor, patches: torch.Tensor, length: int) -> np.ndarray[Any, Any]:
    """Cosines of the last tokens with the patches, one by one."""
    rows = states.double().numpy()
    seen = [rows[i] for i in patches.nonzero().flatten().tolist()]
    return np.array([[one @ p / (np.linalg.norm(one) * np.linalg.norm(p)) for p in seen] for one in rows[length:]])


@pytest.mark.parametrize(("family", "grid"), [("llava", (2, 2)), ("qwen2_vl", (2, 4)), ("paligemma", (2, 2))])
def test_cosines_are_those_of_the_states(family: str, grid: tuple[int, int]) -> None:
    vlm = tiny_vlm(family)
    inputs = vlm.inputs(["{}hello"], [[any_picture(56, 28)]])
    length = inputs["input_ids"].shape[1] - 2
    found = patch_cosines(vlm.model, inputs, length, 1)
    with torch.no_grad():
        states = vlm.model(**inputs, output_hidden_states=True).hidden_states[2][0]
    patches = inputs["input_ids"][0] == vlm.model.config.image_token_id
    assert (found.rows, found.columns) == grid
    np.testing.assert_allclose(found.values, expected(states, patches, length), atol=1e-5)


@each("family", ["llava_next", "smolvlm", "instructblip", "internvl"])
def test_what_lies_in_no_grid_is_said(family: str) -> None:
    vlm = tiny_vlm(family)
    inputs = vlm.inputs(["{}hello"], [[any_picture(56, 28)]])
    with pytest.raises(tk.ArgumentError, match="image tokens of this prompt do not lie in one grid"):
        patch_cosines(vlm.model, inputs, inputs["input_ids"].shape[1] - 2, 1)


def test_a_text_model_has_no_patches() -> None:
    with pytest.raises(tk.ArgumentError, match="no image tokens among those of its prompt"):
        patch_cosines(tiny("llama"), {"input_ids": torch.tensor([[3, 4, 5]])}, 2, 0)


def test_a_map_is_of_the_steered_model(engine: Engine) -> None:
    model, processor = engine.model, engine.processor
    inputs = encode_prompt(processor, "Describe the picture.", images=[SCENE])
    length = inputs["input_ids"].shape[1]
    ids = torch.cat([inputs["input_ids"], torch.tensor([ANSWER])], dim=1)
    whole = inputs | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    vector = engine._vectors.loaded[0].vector
    assert isinstance(vector, tk.SteeringVector)
    steered = {"decoder": "greedy", "options": {}, "steering": [{"strength": 2.0, "layers": "1"}]}
    for cards, shift in (([{"decoder": "vcd", "options": {}}], 0.0), ([steered], 2.0)):
        event, end = mapped(engine, cards=cards, layer=2)
        assert end["event"] == "end"
        assert (event["event"], event["layer"], event["rows"], event["columns"]) == ("cosines", 2, 8, 8)
        assert event["src"].startswith("data:image/png;base64,")
        with vector.steer(model, strength=shift, layers=1), torch.no_grad():
            states = model(**whole, output_hidden_states=True).hidden_states[3][0]
        patches = ids[0] == model.config.image_token_id
        if not shift:
            np.testing.assert_allclose(event["values"], expected(states, patches, length), atol=2e-4)
            plain = event["values"]
    assert event["values"] != plain


@each(
    ("change", "message"),
    [
        ({"images": []}, "the prompt has 0 images; a map is for prompts with one."),
        ({"images": [picture()] * 2}, "the prompt has 2 images"),
        ({"layer": 9}, "layers contains 9"),
        ({"answer": [2**30]}, "answer holds a token that the model does not have."),
        ({"answer": [70] * 4000}, "prompt and answer has"),
    ],
)
def test_what_cannot_be_mapped_is_said(engine: Engine, change: dict[str, Any], message: str) -> None:
    error, end = mapped(engine, **change)
    assert error["event"] == "error"
    assert error["message"].startswith(message)
    assert end["event"] == "end"


@each(
    ("change", "message"),
    [
        ({"answer": []}, "a map is of one decoder's answer"),
        ({"answer": None}, "answer is not a list"),
        ({"answer": ["a"]}, "token is 'a'"),
        ({"layer": -1}, "layer is -1"),
        ({"cards": [{"decoder": "greedy", "options": {}}] * 2}, "a map is of one decoder's answer"),
        ({"prompts": ""}, "the request has a field 'prompts'"),
    ],
)
def test_wrong_requests_for_a_map(change: dict[str, Any], message: str) -> None:
    with pytest.raises(tk.ArgumentError, match=message):
        read_map_request(asking("greedy", answer=ANSWER, layer=1) | change)


def test_a_map_over_http(ask: Ask) -> None:
    document = asking("greedy", images=[picture()], answer=ANSWER, layer=1)
    status, _, content = ask("POST", "/api/map", document)
    assert status == 200
    assert [json.loads(line)["event"] for line in content.splitlines()] == ["cosines", "end"]
    assert ask("POST", "/api/map", document, Authorization=None)[0] == 401
