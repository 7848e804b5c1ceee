"""Requests of the wrong form are errors that say which field."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from PIL import Image

from tests.app.conftest import asking
from tests.each import each
from truthkit.app.request import MAX_CARDS, Steer, read_request
from truthkit.errors import ArgumentError


def encoded(size: tuple[int, int], kind: str = "PNG") -> str:
    stream = io.BytesIO()
    Image.new("1", size).save(stream, kind)
    return base64.b64encode(stream.getvalue()).decode()


def test_a_whole_request() -> None:
    steering = [{"strength": -1, "layers": " 1+2 "}, {"strength": None}]
    card = {
        "decoder": "icd",
        "options": {"lam": "0.5", "amateur_prompt": "Lie, beta=1, and lie."},
        "steering": steering,
    }
    written = {"decoder": "ritual:alpha=2+vcd", "options": None}
    pictures = [encoded((3, 2)), encoded((4, 4), "BMP") + "A" * 2**19]
    request = read_request(asking(card, written, system=" Be brief. ", images=pictures))
    assert (request.run, request.prompt, request.system, request.context, request.raw) == (
        "one",
        "Describe the picture.",
        "Be brief.",
        "",
        False,
    )
    for _ in range(2):  # so large that they lie in a file
        assert list(map(base64.b64decode, pictures)) == request.images.read()
    icd, both = request.cards
    assert icd.spec().options == {"lam": 0.5, "amateur_prompt": "Lie, beta=1, and lie."}
    assert icd.steering == (Steer(-1.0, "1+2"), Steer(0.0, ""))
    assert both.spec().name == "ritual+vcd"
    assert request.messages == []
    assert read_request(asking("greedy", messages=[*SAID, *SAID])).messages == [*SAID, *SAID]


SAID = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]


@each(
    ("change", "message"),
    [
        ({"prompt": 3}, "prompt is 3; expected text."),
        ({"cards": []}, "there is no decoder to answer; add one."),
        ({"cards": None}, "cards is not a list"),
        ({"cards": [{"decoder": "greedy"}] * (MAX_CARDS + 1)}, "cards is not a list of at most 8."),
        ({"cards": ["greedy"]}, "a decoder is not a JSON object."),
        ({"cards": [{"decoder": "icd", "options": {"lam": 1}}]}, "lam is 1; expected text."),
        ({"cards": [{"decoder": "icd", "steering": [{"strength": "1"}]}]}, "strength is '1'; expected a number."),
        ({"settings": {"max_new_tokens": 0}}, "max_new_tokens is 0; expected an integer from 1 to 4096."),
        ({"settings": {"max_new_tokens": 1e9}}, "max_new_tokens is 1000000000.0; expected an integer"),
        ({"settings": {"seed": -1}}, "seed is -1"),
        ({"settings": {"seed": None}}, "seed is None"),
        ({"settings": {"temperature": True}}, "temperature is True; expected a number."),
        ({"settings": {"temperature": float("inf")}}, "temperature is inf"),
        ({"settings": {"temperature": float("nan")}}, "temperature is nan"),
        ({"settings": {"top_p": 10**400}}, "top_p is 1000"),
        ({"raw": "no"}, "raw is 'no'; expected true or false."),
        ({"settings": {"sample": 1}}, "sample is 1; expected true or false."),
        ({"settings": {"top_k": 1}}, "settings has a field 'top_k' .did you mean 'top_p'"),
        ({"prompts": []}, "the request has a field 'prompts' .did you mean 'prompt'"),
        ({"prompt": [[[[[[[[1]]]]]]]]}, "prompt is \\[.*; expected text."),
        ({"prompt": "x" * 200_001}, "prompt has 200001 characters; shorten it to 200000."),
        ({"prompt": "x" * 150_000, "system": "y" * 60_000}, "system message and passage have 210000 characters"),
        ({"prompt": "half \ud800"}, "prompt has half a character"),
        ({"cards": [{"decoder": "x" * 10_001}]}, "decoder has 10001 characters; shorten it to 10000."),
        ({"messages": "hello"}, "messages is not a list of at most 64."),
        ({"messages": SAID * 33}, "messages is not a list of at most 64."),
        ({"messages": SAID[:1]}, "messages end with the user's"),
        ({"messages": SAID[1:]}, "message 1 has the role 'assistant'; expected 'user'."),
        ({"messages": [*SAID, {"role": "system", "content": "x"}]}, "message 3 has the role 'system'"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "message 1 has the role"),
        ({"messages": [{"role": "user", "content": " "}]}, "message 1 is empty"),
        ({"messages": [{"role": "user", "content": [1]}]}, "content is .1.; expected text."),
        ({"messages": ["Who?"]}, "message 1 is not a JSON object."),
        ({"messages": [{"role": "user", "content": "x", "name": "y"}]}, "message 1 has a field 'name'"),
        (
            {"prompt": "x" * 150_000, "messages": [{"role": "user", "content": "y" * 60_000}, SAID[1]]},
            "passage, with what was said before, have 210003 characters",
        ),
        ({"images": ["*"]}, "image 1 is not base64."),
        ({"images": [3]}, "image 1 is not base64."),
        ({"images": [base64.b64encode(b"<svg/>").decode()]}, "is no image that Pillow"),
        ({"images": [base64.b64encode(base64.b64decode(encoded((90, 90)))[:50]).decode()]}, "damaged or cut short"),
    ],
)
def test_wrong_fields(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message.replace("'", ".")):
        read_request(asking("greedy") | change)


@pytest.mark.parametrize(
    ("side", "message"),
    [
        (8000, "image 1 has 64 million pixels; shrink it to 40 million"),
        (20_000, "1 has 400 million pixels|is too large"),
    ],
)
def test_images_of_too_many_pixels(side: int, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        read_request(asking("greedy", images=[encoded((side, side))]))
