"""Oracles, independent of the code: on tiny models the formula, from full forwards of one row without cache; on the
real model the algorithm of transformers 4, one row at a time, which repeats a `DynamicCache` k times at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BartConfig,
    BartForConditionalGeneration,
    CLIPVisionConfig,
    DynamicCache,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    TextIteratorStreamer,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward

import truthkit as tk
from tests.tiny import ALIBI, FAMILIES, PAD, VOCAB, padded_batch, tiny
from truthkit.hf.packed_attention import packed_attention_forward
from truthkit.hf.wrapping import sole_owner

Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Maps token ids (1, length) and float32 logits (1, vocabulary) to logits."""

NEW = 128
QUESTIONS = (
    "Who wrote Romeo and Juliet?",
    "The three states of matter are",
    "What happens to you if you eat watermelon seeds? Explain it to a child of five.",
    "Once upon a time,",
)


@contextmanager
def left_clean(model: PreTrainedModel) -> Iterator[None]:
    """Fails unless the block leaves hooks, instance attributes, attention and generation settings as they were."""
    before = _state(model)
    yield
    assert _state(model) == before


def _state(model: PreTrainedModel) -> list[Any]:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_backward_hooks")
    modules = [(name, set(vars(m)), [len(getattr(m, hook)) for hook in hooks]) for name, m in model.named_modules()]
    return [modules, model.config._attn_implementation, model.generation_config.to_dict()]


def choose_by_formula(
    model: PreTrainedModel,
    row: torch.Tensor,
    alpha: float,
    k: int,
    process: Step = lambda _ids, logits: logits,
    **images: torch.Tensor,
) -> int:
    """The next token for one unpadded row of shape (1, length); its candidates, equally long, share a forward."""
    read: list[torch.Tensor] = []
    handle = model.get_output_embeddings().register_forward_pre_hook(lambda _module, args: read.append(args[0]))
    with torch.no_grad():
        logits = process(row, model(row, use_cache=False, **images).logits[:, -1].float())
        (context,) = read
        probabilities, candidates = logits[0].softmax(dim=-1).topk(k)
        longer = torch.cat([row.expand(k, -1), candidates[:, None]], dim=1)
        model(longer, use_cache=False, **{name: value.repeat_interleave(k, dim=0) for name, value in images.items()})
        penalties = cosine_similarity(context, read[-1][:, -1:], dim=-1).amax(dim=-1)
        scores = (1 - alpha) * probabilities - alpha * penalties
    handle.remove()
    return int(candidates[scores.argmax()])


def by_formula(
    model: PreTrainedModel, inputs: dict[str, torch.Tensor], new: int, alpha: float = 0.6, k: int = 4, **options: Any
) -> torch.Tensor:
    """The continuation of each row, shape (batch, new). `options` are `choose_by_formula`'s."""
    continuations = []
    for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True):
        row = ids[mask.bool()][None]
        for _ in range(new):
            row = torch.cat([row, torch.tensor([[choose_by_formula(model, row, alpha, k, **options)]])], dim=1)
        continuations.append(row[0, -new:])
    return torch.stack(continuations)


@torch.no_grad()
def by_repeated_cache(model: PreTrainedModel, row: torch.Tensor, new: int, alpha: float, k: int, ban: int) -> list[int]:
    """The continuation of one unpadded row of shape (1, length), in which the token `ban` is never allowed."""
    cache, tokens = DynamicCache(config=model.config), []
    outputs = model(row, cache=cache, output_hidden_states=True, logits_to_keep=1)
    context, logits = outputs.hidden_states[-1], outputs.logits[0, -1]
    for _ in range(new):
        logits[ban] = -torch.inf
        probabilities, candidates = logits.softmax(dim=-1).topk(k)
        cache.batch_repeat_interleave(k)
        outputs = model(candidates[:, None], cache=cache, output_hidden_states=True)
        hidden = outputs.hidden_states[-1]
        penalty = cosine_similarity(context, hidden, dim=-1).amax(dim=-1)
        winner = ((1 - alpha) * probabilities - alpha * penalty).argmax()
        cache.batch_select_indices(winner[None])
        context, logits = torch.cat([context, hidden[winner][None]], dim=1), outputs.logits[winner, -1]
        tokens.append(int(candidates[winner]))
    return tokens


def search(model: PreTrainedModel, inputs: dict[str, torch.Tensor], new: int, **options: Any) -> torch.Tensor:
    """The continuation from the callable, shape (batch, new)."""
    options = {"do_sample": False, "max_new_tokens": new, "custom_generate": tk.contrastive_search} | options
    return model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]


def process(
    model: PreTrainedModel, inputs: dict[str, torch.Tensor], new: int, processor: Any = None, **options: Any
) -> torch.Tensor:
    """The continuation from the logits processor, shape (batch, new)."""
    processors = LogitsProcessorList([processor or tk.ContrastiveSearchLogitsProcessor(model)])
    options = {"do_sample": False, "max_new_tokens": new, "logits_processor": processors} | options
    return model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]


def warned(family: str) -> Any:
    """Expects the warning of models that cannot take a tree."""
    return (
        pytest.warns(UserWarning, match="repeats the cache of .* because it derives") if family in ALIBI else _silence()
    )


@contextmanager
def _silence() -> Iterator[None]:
    yield


class Recorder:
    """A streamer that keeps what it is given."""

    def __init__(self) -> None:
        self.got: list[list[int]] = []
        self.ended = False

    def put(self, value: torch.Tensor) -> None:
        self.got.append(value.flatten().tolist())

    def end(self) -> None:
        self.ended = True


class StopAt(StoppingCriteria):
    """Stops, or interrupts as Ctrl-C does, when the sequences have a length."""

    def __init__(self, length: int, interrupt: bool = False):
        self.length, self.interrupt = length, interrupt

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        if self.interrupt and input_ids.shape[1] >= self.length:
            raise KeyboardInterrupt
        return torch.full((len(input_ids),), input_ids.shape[1] >= self.length)


# The real model


@pytest.fixture(scope="module")
def prompts(smollm2: Any) -> dict[str, torch.Tensor]:
    _, tokenizer = smollm2
    return dict(tokenizer(list(QUESTIONS), return_tensors="pt", padding=True, padding_side="left"))


@pytest.fixture(scope="module")
def expected(smollm2: Any, prompts: dict[str, torch.Tensor]) -> Callable[..., list[int]]:
    """The oracle's first `new` tokens for question `row` and `k`, computed once."""
    model, tokenizer = smollm2
    known: dict[tuple[int, int], list[int]] = {}

    def lookup(row: int, k: int, new: int = NEW) -> list[int]:
        if len(known.get((row, k), [])) < new:
            ids = prompts["input_ids"][row][prompts["attention_mask"][row].bool()][None]
            known[row, k] = by_repeated_cache(model, ids, new, 0.6, k, ban=tokenizer.eos_token_id)
        return known[row, k][:new]

    return lookup


@pytest.mark.slow
@pytest.mark.parametrize("k", [4, 8])
def test_real_model_alone(smollm2: Any, prompts: dict[str, torch.Tensor], expected: Any, k: int) -> None:
    model, tokenizer = smollm2
    row = {"input_ids": prompts["input_ids"][:1][:, prompts["attention_mask"][0].bool()]}
    with left_clean(model):
        got = search(model, row, NEW, penalty_alpha=0.6, top_k=k, suppress_tokens=[tokenizer.eos_token_id])
    assert got[0].tolist() == expected(0, k)


@pytest.mark.slow
@pytest.mark.parametrize(("k", "new"), [(4, NEW), (8, NEW // 2)])
def test_real_model_in_a_padded_batch(
    smollm2: Any, prompts: dict[str, torch.Tensor], expected: Any, k: int, new: int
) -> None:
    model, tokenizer = smollm2
    got = search(model, prompts, new, penalty_alpha=0.6, top_k=k, suppress_tokens=[tokenizer.eos_token_id])
    assert got.tolist() == [expected(row, k, new) for row in range(len(QUESTIONS))]


@pytest.mark.slow
def test_real_model_follows_the_formula(smollm2: Any, prompts: dict[str, torch.Tensor], expected: Any) -> None:
    """The fast oracle itself, against full forwards at a few steps."""
    model, tokenizer = smollm2
    tokens = expected(0, 4)
    prompt = prompts["input_ids"][0][prompts["attention_mask"][0].bool()][None]

    def ban(_ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        logits[:, tokenizer.eos_token_id] = -torch.inf
        return logits

    for step in (0, 1, 50, NEW - 1):
        row = torch.cat([prompt, torch.tensor([tokens[:step]], dtype=torch.long)], dim=1)
        assert choose_by_formula(model, row, 0.6, 4, ban) == tokens[step]


def test_real_model_streams_and_stops_at_strings(smollm2: Any, prompts: dict[str, torch.Tensor], expected: Any) -> None:
    model, tokenizer = smollm2
    row = {name: tensor[:1] for name, tensor in prompts.items()}
    text = tokenizer.decode(expected(0, 4, 16))
    word = text.split()[4]
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=1.0)
    with left_clean(model), tk.ContrastiveSearch(model, tokenizer, penalty_alpha=0.6, top_k=4):
        output = model.generate(
            **row,
            max_new_tokens=16,
            do_sample=False,
            suppress_tokens=[tokenizer.eos_token_id],
            streamer=streamer,
            stop_strings=[word],
        )
    streamed = "".join(streamer)
    assert streamed == tokenizer.decode(output[0, row["input_ids"].shape[1] :])
    assert streamed == text[: len(streamed)]
    assert word in streamed
    assert len(streamed) < len(text)


# Every architecture


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str) -> None:
    """20 tokens after prompts of 9, 5 and 12: sliding windows of 16 fill up on the way. Eager attention, too."""
    inputs = padded_batch(9, 5, 12)
    tokens = by_formula(tiny(family), inputs, 20)
    for attention, ways in ((None, (search, process)), ("eager", (search,))):
        model = tiny(family, attn_implementation=attention)
        for way in ways:
            with left_clean(model), warned(family):
                assert torch.equal(way(model, inputs, 20), tokens)


@pytest.mark.parametrize(("alpha", "k"), [(0.9, 8), (1.0, 3), (0.3, 2), (0.6, 2 * VOCAB)])
def test_other_settings(alpha: float, k: int) -> None:
    model, inputs = tiny("qwen3", dtype=torch.float64), padded_batch(9, 5)
    tokens = by_formula(model, inputs, 8, alpha, min(k, VOCAB))
    assert torch.equal(search(model, inputs, 8, penalty_alpha=alpha, top_k=k), tokens)
    processor = tk.ContrastiveSearchLogitsProcessor(model, penalty_alpha=alpha, top_k=k)
    assert torch.equal(process(model, inputs, 8, processor), tokens)


@pytest.mark.parametrize("options", [{"penalty_alpha": 0}, {"top_k": 1}])
def test_greedy_settings_are_greedy_decoding(options: dict[str, Any]) -> None:
    """Scores bit for bit, and never more than one position a row."""
    model, inputs = tiny("llama"), padded_batch(9, 5)
    common = {"do_sample": False, "max_new_tokens": 12, "return_dict_in_generate": True, "output_scores": True}
    greedy = model.generate(**inputs, **common)
    positions: list[int] = []
    with model.get_input_embeddings().register_forward_pre_hook(
        lambda _module, args: positions.append(args[0].shape[1])
    ):
        got = model.generate(**inputs, **common, custom_generate=tk.contrastive_search, **options)
    assert positions == [9] + [1] * 11
    assert torch.equal(got.sequences, greedy.sequences)
    assert all(map(torch.equal, got.scores, greedy.scores))
    processor = tk.ContrastiveSearchLogitsProcessor(model, **options)
    assert torch.equal(process(model, inputs, 12, processor), greedy.sequences[:, 9:])


def test_an_image_text_model() -> None:
    """LLaVA: the tokens of the image are context like all others."""
    text = LlamaConfig(**_SIZES, intermediate_size=64, num_key_value_heads=2)
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
    )
    config = LlavaConfig(
        text_config=text, vision_config=vision, image_token_index=127, image_seq_length=4, vision_feature_layer=-1
    )
    model = LlavaForConditionalGeneration(config).eval()
    prompt = torch.tensor([[1, 5, 127, 127, 127, 127, 9, 33, 21, 8]])
    inputs = {"input_ids": prompt, "attention_mask": torch.ones_like(prompt)}
    pixels = torch.randn(1, 3, 16, 16)
    tokens = by_formula(model, inputs, 12, pixel_values=pixels)
    with left_clean(model):
        assert torch.equal(search(model, inputs, 12, pixel_values=pixels), tokens)
    with left_clean(model), pytest.raises(tk.ModelError, match="a logits processor is given no images"):
        process(model, inputs, 4, pixel_values=pixels)


_SIZES: dict[str, Any] = {
    "hidden_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
    "vocab_size": VOCAB,
    "pad_token_id": PAD,
    "bos_token_id": 1,
    "eos_token_id": None,
}
RECURRENT: dict[str, dict[str, Any]] = {
    "mamba2": {"num_heads": 8, "head_dim": 12, "state_size": 8, "n_groups": 1, "expand": 2},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2, "num_key_value_heads": 2, "intermediate_size": 64},
    "recurrent_gemma": {"lru_width": 48, "attention_window_size": 16, "intermediate_size": 64},
    "rwkv": {"attention_hidden_size": 48},
}


def recurrent(family: str) -> PreTrainedModel:
    config = AutoConfig.for_model(family, **_SIZES | RECURRENT[family])
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@pytest.mark.parametrize("family", [pytest.param("mamba2", marks=pytest.mark.slow), "lfm2"])
def test_recurrent_state_in_the_cache_is_repeated(family: str) -> None:
    model, inputs = recurrent(family), padded_batch(9, 9)
    tokens = by_formula(model, inputs, 12)
    with left_clean(model), pytest.warns(UserWarning, match=r"repeats the cache of \w+ for every candidate"):
        assert torch.equal(search(model, inputs, 12), tokens)
    with left_clean(model), pytest.warns(UserWarning, match="repeats the cache"):
        assert torch.equal(process(model, inputs, 12), tokens)


@pytest.mark.filterwarnings("ignore:contrastive search repeats")
@pytest.mark.parametrize("family", ["recurrent_gemma", "rwkv"])
def test_state_outside_of_the_cache_is_refused(family: str) -> None:
    model = recurrent(family)
    with left_clean(model), pytest.raises(tk.ModelError, match="keeps its state outside of a transformers Cache"):
        search(model, padded_batch(9), 4)


def test_packed_attention_is_sdpa() -> None:
    module = torch.nn.Module()
    module.num_key_value_groups = 3
    query, key, value = torch.randn(2, 6, 4, 8), torch.randn(2, 2, 10, 8), torch.randn(2, 2, 10, 8)
    mask = torch.rand(2, 1, 4, 10) < 0.7
    mask[..., 0] = True
    for each in (mask, torch.zeros(mask.shape).masked_fill(~mask, -1e30)):
        packed, weights = packed_attention_forward(module, query, key, value, each, scaling=0.3)
        torch.testing.assert_close(packed, sdpa_attention_forward(module, query, key, value, each, scaling=0.3)[0])
        assert weights is None


# What else `generate` offers


def test_ends_pad_and_returns_as_generate_does() -> None:
    model, inputs = tiny("llama"), padded_batch(9, 5)
    tokens = by_formula(model, inputs, 16)
    end = int(tokens[1, 6])
    ends = [row.tolist().index(end) if end in row.tolist() else 15 for row in tokens]
    for row, last in enumerate(ends):
        tokens[row, last + 1 :] = PAD
    tokens = tokens[:, : max(ends) + 1]
    options = {"eos_token_id": end, "return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    output = model.generate(
        **inputs, max_new_tokens=16, do_sample=False, custom_generate=tk.contrastive_search, **options
    )
    assert torch.equal(output.sequences[:, 9:], tokens)
    assert len(output.scores) == len(output.logits) == tokens.shape[1]
    assert output.cache.get_seq_length() == output.sequences.shape[1] - 1
    with torch.no_grad():
        plain = model(output.sequences[:1, :-1]).logits[:, 8:]
    torch.testing.assert_close(torch.stack([step[:1] for step in output.logits], dim=1), plain, atol=1e-4, rtol=1e-4)
    assert torch.equal(process(model, inputs, 16, eos_token_id=end), tokens)


def test_probability_is_taken_after_the_logits_processors() -> None:
    model, inputs = tiny("llama"), padded_batch(9)

    def penalise(ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        seen = logits.gather(1, ids)
        return logits.scatter(1, ids, torch.where(seen < 0, seen * 1.8, seen / 1.8))

    tokens = by_formula(model, inputs, 16, process=penalise)
    assert not torch.equal(tokens, by_formula(model, inputs, 16))
    assert torch.equal(search(model, inputs, 16, repetition_penalty=1.8), tokens)
    assert torch.equal(process(model, inputs, 16, repetition_penalty=1.8), tokens)


def test_a_token_ruled_out_never_wins() -> None:
    """With alpha = 1 the probability counts for nothing, and one token is allowed."""
    model, inputs = tiny("llama"), padded_batch(9)
    got = search(model, inputs, 8, penalty_alpha=1.0, prefix_allowed_tokens_fn=lambda _batch, _ids: [7])
    assert got[0].tolist() == [7] * 8


@pytest.mark.parametrize(
    "options",
    [
        {"use_cache": False},
        {"prefill_chunk_size": 4},
        {"stopping_criteria": [StopAt(25)], "max_new_tokens": 99},
        {"max_new_tokens": None, "max_length": 25},
        {"cache": lambda config: tk.GrowingCache(config=config)},
    ],
    ids=lambda options: next(iter(options)),
)
def test_generation_options(options: dict[str, Any]) -> None:
    model, inputs = tiny("qwen2"), padded_batch(9, 5)
    tokens = by_formula(model, inputs, 16)
    options = {name: value(model.config) if name == "cache" else value for name, value in options.items()}
    assert torch.equal(search(model, inputs, 16, **options), tokens)


def test_settings_come_from_a_generation_config_that_names_them() -> None:
    model, inputs = tiny("qwen2"), padded_batch(9)
    config = GenerationConfig(penalty_alpha=0.9, top_k=6, max_new_tokens=8, do_sample=False)
    tokens = by_formula(model, inputs, 8, 0.9, 6)
    got = model.generate(**inputs, generation_config=config, custom_generate=tk.contrastive_search)
    assert torch.equal(got[:, 9:], tokens)
    with tk.ContrastiveSearch(model, penalty_alpha=0.9, top_k=6):
        assert torch.equal(model.generate(**inputs, max_new_tokens=8, do_sample=False)[:, 9:], tokens)


def test_prompt_embeddings() -> None:
    model, inputs = tiny("llama"), padded_batch(9, 5)
    embeds = model.get_input_embeddings()(inputs["input_ids"]).detach()
    output = model.generate(
        inputs_embeds=embeds,
        attention_mask=inputs["attention_mask"],
        max_new_tokens=8,
        do_sample=False,
        custom_generate=tk.contrastive_search,
    )
    assert torch.equal(output, by_formula(model, inputs, 8))


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_a_static_cache_is_replaced(family: str) -> None:
    model, inputs = tiny(family), padded_batch(9, 5)
    with pytest.warns(UserWarning, match="replaces the static cache"):
        got = search(model, inputs, 12, cache_implementation="static")
    assert torch.equal(got, by_formula(model, inputs, 12))


def test_a_model_compiled_in_place() -> None:
    model, inputs = tiny("llama"), padded_batch(9, 5)
    tokens = by_formula(model, inputs, 8)
    for module in (model, model.model.layers[1]):
        module.compile(backend="eager")
    with pytest.warns(UserWarning, match="runs eagerly"):
        assert torch.equal(search(model, inputs, 8), tokens)


def test_peft_and_compile_wrappers() -> None:
    import peft

    model, inputs = tiny("llama"), padded_batch(9, 5)
    tokens = by_formula(model, inputs, 8)
    wrapped: Any = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"]))
    for outer in (wrapped, torch.compile(model, backend="eager")):
        with tk.ContrastiveSearch(outer):
            assert torch.equal(outer.generate(**inputs, max_new_tokens=8, do_sample=False)[:, 9:], tokens)


# Streaming and stop strings


def test_streams_prompt_tokens_and_end() -> None:
    model, inputs = tiny("llama"), padded_batch(9)
    tokens = [[token] for token in by_formula(model, inputs, 8)[0].tolist()]
    direct, attached, greedy = Recorder(), Recorder(), Recorder()
    search(model, inputs, 8, token_streamer=direct)
    with tk.ContrastiveSearch(model):
        model.generate(**inputs, max_new_tokens=8, do_sample=False, streamer=attached)
    search(model, inputs, 8, token_streamer=greedy, top_k=1)
    for recorder in (direct, attached, greedy):
        assert recorder.got[0] == inputs["input_ids"][0].tolist()
        assert recorder.ended
    assert direct.got[1:] == attached.got[1:] == tokens
    assert len(greedy.got) == 9


def test_stop_strings_of_a_generation_config(smollm2: Any, prompts: dict[str, torch.Tensor], expected: Any) -> None:
    model, tokenizer = smollm2
    row = {name: tensor[:1] for name, tensor in prompts.items()}
    word = tokenizer.decode(expected(0, 4, 16)[:8]).split()[2]
    ban = [tokenizer.eos_token_id]
    config = GenerationConfig(stop_strings=[word], max_new_tokens=16, do_sample=False, suppress_tokens=ban)
    with tk.ContrastiveSearch(model):
        with pytest.raises(tk.ArgumentError, match="stop_strings needs the model's tokenizer; pass it as"):
            model.generate(**row, generation_config=config)
        output = model.generate(**row, generation_config=config, tokenizer=tokenizer)
    assert tokenizer.decode(output[0]).rstrip().endswith(word)
    assert config.stop_strings == [word]


# Refused, and left clean

REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "alpha above 1": ({"penalty_alpha": 1.5}, tk.ArgumentError, r"penalty_alpha is 1\.5; expected a number from 0"),
    "alpha below 0": ({"penalty_alpha": -0.1}, tk.ArgumentError, r"penalty_alpha is -0\.1"),
    "alpha NaN": ({"penalty_alpha": float("nan")}, tk.ArgumentError, "penalty_alpha is nan"),
    "alpha a string": ({"penalty_alpha": "high"}, tk.ArgumentError, "penalty_alpha is 'high'"),
    "no candidates": ({"top_k": 0}, tk.ArgumentError, "top_k is 0; expected a positive integer"),
    "half a candidate": ({"top_k": 2.5}, tk.ArgumentError, r"top_k is 2\.5"),
    "sampling": ({"do_sample": True}, tk.ArgumentError, "do_sample is True.*pass do_sample=False"),
    "beams": ({"num_beams": 2}, tk.ArgumentError, "num_beams is 2, but contrastive search follows one sequence"),
    "sequences": ({"num_return_sequences": 2}, ValueError, "Greedy methods.*do not support `num_return_sequences`"),
    "lookup": ({"prompt_lookup_num_tokens": 2}, tk.ArgumentError, "prompt_lookup_num_tokens is set"),
    "attentions": (
        {"return_dict_in_generate": True, "output_attentions": True},
        tk.ArgumentError,
        "output_attentions is not recorded",
    ),
    "hidden states": (
        {"return_dict_in_generate": True, "output_hidden_states": True},
        tk.ArgumentError,
        "output_hidden_states is not recorded",
    ),
    "typo": ({"penalty_alfa": 0.6}, ValueError, "penalty_alfa"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refused_options(reason: str) -> None:
    options, error, message = REFUSED[reason]
    model = tiny("llama", attn_implementation="eager" if "output_attentions" in options else None)
    with left_clean(model), pytest.raises(error, match=message):
        search(model, padded_batch(9, 5), 4, **options)


def test_refused_prompts() -> None:
    model = tiny("llama")
    empty = {"input_ids": torch.zeros(1, 0, dtype=torch.long), "attention_mask": torch.zeros(1, 0, dtype=torch.long)}
    with left_clean(model), tk.ContrastiveSearch(model), pytest.raises(tk.ArgumentError, match="the prompt is empty"):
        model.generate(**empty, max_new_tokens=4, do_sample=False, bos_token_id=None)
    with (
        left_clean(model),
        pytest.raises(tk.ArgumentError, match=r"prompt has 513 tokens, .* room for 512"),
    ):
        search(model, padded_batch(513), 4)


def test_refused_caches() -> None:
    model, inputs = tiny("llama"), padded_batch(9)
    filled = DynamicCache(config=model.config)
    with torch.no_grad():
        model(inputs["input_ids"][:, :4], cache=filled)
    with left_clean(model), pytest.raises(tk.ArgumentError, match="already holds tokens, but not their last hidden"):
        search(model, inputs, 4, cache=filled)


@pytest.mark.parametrize("how", [search, process])
def test_nan_logits(how: Any) -> None:
    model = tiny("llama", tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight[3] = torch.nan
    with left_clean(model), pytest.raises(tk.ModelError, match="scores of batch row 0 are NaN"):
        how(model, padded_batch(9), 4)


def test_encoder_decoders_are_refused() -> None:
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": VOCAB}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    model = BartForConditionalGeneration(BartConfig(**sizes, **heads, **tokens, forced_eos_token_id=None)).eval()
    with left_clean(model), pytest.raises(tk.ModelError, match="is an encoder-decoder"):
        model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=4, custom_generate=tk.contrastive_search)


def test_one_decoder_at_a_time() -> None:
    model, inputs = tiny("llama"), padded_batch(9)
    with left_clean(model), tk.ContrastiveSearch(model):
        with pytest.raises(tk.AttachError, match="already runs under ContrastiveSearch"):
            tk.ContrastiveSearch(model).__enter__()
        with pytest.raises(tk.ArgumentError, match="custom_generate was passed inside a ContrastiveSearch block"):
            search(model, inputs, 4)
        with pytest.raises(tk.ArgumentError, match="assistant_model was passed"):
            model.generate(**inputs, assistant_model=model)
    with left_clean(model), sole_owner(model, "DoLa"), pytest.raises(tk.AttachError, match="already runs under DoLa"):
        search(model, inputs, 4)


def test_interrupted_between_and_inside_forwards() -> None:
    model, inputs = tiny("llama"), padded_batch(9, 5)
    stop = [StopAt(12, interrupt=True)]
    with left_clean(model):
        with pytest.raises(KeyboardInterrupt):
            search(model, inputs, 8, stopping_criteria=stop)
        with pytest.raises(KeyboardInterrupt), tk.ContrastiveSearch(model):
            model.generate(**inputs, max_new_tokens=8, do_sample=False, stopping_criteria=stop)
    layer = model.model.layers[2]
    forwards = 0

    def interrupt(*_: Any) -> None:
        nonlocal forwards
        forwards += 1
        if forwards == 4:
            raise KeyboardInterrupt

    handle = layer.register_forward_pre_hook(interrupt)
    with left_clean(model):
        with pytest.raises(KeyboardInterrupt):
            search(model, inputs, 8)
        forwards = 0
        with pytest.raises(KeyboardInterrupt):
            process(model, inputs, 8)
    handle.remove()
    assert torch.equal(search(model, inputs, 8), by_formula(model, inputs, 8))


# The logits processor


def test_processor_serves_one_call_after_another() -> None:
    """Another prompt, the same again, a shorter one, the rows swapped, fewer rows: each as if it were the first."""
    model = tiny("llama")
    first, other = padded_batch(9, 5), padded_batch(11, 4, seed=3)
    prompts = [
        first,
        other,
        other,
        {name: tensor[:, :7] for name, tensor in other.items()},
        {name: tensor.flip(0) for name, tensor in first.items()},
        {name: tensor[:1] for name, tensor in first.items()},
    ]
    prompts = [batch for batch in prompts if batch["attention_mask"].any(dim=1).all()]
    processor = tk.ContrastiveSearchLogitsProcessor(model)
    for inputs in prompts:
        assert torch.equal(process(model, inputs, 10, processor), by_formula(model, inputs, 10))


def test_processor_runs_only_what_is_new() -> None:
    """Positions that the second decoder runs: the prompt once, then k a token; only k for the same prompt again."""
    model, inputs = tiny("llama"), padded_batch(9)
    processor = tk.ContrastiveSearchLogitsProcessor(model)
    positions: list[int] = []
    ids, scores = inputs["input_ids"], torch.randn(1, VOCAB)
    with model.model.register_forward_pre_hook(
        lambda _module, _args, kwargs: positions.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    ):
        for _ in range(3):
            ids = torch.cat([ids, processor(ids, scores).argmax(dim=-1, keepdim=True)], dim=1)
        processor(inputs["input_ids"], scores)
    assert positions == [9, 4, 4, 4, 4]


def test_processor_leaves_one_token_whether_greedy_or_sampled() -> None:
    model, inputs = tiny("llama"), padded_batch(9, 5)
    tokens = by_formula(model, inputs, 8)
    assert torch.equal(process(model, inputs, 8, do_sample=True, top_k=None), tokens)
    scores = tk.ContrastiveSearchLogitsProcessor(model)(inputs["input_ids"], torch.randn(2, VOCAB))
    assert (scores.exp().sum(dim=-1) == 1).all()


def test_processor_with_a_mask_and_without_a_pad_token() -> None:
    model, inputs = tiny("llama"), padded_batch(9, 5)
    model.generation_config.pad_token_id = None
    tokens = by_formula(model, inputs, 8)
    masked = tk.ContrastiveSearchLogitsProcessor(model, attention_mask=inputs["attention_mask"])
    named = tk.ContrastiveSearchLogitsProcessor(model, pad_token_id=PAD)
    for processor in (masked, named):
        assert torch.equal(process(model, inputs, 8, processor), tokens)
    with pytest.raises(tk.ArgumentError, match=r"attention_mask has shape \(2, 9\), but generation runs 1 rows of 9"):
        process(model, padded_batch(9), 8, masked)


def test_processor_checks_its_settings() -> None:
    model = tiny("llama")
    with pytest.raises(tk.ArgumentError, match="top_k is 0"):
        tk.ContrastiveSearchLogitsProcessor(model, top_k=0)
    with pytest.raises(tk.ArgumentError, match="penalty_alpha is 2"):
        tk.ContrastiveSearch(model, penalty_alpha=2)
