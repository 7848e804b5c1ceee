"""What a request may say, and what it is told where it says something else."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.each import each
from truthkit.endpoint.request import IGNORED, NEUTRAL, Reader
from truthkit.endpoint.stops import UntilStop
from truthkit.errors import ArgumentError
from truthkit.serving.asgi import Refused

HELLO = [{"role": "user", "content": "Hello"}]


def data_url(size: tuple[int, int] = (8, 8)) -> str:
    stream = io.BytesIO()
    Image.new("RGB", size, "red").save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def with_image(url: Any) -> list[dict[str, Any]]:
    parts = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": url, "detail": "low"}}]
    return [{"role": "user", "content": parts}]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "messages is not a list"),
    ({"messages": []}, "messages is empty"),
    ({"messages": [{"role": "user"}]}, "message 1 has no content"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "role 'tool'; expected system, developer, user, assistant"),
    ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "field|type 'input_audio'"),
    ({"messages": [{"role": "user", "content": "  "}]}, "hold no text"),
    ({"messages": [{"role": "user", "content": "\ud800"}]}, "lone surrogate"),
    ({"messages": with_image(data_url())}, "text-only model: it takes no images"),
    ({"messages": HELLO, "max_tokens": 0}, "max_tokens is 0; expected an integer from 1"),
    ({"messages": HELLO, "max_tokens": 401}, "asks for 401 new tokens; this server gives 400"),
    ({"messages": [{"role": "user", "content": "x" * 600}]}, "more than the 512 that the model has room for"),
    ({"messages": HELLO, "temperature": -1}, "temperature is -1.0; expected 0, or a number from 0.01 to 2.0"),
    ({"messages": HELLO, "temperature": 1e-9}, "expected 0, or a number from 0.01"),
    ({"messages": HELLO, "top_p": 0}, "top_p is 0.0; expected a number above 0"),
    ({"messages": HELLO, "n": 129}, "n is 129; expected an integer from 1 to 128"),
    ({"messages": HELLO, "stop": ["x"] * 17}, "stop is not a list of at most 16"),
    ({"messages": HELLO, "seed": 0.5}, "seed is 0.5; expected an integer"),
    ({"messages": HELLO, "top_logprobs": 3}, "top_logprobs goes with logprobs"),
    ({"messages": HELLO, "stream_options": {"usage": True}}, "stream_options has a field 'usage'"),
    ({"messages": HELLO, "frequency_penalty": 0.5}, "frequency_penalty is 0.5, which this server does not do"),
    ({"messages": HELLO, "tools": [{"type": "function"}]}, "tools is .*, which this server does not do"),
    ({"messages": HELLO, "temprature": 1}, "a field 'temprature' .did you mean 'temperature'"),
    ({"messages": HELLO, "decoder": "dolla"}, "no decoder 'dolla' .did you mean 'dola'"),
    ({"messages": HELLO, "decoder": "vcd"}, "'vcd' compares images, and this model takes none"),
    ({"messages": HELLO, "decoder": "icd:amateur=/etc"}, "amateur '/etc'; those given .* are 'twin'"),
    ({"messages": HELLO, "decoder": "sled:steps=1000000000"}, "'steps' of decoder 'sled' is 1000000000; .* up to 1000"),
    ({"messages": HELLO, "decoder": "opera:num_beams=17"}, "'num_beams' of decoder 'opera' is 17; .* up to 16"),
    ({"messages": HELLO, "decoder": "icd+dola+apc+sled+icd"}, "is 5 decoders at once; expected 4"),
    ({"messages": HELLO, "decoder": "cad"}, "give the passage as context"),
    ({"messages": HELLO, "context": "Once."}, "context is for decoders that compare with and without it"),
    ({"messages": HELLO, "decoder": "greedy", "temperature": 1}, "'greedy' draws nothing"),
    ({"messages": HELLO, "decoder": "sample", "temperature": 0}, "'sample' draws tokens, and temperature is 0"),
    ({"messages": HELLO, "decoder": "opera", "temperature": 1}, "'opera' searches: nothing is drawn"),
    ({"messages": HELLO, "steer": "tone"}, "tone is 'tone'; expected a number"),
    ({"messages": HELLO, "steer": {"/etc/passwd": 1}}, "steer names '/etc/passwd'; the server has 'tone'"),
    ({"messages": HELLO, "generation_config": "x"}, "generation_config is not a JSON object"),
]

WRONG_TEXTS: list[tuple[dict[str, Any], str]] = [
    ({}, "prompt is missing or empty"),
    ({"prompt": ["a", [1]]}, "neither texts alone nor lists of token ids"),
    ({"prompt": [5, 4000]}, "token ids out of range; expected 0 to 127"),
    ({"prompt": "x", "suffix": "y"}, "suffix is 'y', which this server does not do"),
    ({"prompt": "x", "best_of": 3}, "best_of is 3; expected n"),
    ({"prompt": "x", "echo": True, "logprobs": 1, "max_tokens": 5}, "set max_tokens to 0 or 1, not 5"),
    ({"prompt": ["x"] * 100, "n": 2}, "asks for 200 answers; expected 128 or fewer"),
    ({"prompt": [5], "decoder": "cad", "context": "Once."}, "prompt is token ids; send the text"),
]


@each(("document", "message"), WRONG)
def test_a_wrong_chat_is_told_what_is_wrong(reader: Reader, document: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        reader.chat(document)


@each(("document", "message"), WRONG_TEXTS)
def test_a_wrong_text_is_told_what_is_wrong(reader: Reader, document: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        reader.text(document)


def test_another_model_is_not_here(reader: Reader) -> None:
    with pytest.raises(Refused, match="no model 'gpt-4' here; this server has 'toy'") as refused:
        reader.chat({"messages": HELLO, "model": "gpt-4"})
    assert refused.value.status == 404


def test_what_asks_for_nothing_is_passed_over(reader: Reader) -> None:
    plain = reader.chat({"messages": HELLO, "seed": 1}).wishes
    document = dict.fromkeys(IGNORED, "whatever") | {name: values[0] for name, values in NEUTRAL.items()}
    asked = reader.chat({"messages": HELLO, "seed": 1, "stop": None, "steer": None, "top_logprobs": 0} | document)
    assert [replace(wish, images=plain[0].images) for wish in asked.wishes] == list(plain)


def test_choices_have_seeds_of_their_own_and_prompts_the_same(reader: Reader) -> None:
    wishes = reader.text({"prompt": ["a", "b"], "n": 2, "seed": 5, "temperature": 1}).wishes
    seeds = [wish.seed for wish in wishes]
    assert seeds[0] == seeds[2] == 5
    assert seeds[1] == seeds[3] != 5


def test_transformers_chat_says_it_in_a_generation_config(reader: Reader) -> None:
    config = '{"max_new_tokens": 7, "do_sample": true, "top_p": 0.5, "transformers_version": "5.0"}'
    (wish,) = reader.chat({"messages": HELLO, "generation_config": config}).wishes
    assert (wish.limit, wish.temperature, wish.top_p) == (7, 1.0, 0.5)


@pytest.mark.parametrize("stops", [["END"], ["aab", "ab"], ["a"], []])
def test_a_text_up_to_its_stop_whatever_its_pieces(stops: list[str]) -> None:
    """The oracle cuts the whole text."""
    for text in ("", "xxEND yy", "EEN", "aaaab", "baab", "no", "EN", "aa"):
        cut = min((text.index(stop) for stop in stops if stop in text), default=len(text))
        for size in (1, 2, 5):
            until, shown, ended = UntilStop(stops), "", False
            for start in range(0, len(text), size):
                if not ended:
                    piece, ended = until(text[start : start + size])
                    shown += piece
                    assert text[:cut].startswith(shown)
            assert shown + ("" if ended else until.rest()) == text[:cut]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = (
    *("model", "messages", "prompt", "max_tokens", "n", "stream", "stream_options", "stop", "seed", "temperature"),
    *("top_p", "logprobs", "top_logprobs", "decoder", "context", "steer", "generation_config", "echo", "tools"),
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "system", "assistant", "tool"]), "content": st.text(max_size=8) | JSON}
)
GOOD = {
    "messages": st.lists(MESSAGE, max_size=3),
    "prompt": st.text(max_size=8) | st.lists(st.integers(-1, 130), max_size=3),
    "decoder": st.sampled_from(["dola", "icd:lam=0.5", "cad", "opera", "dola:layers=1+2", "icd+dola"]) | st.text(),
    "steer": st.dictionaries(st.just("tone"), st.floats(-3, 3)) | st.floats(),
    "logprobs": st.booleans() | st.integers(0, 6),
}
DOCUMENT = st.lists(
    st.sampled_from(FIELDS).flatmap(lambda name: st.tuples(st.just(name), GOOD.get(name, JSON) | JSON)), max_size=6
).map(dict)


def read_or_refused(reader: Reader, document: Any) -> None:
    for read in (reader.chat, reader.text):
        said = ""
        try:
            read(document)
        except (ArgumentError, Refused) as error:
            said = str(error) or "\n"
        assert "\n" not in said


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(document=DOCUMENT | JSON)
def test_whatever_comes_is_read_or_refused_in_a_line(reader: Reader, document: Any) -> None:
    read_or_refused(reader, document)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(document=DOCUMENT | JSON)
def test_whatever_comes_many_times_more(reader: Reader, document: Any) -> None:
    read_or_refused(reader, document)
