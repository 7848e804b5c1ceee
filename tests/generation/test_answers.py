"""One prompt, one decoder, one answer."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.decoding.cases import ToyTokenizer
from truthkit.generation.answers import answer, parts_at
from truthkit.generation.settings import AnswerSettings
from truthkit.text.encode import encode_prompt


@pytest.mark.parametrize(
    ("first", "other", "expected"),
    [
        ([1, 2, 3], [1, 2, 3], None),
        ([1, 2, 3], [1, 5, 3], 1),
        ([1, 2, 3], [4], 0),
        ([1, 2, 3], [1, 2], 2),
        ([1], [1, 2], 1),
        ([], [], None),
    ],
)
def test_where_answers_part(first: list[int], other: list[int], expected: int | None) -> None:
    assert parts_at(first, other) == expected


def test_an_answer_is_what_generate_gives(smollm2: Any) -> None:
    model, tokenizer = smollm2
    inputs = encode_prompt(tokenizer, "What is the capital of Australia?")
    steps = []
    result = answer(
        model, tokenizer, nullcontext(), inputs, AnswerSettings(max_new_tokens=16), on_token=lambda *_: steps.append(1)
    )
    expected = model.generate(**inputs, max_new_tokens=16, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert result.token_ids == expected.tolist()
    assert result.text == "The capital of Australia is Canberra."
    assert result.finished
    assert len(steps) == len(result.token_ids) == len(result.step_seconds) + 1
    assert result.tokens_per_second == pytest.approx(len(result.step_seconds) / sum(result.step_seconds))


def test_tokens_come_as_they_are_made_until_they_are_stopped(smollm2: Any) -> None:
    model, tokenizer = smollm2
    inputs = encode_prompt(tokenizer, "What is the capital of Australia?")
    came: list[tuple[int, Any]] = []
    stopped = answer(
        model,
        tokenizer,
        tk.DoLa(model),
        inputs,
        AnswerSettings(max_new_tokens=8),
        explain=True,
        on_token=lambda token, step: came.append((token, step)),
        stop=lambda: len(came) == 3,
    )
    whole = answer(model, tokenizer, tk.DoLa(model), inputs, AnswerSettings(max_new_tokens=8))
    assert [token for token, _ in came] == stopped.token_ids == whole.token_ids[:3]
    assert [step for _, step in came] == stopped.trace
    assert not stopped.finished


def test_a_listener_that_fails_leaves_the_model_as_it_was(smollm2: Any) -> None:
    model, tokenizer = smollm2
    inputs = encode_prompt(tokenizer, "Hi")
    with pytest.raises(ZeroDivisionError):
        answer(model, tokenizer, tk.DoLa(model), inputs, AnswerSettings(max_new_tokens=4), on_token=lambda *_: 1 / 0)
    with tk.DoLa(model):  # none is attached any more
        pass


def test_one_token_has_no_speed(smollm2: Any) -> None:
    model, tokenizer = smollm2
    result = answer(model, tokenizer, nullcontext(), encode_prompt(tokenizer, "Hi"), AnswerSettings(max_new_tokens=1))
    assert len(result.token_ids) == 1
    assert not result.finished
    assert result.tokens_per_second is None


def test_sampling_follows_its_seed_and_leaves_the_global_one(smollm2: Any) -> None:
    model, tokenizer = smollm2
    inputs = encode_prompt(tokenizer, "Tell me a story.")

    def sampled(seed: int) -> list[int]:
        settings = AnswerSettings(max_new_tokens=8, sample=True, temperature=2.0, seed=seed)
        return answer(model, tokenizer, nullcontext(), inputs, settings).token_ids

    before = torch.random.get_rng_state()
    assert sampled(1) == sampled(1) != sampled(2)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_beams(smollm2: Any) -> None:
    model, tokenizer = smollm2
    inputs = encode_prompt(tokenizer, "Who wrote Hamlet?")
    result = answer(model, tokenizer, tk.DoLa(model), inputs, AnswerSettings(max_new_tokens=6, num_beams=2))
    with tk.DoLa(model):
        expected = model.generate(**inputs, max_new_tokens=6, num_beams=2, do_sample=False)
    assert result.token_ids == expected[0, inputs["input_ids"].shape[1] :].tolist()


def test_a_prompt_that_does_not_fit(smollm2: Any) -> None:
    model, tokenizer = smollm2
    inputs = encode_prompt(tokenizer, "word " * 8150)
    with pytest.raises(tk.ArgumentError, match=r"up to 64 new ones has .* room for 8192"):
        answer(model, tokenizer, nullcontext(), inputs, AnswerSettings())


def test_prompts_with_and_without_the_template(smollm2: Any) -> None:
    _, tokenizer = smollm2
    chat = tokenizer.decode(encode_prompt(tokenizer, "Hi", system="Be brief.")["input_ids"][0])
    assert chat == ("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.decode(encode_prompt(tokenizer, "Hi", raw=True)["input_ids"][0]) == "Hi"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "the prompt is empty"),
        (" \n", {}, "the prompt is empty"),
        ("\udcff", {}, "not valid UTF-8"),
        ("Hi", {"system": "Be brief.", "raw": True}, "raw is set"),
    ],
)
def test_prompts_that_cannot_be(smollm2: Any, text: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(tk.ArgumentError, match=message):
        encode_prompt(smollm2[1], text, **options)


def test_a_system_message_needs_a_template() -> None:
    with pytest.raises(tk.ArgumentError, match="the tokenizer has none"):
        encode_prompt(ToyTokenizer(), "Hi", system="Be brief.")


@pytest.mark.parametrize(
    "options", [{"max_new_tokens": 0}, {"num_beams": 0}, {"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.5}]
)
def test_settings_out_of_range(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(tk.ArgumentError, match=f"{name} is "):
        AnswerSettings(**options)
