"""OPERA against its definition (`opera_oracle`), and, with nothing to penalize, against transformers' beam search."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    DynamicCache,
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    PreTrainedModel,
    QuantizedCache,
    StoppingCriteria,
    TextStreamer,
)

import truthkit as tk
from tests.decoding.cases import ToyTokenizer
from tests.decoding.opera_oracle import Found, forward_of, opera_by_definition
from tests.decoding.test_contrastive_search import left_clean
from tests.each import each
from tests.tiny import padded_batch, tiny
from tests.tiny_vlm import picture, tiny_vlm
from truthkit.decoding.opera.overtrust import column_products, most_frequent, over_trust
from truthkit.decoding.spec import parse_spec
from truthkit.generation.answers import answer
from truthkit.generation.settings import AnswerSettings

BEAMS, CANDIDATES, NEW = 3, 4, 24
SMALL: dict[str, Any] = {"scale_factor": 6.0, "threshold": 2}
"""With these, tiny models go back."""


def search(model: PreTrainedModel, inputs: dict[str, torch.Tensor], **options: Any) -> Any:
    """The continuations, shape (batch * returned, new)."""
    defaults = {"num_beams": BEAMS, "num_attn_candidates": CANDIDATES, "max_new_tokens": NEW, "do_sample": False}
    if "custom_generate" in options:
        del defaults["num_attn_candidates"]
    found = model.generate(**inputs, **defaults | {"custom_generate": tk.opera} | options)
    if isinstance(found, torch.Tensor):
        return found[:, inputs["input_ids"].shape[1] :]
    return found


def defined(forward: Any, ids: torch.Tensor, images: list[int] | None = None, **options: Any) -> Found:
    """What the definition gives for one prompt."""
    given = {"new": NEW, "beams": BEAMS, "candidates": CANDIDATES, "scale": 50.0, "threshold": 15, "weight": 1.0}
    names = {"scale_factor": "scale", "penalty_weights": "weight", "num_attn_candidates": "candidates"}
    given |= {names.get(name, name): value for name, value in options.items()}
    return opera_by_definition(forward, ids.shape[1], images or [], **given)


def rows(batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    return [ids[mask.bool()][None] for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]


def check(
    family: str, lengths: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float64, **options: Any
) -> list[Found]:
    """Compare a left-padded batch with the definition, prompt by prompt."""
    model = tiny(family, dtype=dtype)
    with left_clean(model):
        found = search(model, padded_batch(*lengths, seed=seed), **options)
    eager = tiny(family, dtype=dtype, attn_implementation="eager")
    every = []
    for row, ids in zip(found.tolist(), rows(padded_batch(*lengths, seed=seed)), strict=True):
        expected = defined(forward_of(eager, {"input_ids": ids}), ids, **options)
        assert row == expected.tokens, (ids.shape[1], expected.jumps)
        every.append(expected)
    return every


@pytest.mark.parametrize(
    ("family", "lengths"),
    [("llama", (4, 7)), pytest.param("qwen2", (4, 7), marks=pytest.mark.slow), ("gpt2", (4, 7))],
)
def test_goes_back_as_by_definition(family: str, lengths: tuple[int, ...]) -> None:
    """Some of a batch's prompts go back, others do not."""
    jumps = [one.jumps for one in check(family, lengths, **SMALL)]
    assert any(jumps)
    if family != "gpt2":
        assert not all(jumps)


def test_published_settings() -> None:
    check("llama", (3, 8, 5))


@each("family", ["mistral", "gemma3_text"])
def test_windows(family: str) -> None:
    """Longer than the window of 16; Gemma 3 has layers of both kinds."""
    check(family, (6,), dtype=torch.float32, **SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["phi3", "qwen3", "gemma", "gemma2", "mixtral", "phi", "gpt_neox", "opt"])
def test_more_architectures(family: str) -> None:
    check(family, (4, 7), dtype=torch.float32, **SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_more_prompts(seed: int) -> None:
    check("llama", (2, 9, 5, 6), seed=seed, scale_factor=5.0, threshold=3)


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_images(family: str) -> None:
    """Image tokens are rewarded in the first ten steps; Qwen2-VL's positions have three axes."""
    bench, eager = tiny_vlm(family, dtype=torch.float64), tiny_vlm(family, dtype=torch.float64).model
    eager.set_attn_implementation("eager")
    texts, pictures = ["{}What?", "And {}this, tell me"], [[picture(30, 30, 1)], [picture(30, 30, 2)]]
    batch = bench.inputs(texts, pictures)
    bench.model.generate(**batch, max_new_tokens=1)  # leaves attributes of transformers' own
    with left_clean(bench.model):
        found = search(bench.model, batch, **SMALL)
    jumps = []
    for number in range(2):
        inputs: Any = bench.inputs(texts[number : number + 1], pictures[number : number + 1])
        ids = inputs["input_ids"]
        images = (ids[0] == bench.model.config.image_token_id).nonzero()[:, 0].tolist()
        expected = defined(forward_of(eager, inputs), ids, images, **SMALL)
        assert found[number].tolist() == expected.tokens
        assert len(images) >= 4
        jumps += expected.jumps
        without = defined(forward_of(eager, inputs), ids, [], new=8)
        seen = defined(forward_of(eager, inputs), ids, images, new=8)
        assert (without.tokens, without.score) != (seen.tokens, seen.score)
    assert jumps or family != "llava"


def test_ends_and_lengths() -> None:
    ends, options = (44, 80, 97), {"length_penalty": 0.7}
    model, eager = tiny("llama", dtype=torch.float64), tiny("llama", dtype=torch.float64, attn_implementation="eager")
    batch = padded_batch(4, 7)
    found = search(model, batch, eos_token_id=list(ends), pad_token_id=0, **SMALL, **options)
    lengths = set()
    for row, ids in zip(found.tolist(), rows(batch), strict=True):
        expected = defined(forward_of(eager, {"input_ids": ids}), ids, ends=ends, **SMALL, **options)
        assert row == expected.tokens + [0] * (len(row) - len(expected.tokens))
        lengths.add(len(expected.tokens))
    assert min(lengths) < NEW


def test_logits_processors_come_first() -> None:
    """A token that they rule out is no candidate; they see the beams' own tokens, also where prompts went back."""
    model, eager = tiny("llama", dtype=torch.float64), tiny("llama", dtype=torch.float64, attn_implementation="eager")
    batch, rule = padded_batch(7, 7), NoRepeatNGramLogitsProcessor(1)
    found = search(model, batch, no_repeat_ngram_size=1, **SMALL)
    for row, ids in zip(found.tolist(), rows(batch), strict=True):
        expected = defined(forward_of(eager, {"input_ids": ids}, rule), ids, **SMALL)
        assert row == expected.tokens
        assert len(set(row)) == NEW
    assert torch.equal(search(model, batch, logits_processor=LogitsProcessorList([rule]), **SMALL), found)


@pytest.mark.slow
def test_real_model(smollm2: Any) -> None:
    """The first of two prompts, which is padded."""
    model, tokenizer = smollm2
    inputs = dict(tokenizer(["Once", "The three states"], return_tensors="pt", padding=True, padding_side="left"))
    found = search(model, inputs, num_beams=2, num_attn_candidates=2, threshold=2, pad_token_id=0)
    end = model.generation_config.eos_token_id
    ids = rows(inputs)[0]
    model.set_attn_implementation("eager")
    try:
        forward = forward_of(model, {"input_ids": ids})
        expected = defined(forward, ids, beams=2, num_attn_candidates=2, threshold=2, ends=(end,))
    finally:
        model.set_attn_implementation("sdpa")
    assert found[0, : len(expected.tokens)].tolist() == expected.tokens


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"length_penalty": 0.0, "num_return_sequences": 3},
        {"length_penalty": 2.0, "early_stopping": True, "num_return_sequences": 2},
        {"length_penalty": -1.0, "early_stopping": "never"},
    ],
)
def test_without_penalty_it_is_beam_search(options: dict[str, Any]) -> None:
    """All of the vocabulary are candidates; the oracle is transformers."""
    model, batch = tiny("llama", dtype=torch.float64), padded_batch(3, 6, 4)
    common = {"eos_token_id": [44, 80], "pad_token_id": 1, "return_dict_in_generate": True, "max_new_tokens": 12}
    expected = search(model, batch, custom_generate=None, output_scores=True, **common | options)
    nothing = {"penalty_weights": 0.0, "threshold": 99, "num_attn_candidates": 128}
    found = search(model, batch, **common | nothing | options)
    width = batch["input_ids"].shape[1]
    for mine, theirs in zip(found.sequences[:, width:].tolist(), expected.sequences[:, width:].tolist(), strict=True):
        assert [t for t in mine if t != 1] == [t for t in theirs if t != 1]
    torch.testing.assert_close(found.sequences_scores.float(), expected.sequences_scores, rtol=1e-5, atol=1e-5)


def test_block_and_callable_agree() -> None:
    model, batch = tiny("llama"), padded_batch(4, 6)
    model.generation_config.pad_token_id = 0
    expected = search(model, batch, num_beams=5, **SMALL)
    with left_clean(model):
        with tk.OPERA(model, num_attn_candidates=CANDIDATES, **SMALL) as block:
            found = model.generate(**batch, max_new_tokens=NEW, do_sample=False)
            fewer = model.generate(**batch, max_new_tokens=NEW, do_sample=False, num_beams=BEAMS)
        assert block.spec == "opera:scale_factor=6.0,threshold=2,num_attn_candidates=4"
    assert torch.equal(found[:, 6:], expected)
    assert torch.equal(fewer[:, 6:], search(model, batch, **SMALL))
    with parse_spec(block.spec).build(model, None):
        assert torch.equal(model.generate(**batch, max_new_tokens=NEW, do_sample=False), found)


def test_steered() -> None:
    """Candidates are steered as the tokens that they may become."""
    model, eager = tiny("llama", dtype=torch.float64), tiny("llama", dtype=torch.float64, attn_implementation="eager")
    batch, vector = padded_batch(4), torch.randn(48, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with tk.Steering(model, {1: vector}, strength=0.5):
        found = search(model, batch, **SMALL)
    with tk.Steering(eager, {1: vector}, strength=0.5):
        expected = defined(forward_of(eager, {"input_ids": batch["input_ids"]}), batch["input_ids"], **SMALL)
    assert found[0].tolist() == expected.tokens
    assert expected.jumps


def test_no_explanation_of_beams() -> None:
    model = tiny("llama")
    with pytest.raises(tk.ArgumentError, match="OPERA's beams go back"):
        answer(model, None, tk.OPERA(model), padded_batch(5), AnswerSettings(max_new_tokens=4), explain=True)


def test_stopping_criteria() -> None:
    class Fifth(StoppingCriteria):
        def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> Any:
            return torch.full((len(input_ids),), input_ids.shape[1] >= 7 + 5)

    model, batch = tiny("llama"), padded_batch(7)
    assert search(model, batch, stopping_criteria=[Fifth()]).shape == (1, 5)


def test_embeddings_in_place_of_tokens() -> None:
    model, batch = tiny("llama", dtype=torch.float64), padded_batch(4, 7)
    inputs = {"inputs_embeds": model.get_input_embeddings()(batch["input_ids"]).detach()}
    inputs["attention_mask"] = batch["attention_mask"]
    options: dict[str, Any] = {"num_beams": BEAMS, "max_new_tokens": NEW, "do_sample": False, **SMALL}
    found = model.generate(**inputs, custom_generate=tk.opera, num_attn_candidates=CANDIDATES, **options)
    assert torch.equal(found, search(model, batch, **SMALL))


def test_one_candidate_and_one_beam() -> None:
    """One candidate of one beam is greedy search, unless it goes back."""
    model, batch = tiny("llama"), padded_batch(4, 6)
    found = search(model, batch, num_beams=1, num_attn_candidates=1, threshold=99)
    assert torch.equal(found, model.generate(**batch, max_new_tokens=NEW, do_sample=False)[:, 6:])
    with tk.OPERA(model, num_beams=1, num_attn_candidates=1, threshold=99):
        assert torch.equal(model.generate(**batch, max_new_tokens=NEW, do_sample=False)[:, 6:], found)


def test_a_static_cache_is_replaced() -> None:
    model, batch = tiny("llama"), padded_batch(4, 6)
    with pytest.warns(UserWarning, match="OPERA replaces the static cache"):
        found = search(model, batch, cache_implementation="static", **SMALL)
    assert torch.equal(found, search(model, batch, **SMALL))


def test_products_by_hand() -> None:
    """Two tokens, then a third: columns 6 · 0.5 · 6 · 0.25 · 6 · 0.125 and so on."""
    first = column_products(torch.zeros(1, 0, dtype=torch.float64), torch.zeros(1, 0), torch.tensor([0.5]), 6.0)
    second = column_products(first, torch.tensor([[0.25]]), torch.tensor([0.75]), 6.0)
    third = column_products(second, torch.tensor([[0.125, 0.0]]), torch.tensor([0.2]), 6.0)
    torch.testing.assert_close(third.exp(), torch.tensor([[3.0 * 1.5 * 0.75, 0.0, 1.2]], dtype=torch.float64))
    penalty, place = over_trust(third)
    assert place.tolist() == [0]
    assert float(penalty) == pytest.approx(3.375e-7)
    assert over_trust(torch.tensor([[1e4, 2e4]], dtype=torch.float64))[0].isfinite().all()
    assert most_frequent(torch.tensor([[3, 1, 1, 3], [2, 0, 2, 2]])).tolist() == [1, 2]


@each(
    ("options", "message"),
    [
        ({"do_sample": True}, "do_sample is True, .* but OPERA is a beam search"),
        ({"scale_factor": 0}, "scale_factor is 0; expected a number above 0"),
        ({"scale_factor": float("nan")}, "scale_factor is nan; expected a finite number"),
        ({"threshold": 0}, "threshold is 0; expected a whole number"),
        ({"num_attn_candidates": 1.5}, "num_attn_candidates is 1.5; expected a whole number"),
        ({"penalty_weights": -1}, "penalty_weights is -1; expected 0 or more"),
        ({"return_dict_in_generate": True, "output_scores": True}, "output_scores is not recorded by OPERA"),
        ({"prompt_lookup_num_tokens": 3, "num_beams": 1}, "OPERA drafts no tokens"),
        ({"inputs_embeds": torch.zeros(1, 0, 48), "input_ids": None, "attention_mask": None}, "the prompt is empty"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    model, batch, options = tiny("llama"), padded_batch(5), dict(options)
    expected = search(model, batch)
    with left_clean(model), pytest.raises(tk.ArgumentError, match=message):
        search(model, {name: options.pop(name, value) for name, value in batch.items()}, **options)
    assert torch.equal(search(model, batch), expected)


def test_bad_settings_of_the_block() -> None:
    model = tiny("llama")
    with pytest.raises(tk.ArgumentError, match="num_beams is 0"):
        tk.OPERA(model, num_beams=0)
    with left_clean(model), tk.OPERA(model):
        with pytest.raises(tk.ArgumentError, match="a streamer was passed"):
            model.generate(**padded_batch(4), streamer=TextStreamer(ToyTokenizer()), max_new_tokens=4)
        with pytest.raises(tk.ArgumentError, match="custom_generate was passed inside a OPERA block"):
            model.generate(**padded_batch(4), custom_generate=tk.opera, max_new_tokens=4)
        with pytest.raises(tk.ArgumentError, match="stop_strings needs the model's tokenizer"):
            model.generate(**padded_batch(4), stop_strings=["a"], max_new_tokens=4)


def test_under_another_decoder() -> None:
    model, batch = tiny("llama"), padded_batch(5)
    expected = search(model, batch)
    with tk.DoLa(model, layers=[0, 2]), pytest.raises(tk.AttachError, match=r"opera cannot be attached: .* DoLa"):
        search(model, batch)
    assert torch.equal(search(model, batch), expected)


def test_caches_that_cannot_serve() -> None:
    model, batch = tiny("llama"), padded_batch(5)
    filled = DynamicCache(config=model.config)
    with torch.no_grad():
        model(batch["input_ids"][:, :2], cache=filled)
    with pytest.raises(tk.ArgumentError, match="the cache already holds tokens; pass OPERA an empty cache"):
        search(model, batch, cache=filled)
    with pytest.raises(tk.ArgumentError, match="from a quantized cache"):
        search(model, batch, cache=QuantizedCache.__new__(QuantizedCache))


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("bloom", "OPERA reads all beams as tokens of one row, which BloomForCausalLM cannot, because it derives"),
        ("falcon", "the attention of FalconModel cannot be read or edited: its attention layers do not go through"),
    ],
)
def test_models_that_cannot_serve(family: str, message: str) -> None:
    model = tiny(family)
    with left_clean(model), pytest.raises(tk.ModelError, match=message):
        search(model, padded_batch(5))


def test_scores_that_are_none() -> None:
    model, batch = tiny("llama"), padded_batch(5)
    weight = model.get_output_embeddings().weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(torch.nan)
    with left_clean(model), pytest.raises(tk.ModelError, match="the scores of prompt 0 are NaN"):
        search(model, batch)
    with torch.no_grad():
        weight.copy_(before)
    assert search(model, batch).shape == (1, NEW)
