"""Every decoder on the real SmolLM2-135M-Instruct in float32, against the oracle of test_decoders.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import truthkit as tk
from tests.decoding.cases import CASES, KINDS, LIE, MODES, Bench
from tests.decoding.oracle import save_adapter, with_adapter
from tests.decoding.test_decoders import decode
from tests.decoding.test_matrix import METHODS, PLACES, STEPS

TOKENS = 12
QUESTIONS = [
    ("Romeo and Juliet was written by Christopher Marlowe.", "Who wrote Romeo and Juliet?"),
    ("Watermelon seeds pass through.", "What happens to you if you eat watermelon seeds? Answer in one sentence."),
    ("The city of Ys has 3,000 inhabitants.", "How many people live in Ys?"),
    ("Fortune cookies come from Japan.", "Where do fortune cookies come from, and since when have people eaten them?"),
]


_OTHERS = ["icd-adapter", "icd-prompt", "icd-model", "lol-dynamic", "lol-model", "dola-high", "cad"]
_OTHERS += ["sled-options", "deco-options", "coiecd"]


def few(*names: str, slow: list[str]) -> list[Any]:
    """Cases of which those behind are slow: they say on a real model what the others say there and all say on tiny
    ones."""
    return [*names, *(pytest.param(name, marks=pytest.mark.slow) for name in slow)]


def _copy(model: Any) -> Any:
    """Another model object with the same weights, in the same memory."""
    with torch.device("meta"):
        twin = AutoModelForCausalLM.from_config(model.config)
    twin.load_state_dict(model.state_dict(), assign=True)
    twin.tie_weights()
    twin.model.rotary_emb = model.model.rotary_emb
    return twin.eval()


def _ids(tokenizer: Any, content: str, instruction: str | None = None) -> list[int]:
    system = [{"role": "system", "content": instruction}] if instruction else []
    messages = [*system, {"role": "user", "content": content}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]


@pytest.fixture(scope="module")
def bench(smollm2: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Bench:
    model, tokenizer = smollm2
    folder = save_adapter(
        _copy(model), tmp_path_factory.mktemp("adapter"), target_modules=["q_proj", "v_proj", "up_proj"]
    )
    contents = [f"{context}\n\n{question}" for context, question in QUESTIONS]
    prompts = [_ids(tokenizer, content) for content in contents]
    inputs = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
    shortened = {tuple(p): _ids(tokenizer, f"\n\n{q}") for p, (_, q) in zip(prompts, QUESTIONS, strict=True)}

    def instructed(instruction: str) -> Callable[[list[int]], list[int]]:
        other = {tuple(p): _ids(tokenizer, content, instruction) for p, content in zip(prompts, contents, strict=True)}
        return lambda prompt: other[tuple(prompt)]

    amateur = _copy(model)
    generator = torch.Generator().manual_seed(0)
    for block in amateur.model.layers[::3]:
        noise = 0.02 * torch.randn(block.mlp.down_proj.weight.shape, generator=generator)
        block.mlp.down_proj.weight = torch.nn.Parameter(block.mlp.down_proj.weight.detach() + noise)
    return Bench(
        model=model,
        tokenizer=tokenizer,
        adapter=folder,
        adapted=with_adapter(_copy(model), folder),
        other=amateur,
        inputs={name: inputs[name] for name in ("input_ids", "attention_mask")},
        contexts=[context for context, _ in QUESTIONS],
        instructed=instructed,
        without=lambda prompt: shortened[tuple(prompt)],
        layers=(12, 20),
    )


def check(bench: Bench, name: str, batch: int, tokens: int, *, edge: int = 0, **options: Any) -> None:
    inputs, case = bench.rows(batch), CASES[name]
    options["max_new_tokens"] = tokens
    with case.attached(bench, batch):
        got = decode(bench.model, inputs, **options)
    oracle = bench.oracle(case)
    oracle.prepare_likely(got.sequences, inputs["attention_mask"])
    options.pop("cache_implementation", None)
    want = decode(oracle, inputs, **options)
    assert got.sequences.tolist() == want.sequences.tolist()
    # distributions: where two layers tie within rounding and one token is left, DoLa's score of it is either's
    found, expected = (torch.stack(one.logits).log_softmax(dim=-1) for one in (got, want))
    on_edge = found.isneginf() != expected.isneginf()
    assert on_edge.sum() <= edge
    found, expected = found.masked_fill(on_edge, 0), expected.masked_fill(on_edge, 0)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


class TestAgainstTheOracle:
    """Same tokens, and combined logits within 1e-4; unnormalised exits, with logits in the hundreds, are left out."""

    @pytest.mark.parametrize("name", few("lol-adapter-refocus", slow=_OTHERS))
    def test_padded_batch(self, bench: Bench, name: str) -> None:
        check(bench, name, *((4, TOKENS) if name in _OTHERS else (2, 6)))

    @pytest.mark.parametrize("name", few("icd-adapter-prompt", slow=["lol-refocus"]))
    def test_sampling_and_static_cache(self, bench: Bench, name: str) -> None:
        check(bench, name, 2, 6, **MODES["sampling"], cache_implementation="static")

    @pytest.mark.parametrize("name", few("dola-list", slow=["icd-prompt", "lol-static"]))
    def test_beams_of_one_prompt(self, bench: Bench, name: str) -> None:
        check(bench, name, 1, 6, **MODES["beams"])

    @pytest.mark.slow
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("name", KINDS.values(), ids=KINDS)
    def test_every_mode(self, bench: Bench, name: str, mode: str) -> None:
        check(bench, name, 4, 8, **MODES[mode])
        check(bench, name, 1, 8, **MODES[mode], cache_implementation="static")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_in_every_place(bench: Bench, name: str) -> None:
    """DeCo's set ends where a sum of probabilities reaches `top_p`; what lies there within rounding is in or out."""
    for mode, batch, cache in PLACES:
        check(bench, name, batch, STEPS, edge=2 if name == "deco" else 0, **MODES[mode], **cache)


class TestProcessor:
    """The context manager's tokens."""

    @pytest.mark.parametrize(
        ("name", "mode"),
        [
            ("lol-refocus", "greedy"),
            *(pytest.param(name, "beams", marks=pytest.mark.slow) for name in ("icd-adapter", "dola-high")),
        ],
    )
    def test_same_tokens(self, bench: Bench, name: str, mode: str) -> None:
        inputs, options = bench.rows(2), {"max_new_tokens": 4, **MODES[mode]}
        with CASES[name].attached(bench, 2):
            inside = decode(bench.model, inputs, **options)
        outside = decode(bench.model, inputs, logits_processor=[CASES[name].processor(bench, 2)], **options)
        assert outside.sequences.tolist() == inside.sequences.tolist()


class TestFormerDoLa:
    def test_layers_named_high_and_low(self, bench: Bench) -> None:
        """transformers 4 took hidden states 15, 17, ... 29 and (the embeddings being tied) 2, 4, ... 14 of 30
        blocks."""
        assert list(tk.DoLa(bench.model, layers="high").layers) == list(range(14, 30, 2))
        assert list(tk.DoLa(bench.model, layers="low").layers) == list(range(1, 14, 2))


@pytest.mark.slow
def test_bfloat16(bench: Bench) -> None:
    """Runs, and its first combined logits are those of float32 up to the rounding of the weights."""
    with torch.no_grad():
        half = _copy(bench.model).to(torch.bfloat16)
    with tk.LOL(bench.model, bench.tokenizer, amateur_prompt=LIE, refocus="be exact", beta=0):
        want = decode(bench.model, bench.rows(4), max_new_tokens=2)
    with tk.LOL(half, bench.tokenizer, amateur_prompt=LIE, refocus="be exact", beta=0):
        got = decode(half, bench.rows(4), max_new_tokens=2)
        decode(half, bench.rows(4), max_new_tokens=2, num_beams=2)
    correlation = torch.corrcoef(torch.stack([got.logits[0].flatten(), want.logits[0].flatten()]))[0, 1]
    assert correlation > 0.98
