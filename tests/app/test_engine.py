"""What is streamed, against plain `generate` and plain forwards."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import truthkit as tk
from tests.app.conftest import asking
from truthkit.app.engine import Engine
from truthkit.app.request import read_request
from truthkit.app.scenes import scene_file, scene_of
from truthkit.images.transforms import TRANSFORMS
from truthkit.scenes.questions import held_out
from truthkit.scenes.render import render
from truthkit.serving.outbox import Gone
from truthkit.text.encode import encode_prompt

SCENE = render(held_out(1, seed=1)[0])


def picture(image: Image.Image = SCENE) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def events_of(engine: Engine, document: dict[str, Any]) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    engine.run(read_request(document), events.append)
    return json.loads(json.dumps(events, allow_nan=False))


def of(events: list[dict[str, Any]], kind: str, index: int = 0) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == kind and event.get("index", 0) == index]


def test_tokens_are_those_of_generate(engine: Engine) -> None:
    """Oracle: `generate` under the same decoder, without the app."""
    model, processor = engine.model, engine.processor
    events = events_of(engine, asking("greedy", {"decoder": "vcd", "options": {"alpha": "2"}}, images=[picture()]))
    inputs = encode_prompt(processor, "Describe the picture.", images=[SCENE])
    length = inputs["input_ids"].shape[1]
    plain = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, length:]
    with tk.VCD(model, alpha=2.0):
        contrasted = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, length:]
    for index, ids in enumerate((plain, contrasted)):
        text = processor.tokenizer.decode(ids, skip_special_tokens=True)
        tokens, (answer,) = of(events, "token", index), of(events, "answer", index)
        assert "".join(token["piece"] for token in tokens) == answer["text"] == text
        assert answer["tokens"] == len(tokens) == len(ids)
        assert all(0 <= token["probability"] <= 1 for token in tokens)
        for token in tokens:
            pushes = [view["push"] for view in token["views"]]
            assert (token["pushed_by"] is None) == (pushes[0] is None)
    same = (plain == contrasted).int().cumprod(dim=0).sum()
    assert of(events, "answer", 0)[0]["parts_at"] is None
    assert of(events, "answer", 1)[0]["parts_at"] == same
    assert {token["pushed_by"] for token in of(events, "token", 1)} == {None, "noisy image"}


def test_tokens_stand_where_the_model_puts_them(engine: Engine) -> None:
    """Oracle: the logits of one forward over prompt and answer, plain; under greedy nothing is moved."""
    model, processor = engine.model, engine.processor
    settings = {"max_new_tokens": 12, "seed": 3, "sample": True, "temperature": 3.0, "top_p": 1.0}
    tokens = of(events_of(engine, asking("sample", images=[picture()], settings=settings)), "token")
    inputs = encode_prompt(processor, "Describe the picture.", images=[SCENE])
    ids = torch.tensor([[token["id"] for token in tokens]])
    whole = torch.cat([inputs["input_ids"], ids], dim=1)
    with torch.no_grad():
        logits = model(**inputs | {"input_ids": whole, "attention_mask": torch.ones_like(whole)}).logits
    for token, row in zip(tokens, logits[0, inputs["input_ids"].shape[1] - 1 : -1].double(), strict=True):
        probabilities = row.softmax(-1)
        assert token["probability"] == pytest.approx(float(probabilities[token["id"]]), rel=1e-3)
        entropy = float(-(probabilities * probabilities.log()).sum())
        assert token["entropy"] == pytest.approx(entropy, rel=1e-3, abs=1e-5)
        assert token["rank"] == 1 + int((row > row[token["id"]]).sum())
        assert token["push"] == 0
    assert max(token["rank"] for token in tokens) > 1


def test_a_conversation_goes_on(engine: Engine) -> None:
    """Oracle: `generate` behind the chat as its template writes it, by hand."""
    model, processor = engine.model, engine.processor
    said = [{"role": "user", "content": "Describe it."}, {"role": "assistant", "content": "A fork."}]
    events = events_of(engine, asking("greedy", "ritual_plus", "icd", images=[picture()], messages=said))
    text = "USER: <image>\nDescribe it. ASSISTANT: A fork.</s>USER: Describe the picture. ASSISTANT:"
    inputs = processor(
        images=[SCENE], text=processor.tokenizer.bos_token + text, return_tensors="pt", add_special_tokens=False
    )
    plain = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert of(events, "answer")[0]["text"] == processor.tokenizer.decode(plain, skip_special_tokens=True)
    assert not [event for event in events if event["event"] == "error"]


def test_what_an_answer_names_of_a_scene(engine: Engine) -> None:
    """Only where the scene is known; the places are those of the words."""
    file = scene_file(4)
    fields = {"images": [base64.b64encode(file).decode()], "prompt": "Describe the image."}
    (answer,) = of(events_of(engine, asking("greedy", **fields)), "answer")
    objects, names = answer["objects"], scene_of(4).names
    assert set(objects["seen"]) <= set(names)
    assert not set(objects["invented"]) & set(names)
    assert set(objects["seen"]) | set(objects["missed"]) == set(names)
    words = {answer["text"][start:stop].lower().rstrip("s") for start, stop in objects["places"]}
    assert words == {name.rstrip("s") for name in objects["invented"]}
    (answer,) = of(events_of(engine, asking("greedy", images=[picture()], prompt="Describe the image.")), "answer")
    assert answer["objects"] is None


def test_steering_changes_the_answer_and_its_projections(engine: Engine) -> None:
    """Oracle: the hidden states that the model returns; at the steered layer, shifted by strength times norm."""
    model, processor = engine.model, engine.processor
    steered = {"decoder": "greedy", "options": {}, "steering": [{"strength": 6.0, "layers": "1"}]}
    events = events_of(engine, asking("greedy", steered, images=[picture()]))
    (vector,) = (loaded.vector for loaded in engine._vectors.loaded)
    inputs = encode_prompt(processor, "Describe the picture.", images=[SCENE])
    length = inputs["input_ids"].shape[1]
    plain = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    with vector.steer(model, strength=6.0, layers=1):
        pushed = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    assert not torch.equal(plain, pushed)
    for index, ids, layer, shift in ((0, plain, 1, 0.0), (0, plain, 2, 0.0), (1, pushed, 1, 6.0)):
        whole = inputs | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        with torch.no_grad():
            states = model(**whole, output_hidden_states=True).hidden_states[layer + 1][0, length:]
        expected = states @ vector[layer] / vector[layer].norm() + shift * vector[layer].norm()
        (event,) = of(events, "projections", index)
        np.testing.assert_allclose(event["layers"][str(layer)], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("decoder", ["ritual", "ritual_plus", "ritual:seed=3+vcd"])
def test_the_sheet_shows_what_was_drawn(engine: Engine, decoder: str) -> None:
    """Oracle: the pixels that the decoder's second view was given."""
    seen: list[torch.Tensor] = []
    options: dict[str, str] | None = None if ":" in decoder else {}
    processor = engine.processor
    tower = engine.model.base_model.vision_tower
    handle = tower.register_forward_pre_hook(
        lambda _module, args, kwargs: seen.append(args[0] if args else kwargs["pixel_values"]), with_kwargs=True
    )
    try:
        events = events_of(engine, asking({"decoder": decoder, "options": options}, images=[picture()]))
    finally:
        handle.remove()
    (event,) = of(events, "transforms")
    (cells,) = event["sheets"]
    assert [cell["name"] for cell in cells] == ["original", *(name.replace("_", " ") for name in TRANSFORMS)]
    (drawn,) = (cell for cell in cells if cell["drawn"])
    shown = Image.open(io.BytesIO(base64.b64decode(drawn["src"].partition(",")[2])))
    expected = processor.image_processor(images=shown, return_tensors="pt")["pixel_values"]
    rows = torch.cat(seen)
    assert any(torch.allclose(row, expected[0], atol=1e-5) for row in rows)
    assert (event["reply"] is not None) == (decoder == "ritual_plus")


@pytest.mark.parametrize("decoder", ["vcd:noise_step=300,seed=4", "ritual+vcd:noise_step=300,seed=4", "apc"])
def test_the_noised_picture_is_what_the_view_was_given(engine: Engine, decoder: str) -> None:
    """Oracle: the pixels that came to the vision tower."""
    seen: list[torch.Tensor] = []
    handle = engine.model.base_model.vision_tower.register_forward_pre_hook(
        lambda _module, args, kwargs: seen.append(args[0] if args else kwargs["pixel_values"]), with_kwargs=True
    )
    try:
        events = events_of(engine, asking({"decoder": decoder, "options": None}, images=[picture()]))
    finally:
        handle.remove()
    found = of(events, "noised")
    if "vcd" not in decoder:
        assert found == []
        return
    (event,) = found
    assert event["step"] == 300
    rows = [((row / 2 + 0.5).clamp(0, 1) * 255).round() for row in torch.cat(seen)]
    for name in ("seen", "noised"):
        shown = Image.open(io.BytesIO(base64.b64decode(event[name].partition(",")[2])))
        pixels = torch.tensor(np.asarray(shown)).permute(2, 0, 1).float()
        assert any(torch.equal(pixels, row) for row in rows), name
    assert event["seen"] != event["noised"]


def test_an_error_stays_on_its_card(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    cards = [
        {"decoder": "icd", "options": {"lam": "much"}},
        {"decoder": "nonsense", "options": {}},
        {"decoder": "cad", "options": {}},
        {"decoder": "ritual", "options": {}},
        {"decoder": "icd", "options": {"amateur": "/etc"}},
        {"decoder": "icd:amateur=x+dola", "options": None},
        {"decoder": "dola", "options": {"layers": "99"}},
        "greedy",
    ]
    events = events_of(engine, asking(*cards))
    messages = [event["message"] for event in events if event["event"] == "error"]
    starts = [
        "option 'lam' of decoder 'icd' is 'much'",
        "there is no decoder 'nonsense'",
        "cad amplifies what a passage says",
        "ritual compares images; add one",
        "amateur is '/etc'; those given by --amateur when the app started are 'twin'",
        "amateur is 'x'",
        "layers contains 99",
    ]
    assert len(messages) == len(starts)
    assert all(message.startswith(start) for message, start in zip(messages, starts, strict=True))
    assert of(events, "answer", 7)
    assert capsys.readouterr().err == ""


def test_steering_is_for_every_vector_or_none(engine: Engine) -> None:
    card = {"decoder": "greedy", "options": {}, "steering": [{"strength": 1}] * 2}
    (error,) = of(events_of(engine, asking(card)), "error")
    assert error["message"] == "steering has 2 entries; expected one for each vector, of which the app has 1."


def test_a_fault_is_told_with_its_type(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine.model, "generate", lambda **_: {}["gone"])
    (error,) = of(events_of(engine, asking("greedy")), "error")
    assert error["message"] == "KeyError: 'gone'"
    assert "Traceback" in capsys.readouterr().err


def test_amateurs_and_passages(engine: Engine) -> None:
    icd = {"decoder": "icd", "options": {"amateur": "twin", "lam": "0"}}
    events = events_of(engine, asking("greedy", icd, "cad", context="A fork lies there."))
    greedy, contrasted = (of(events, "answer", index)[0] for index in (0, 1))
    assert contrasted["text"] == greedy["text"]
    assert [view["name"] for view in of(events, "token", 1)[0]["views"]] == ["main", "amateur"]
    assert [view["name"] for view in of(events, "token", 2)[0]["views"]] == ["main", "without context"]


def test_a_stop_ends_after_the_token(engine: Engine) -> None:
    events: list[dict[str, Any]] = []

    def stop() -> bool:
        return sum(one["event"] == "token" for one in events) == 3

    engine.run(read_request(asking("greedy", "dola")), events.append, stop)
    assert len(of(events, "token")) == of(events, "answer")[0]["tokens"] == 3
    assert not of(events, "answering", 1)
    assert events[-1] == {"event": "end", "cancelled": True, "seconds": events[-1]["seconds"]}
    assert not events_of(engine, asking("greedy"))[-1]["cancelled"]


def test_a_listener_that_has_gone_ends_the_run(engine: Engine) -> None:
    calls = 0

    def emit(_event: dict[str, Any]) -> None:
        nonlocal calls
        if (calls := calls + 1) == 3:
            raise Gone

    with pytest.raises(Gone):
        engine.run(read_request(asking("dola", "greedy")), emit)
    assert calls == 3
    assert events_of(engine, asking("greedy"))[-1]["event"] == "end"


def test_draws_repeat_with_the_seed(engine: Engine) -> None:
    def texts(seed: int) -> list[str]:
        settings = {"max_new_tokens": 8, "seed": seed, "sample": True, "temperature": 2.0, "top_p": 1.0}
        events = events_of(engine, asking("greedy", "sample", "dola", settings=settings))
        return [of(events, "answer", index)[0]["text"] for index in range(3)]

    first, again, other = texts(1), texts(1), texts(2)
    assert first == again
    assert first[0] == other[0]
    assert first[1:] != other[1:]


def test_a_vision_tower_is_steered_and_has_no_projections(scene_vlm: Any, tmp_path: Any) -> None:
    from truthkit.steering.spec import parse_steer

    model, processor = scene_vlm
    vector, path = tk.vision_vector(model, processor, [SCENE], trials=1), tmp_path / "vision.safetensors"
    vector.save(path)
    engine = Engine(model, processor, "scene-vlm", steers=[parse_steer(str(path))])
    assert engine.about()["vectors"] == [
        {"name": "vision.safetensors", "strength": 0.09, "layers": "", "all_layers": [0, 1, 2, 3], "site": "vision"}
    ]
    cards = [
        {"decoder": "greedy", "options": {}, "steering": [{"strength": strength, "layers": "1+2"}]}
        for strength in (0.0, 3.0)
    ]
    events = events_of(engine, asking(*cards, images=[picture()]))
    assert not [event for event in events if event["event"] in ("projections", "error")]
    inputs = encode_prompt(processor, "Describe the picture.", images=[SCENE])
    with tk.VisionSteering(model, vector, strength=3.0, layers=[1, 2]):
        pushed = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    text = processor.tokenizer.decode(pushed[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert of(events, "answer", 1)[0]["text"] == text != of(events, "answer", 0)[0]["text"]


def test_a_vector_of_another_model_is_refused_at_the_start(scene_vlm: Any, tmp_path: Any) -> None:
    from truthkit.steering.spec import parse_steer
    from truthkit.steering.vector import SteeringVector

    SteeringVector({0: torch.ones(7)}, 4).save(tmp_path / "v.safetensors")
    with pytest.raises(tk.ModelError, match="7 features"):
        Engine(*scene_vlm, "scene-vlm", steers=[parse_steer(str(tmp_path / "v.safetensors"))])
