"""Views of several lengths, each at its own in the cache. Oracle: `oracle.py`, one plain forward per view and row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.decoding import oracle
from tests.decoding.cases import MODES, ToyTokenizer
from tests.decoding.image_cases import CASES as IMAGE_CASES
from tests.decoding.image_cases import Bench as ImageBench
from tests.decoding.image_cases import forward, image_bench
from tests.decoding.oracle import Look, Oracle, Seen
from tests.decoding.test_decoders import assert_same, decode, exact
from tests.decoding.test_image_decoders import want as want_of_images
from tests.each import each
from tests.tiny import padded_batch, tiny
from truthkit.decoding.engine import short_views
from truthkit.hf.growing_cache import GrowingLayer
from truthkit.hf.parted_cache import PartedLayer
from truthkit.scenes import held_out, render
from truthkit.text.encode import encode_prompt


@pytest.fixture(autouse=True)
def _little_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny models' keys are small."""
    monkeypatch.setattr(short_views, "_WORTH_A_PART", 1)


LENGTHS = (150, 170, 140, 120)
INSTRUCTION = "lie " * 40


def rows(batch: int) -> dict[str, torch.Tensor]:
    """The first prompt, unpadded, or left-padded ones."""
    return padded_batch(*LENGTHS[:batch])


def prompts(inputs: dict[str, torch.Tensor]) -> list[list[int]]:
    pairs = zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    return [ids[mask.bool()].tolist() for ids, mask in pairs]


def cutting(start: int, stop: int) -> Callable[[list[int]], list[int]]:
    """A prompt without what stands between its first `start` and its last `stop` tokens."""
    return lambda prompt: prompt[:start] + prompt[len(prompt) - stop :]


def passages(inputs: dict[str, torch.Tensor], start: int, stop: int) -> list[str]:
    return ["".join(map(chr, prompt[start : len(prompt) - stop])) for prompt in prompts(inputs)]


SHORT, MIDDLE = (3, 12), (40, 50)
"""What is left of prompts, in tokens at either end."""


def instructed(prompt: list[int]) -> list[int]:
    return [ord(char) for char in f"{INSTRUCTION}\n\n"] + prompt


def short(method: str, **options: Any) -> Callable[[Any, Any], Any]:
    return lambda model, inputs: getattr(tk, method)(model, ToyTokenizer(), context=passages(inputs, *SHORT), **options)


def with_others(model: Any, inputs: Any) -> Any:
    """Views of four lengths, in an order in which no part's rows are neighbours."""
    short_one, middle = (
        tk.CAD(model, ToyTokenizer(), context=passages(inputs, *ends), alpha=alpha)
        for ends, alpha in ((SHORT, 0.5), (MIDDLE, 0.3))
    )
    like_main = tk.ICD(model, ToyTokenizer(), amateur_prompt="lie", beta=0.0)
    other_short = tk.AdaCAD(model, ToyTokenizer(), context=passages(inputs, *SHORT))
    return short_one + like_main + middle + other_short


def sum_of_four(main: Seen, others: list[Seen]) -> torch.Tensor:
    formulas = oracle.cad(), oracle.icd(beta=0.0), oracle.cad(0.3), oracle.adacad()
    changes = [
        formula(main, [other]) - main.logits
        for formula, other in zip(formulas, (others[0], others[1], others[2], others[3]), strict=True)
    ]
    return main.logits + sum(changes)


def looks(*rewrites: Callable[[list[int]], list[int]]) -> Callable[[Any], list[Look]]:
    return lambda model: [Look(model, rewrite) for rewrite in rewrites]


def lie(prompt: list[int]) -> list[int]:
    return [ord(char) for char in "lie\n\n"] + prompt


METHODS: dict[str, tuple[Any, Any, Any, list[list[int]]]] = {
    "CAD": (short("CAD"), looks(cutting(*SHORT)), oracle.cad(), [[0], [1]]),
    "AdaCAD": (short("AdaCAD"), looks(cutting(*SHORT)), oracle.adacad(), [[0], [1]]),
    "COIECD": (short("COIECD"), looks(cutting(*SHORT)), oracle.coiecd(), [[0], [1]]),
    "four": (
        with_others,
        looks(cutting(*SHORT), lie, cutting(*MIDDLE), cutting(*SHORT)),
        sum_of_four,
        [[0, 2], [1, 4], [3]],
    ),
    "short main": (
        lambda model, _inputs: tk.ICD(model, ToyTokenizer(), amateur_prompt=INSTRUCTION),
        looks(instructed),
        oracle.icd(),
        [[0], [1]],
    ),
}


class Watch:
    """An observer: the parts, and the columns that they held after every forward."""

    def __init__(self, session: Any):
        self.parts: list[Any] = []
        self._loop = session._loop
        session.observers.append(self)

    def __call__(self, _views: Any, _combined: Any) -> None:
        layers = self._loop.cache.layers
        assert {type(layer) for layer in layers} in ({PartedLayer}, {GrowingLayer})
        first = layers[0]
        if isinstance(first, PartedLayer):
            views = [list(part) for part in first.parting.views]
            self.parts.append((views, [part.get_seq_length() for part in first.parts]))


def check(family: str, method: str, mode: dict[str, Any], batch: int, new: int = 5) -> Any:
    """The tokens and logits of the oracle; the model's layers held the parts."""
    model, inputs = tiny(family, dtype=exact(family)), rows(batch)
    decoder, others, formula, parts = METHODS[method]
    with decoder(model, inputs) as session:
        watch = Watch(session)
        got = decode(model, inputs, max_new_tokens=new, **mode)
    expected = Oracle(model, others(model), formula)
    expected.prepare_likely(got.sequences, inputs["attention_mask"])
    drafting = {"prompt_lookup_num_tokens", "assistant_model"}
    wanted = decode(expected, inputs, max_new_tokens=new, **{k: v for k, v in mode.items() if k not in drafting})
    if drafting & mode.keys():
        assert got.sequences.tolist() == wanted.sequences.tolist()
    else:
        assert_same(got, wanted, 1e-4 if model.dtype == torch.float32 else 1e-5)
    assert watch.parts
    assert all(views == parts for views, _ in watch.parts)
    return got, watch


ASSISTED = {"do_sample": False, "prompt_lookup_num_tokens": 4}


@each("batch", [1, 4])
@pytest.mark.parametrize("mode", ["greedy", "sampling", "beams"])
@pytest.mark.parametrize("method", ["CAD", "four", "short main"])
def test_modes(method: str, mode: str, batch: int) -> None:
    check("llama", method, MODES[mode], batch)


@pytest.mark.parametrize("family", ["qwen2", "gpt2", "opt", "gpt_neox"])
def test_families(family: str) -> None:
    check(family, "CAD", MODES["beams"], 4)
    check(family, "CAD", MODES["greedy"], 1)


@pytest.mark.parametrize("method", ["AdaCAD", "COIECD"])
def test_methods(method: str) -> None:
    check("llama", method, MODES["several"], 4)


@pytest.mark.parametrize("method", METHODS)
def test_rejected_drafts_leave_no_trace(method: str) -> None:
    check("llama", method, ASSISTED, 1, new=12)
    check("gpt2", method, {"do_sample": False, "assistant_model": tiny("gpt2", seed=2, dtype=torch.float64)}, 1, new=8)


def test_each_part_at_its_own_length() -> None:
    _, watch = check("llama", "four", MODES["greedy"], 4)
    lengths = [max(map(len, map(cut, prompts(rows(4))))) for cut in (lie, cutting(*SHORT), cutting(*MIDDLE))]
    assert [held for _, held in watch.parts] == [[length + step for length in lengths] for step in range(5)]
    _, watch = check("llama", "short main", MODES["greedy"], 1)
    assert watch.parts[0] == ([[0], [1]], [LENGTHS[0], len(instructed(prompts(rows(1))[0]))])


@pytest.mark.parametrize(
    ("method", "mode"), [*((name, mode) for name in METHODS for mode in ("greedy", "assisted")), ("four", "beams")]
)
def test_the_cache_comes_back_with_the_main_view_alone(method: str, mode: str) -> None:
    """As of a plain forward over the same tokens."""
    batch = 1 if mode == "assisted" else 4
    got, _ = check("llama", method, {"num_return_sequences": 1, **{"assisted": ASSISTED, **MODES}[mode]}, batch, new=6)
    model, inputs = tiny("llama", dtype=torch.float64), rows(batch)
    layers = got.cache.layers
    assert {type(layer) for layer in layers} == {GrowingLayer}
    if mode == "beams":  # its rows are those of running beams
        assert {len(layer.keys) for layer in layers} == {3 * batch}
        return
    held = layers[0].get_seq_length()
    assert inputs["input_ids"].shape[1] < held <= got.sequences.shape[1]
    mask = torch.nn.functional.pad(inputs["attention_mask"], (0, held - inputs["attention_mask"].shape[1]), value=1)
    plain = model(
        input_ids=got.sequences[:, :held], attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp_min(0)
    )
    for mine, theirs in zip(layers, plain.cache.layers, strict=True):
        for name in ("keys", "values"):
            kept = mask.bool()[:, None, :, None]
            torch.testing.assert_close(getattr(mine, name) * kept, getattr(theirs, name) * kept)


def test_a_given_cache_can_be_used_again() -> None:
    """After a call, and after one that failed."""
    model, inputs = tiny("llama"), rows(2)
    cache = tk.GrowingCache(config=model.config)
    with short("CAD")(model, inputs) as session:
        first = decode(model, inputs, cache=cache)
        cache.reset()
        session.observers.append(lambda _views, _combined: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            decode(model, inputs, cache=cache)
        session.observers.clear()
        assert {type(layer) for layer in cache.layers} == {GrowingLayer}
        cache.reset()
        second = decode(model, inputs, cache=cache)
    assert first.sequences.tolist() == second.sequences.tolist()


@each("kind", ["paged|sdpa", "paged|eager"])
def test_paged_attention_is_refused(kind: str) -> None:
    """It is for `generate_batch`: plain `generate` gives it no mask either."""
    model, inputs = tiny("llama"), rows(2)
    expected = decode(model, inputs).sequences.tolist()
    model.config._attn_implementation = kind
    with (
        pytest.raises(
            tk.ModelError, match=r"runs 'paged\|\w+' attention.* call model.set_attn_implementation\('\w+'\)"
        ),
        tk.DoLa(model),
    ):
        pass
    model.set_attn_implementation("sdpa")
    assert decode(model, inputs).sequences.tolist() == expected


class TestPaddedAsBefore:
    """What cannot be done in parts keeps the short rows padded, and says the same."""

    def check(self, model: Any, apart: bool) -> None:
        inputs, method = rows(4), METHODS["CAD"]
        with method[0](model, inputs) as session:
            watch = Watch(session) if apart else None
            got = decode(model, inputs, **MODES["beams"])
        expected = Oracle(model, method[1](model), method[2])
        expected.prepare_likely(got.sequences, inputs["attention_mask"])
        assert_same(got, decode(expected, inputs, **MODES["beams"]), 1e-4)
        assert watch is None or not watch.parts

    def test_eager_attention(self) -> None:
        self.check(tiny("llama", attn_implementation="eager"), apart=True)

    def test_little_to_save(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.undo()
        self.check(tiny("llama"), apart=True)

    def test_sliding_windows(self) -> None:
        self.check(tiny("gemma2", attn_implementation="eager"), apart=False)
        self.check(tiny("mistral"), apart=False)

    def test_attention_that_passes_by_the_function(self) -> None:
        self.check(tiny("falcon"), apart=True)

    @pytest.mark.parametrize("which", ["keys", "values"])
    def test_attention_that_changes_what_the_cache_holds(self, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A model that scales keys or values behind the cache."""
        from transformers.modeling_utils import AttentionInterface

        plain = AttentionInterface.get_interface

        def get_interface(self: Any, *args: Any) -> Any:
            function = plain(self, *args)

            def changed(module: Any, query: Any, key: Any, value: Any, *rest: Any, **options: Any) -> Any:
                key, value = (key * 0.5, value) if which == "keys" else (key, value * 0.5)
                return function(module, query, key, value, *rest, **options)

            return changed

        monkeypatch.setattr(AttentionInterface, "get_interface", get_interface)
        self.check(tiny("llama"), apart=True)

    def test_a_mask_of_each_layers_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It could be made from the keys, as Doge's is."""
        from transformers.models.llama.modeling_llama import LlamaDecoderLayer

        plain = LlamaDecoderLayer.forward

        def with_own_mask(self: Any, hidden: Any, attention_mask: Any = None, **options: Any) -> Any:
            every = torch.ones(hidden.shape[1], hidden.shape[1], dtype=torch.bool).tril()[None, None]
            own = every if attention_mask is None else attention_mask.clone()
            return plain(self, hidden, attention_mask=own, **options)

        monkeypatch.setattr(LlamaDecoderLayer, "forward", with_own_mask)
        self.check(tiny("llama"), apart=True)


@pytest.fixture(scope="module")
def of_images(tmp_path_factory: pytest.TempPathFactory) -> ImageBench:
    return image_bench("llava", tmp_path_factory.mktemp("adapter"))


@each("mode", MODES)
@pytest.mark.parametrize(("name", "parts"), [("m3id", [[0], [1]]), ("ritual+m3id", [[0, 1], [2]])])
def test_views_without_the_image(
    of_images: ImageBench, name: str, parts: Any, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts of the tiny models are short, so all that is shorter counts."""
    monkeypatch.setattr(short_views, "_WORTH", 1)
    monkeypatch.setattr(short_views, "_SHORT", 1.0)
    bench, options = of_images, {"max_new_tokens": 4, **MODES[mode]}
    for batch in (1, 3):
        with IMAGE_CASES[name].attached(bench, batch) as session:
            watch = Watch(session)
            got = decode(bench.model, bench.inputs(batch), **options)
        expected = want_of_images(bench, name, batch, got.sequences, **options)
        assert got.sequences.tolist() == expected.sequences.tolist()
        assert watch.parts
        assert all(views == parts and held[-1] < held[0] for views, held in watch.parts)


def test_drafts_without_the_image(of_images: ImageBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short_views, "_WORTH", 1)
    monkeypatch.setattr(short_views, "_SHORT", 1.0)
    lone = replace(of_images, rows=of_images.rows[1:2], _oracles={})
    with IMAGE_CASES["m3id"].attached(lone, 1) as session:
        watch = Watch(session)
        got = decode(lone.model, lone.inputs(1), max_new_tokens=10, prompt_lookup_num_tokens=4)
    assert (
        got.sequences.tolist() == want_of_images(lone, "m3id", 1, got.sequences, max_new_tokens=10).sequences.tolist()
    )
    assert watch.parts


def test_the_bundled_model_without_the_image() -> None:
    """M3ID greedily, each token from two plain forwards."""

    model, processor = tk.load("scene-vlm")
    inputs = encode_prompt(processor, "Describe the image.", images=[render(held_out(1)[0])])
    decoder = tk.M3ID(model, processor, beta=0.0)
    with decoder as session:
        watch = Watch(session)
        got = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    assert watch.parts
    assert watch.parts[0][1][1] < watch.parts[0][1][0] - 10
    image = model.config.image_token_id
    without = {"input_ids": inputs["input_ids"][inputs["input_ids"] != image][None]}
    ids: list[int] = []
    for token in got[0, inputs["input_ids"].shape[1] :].tolist():
        views = [forward(model, one, ids, [])[0][-1] for one in (inputs, without)]
        assert token == int(m3id(len(ids) + 1, *views).argmax())
        ids.append(token)


def m3id(step: int, main: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The formula of M3ID at the `step`-th token."""
    lam = torch.exp(torch.tensor(-0.02 * step))
    own, unseen = torch.log_softmax(main, -1), torch.log_softmax(other, -1)
    return own + (1 - lam) / lam * (own - unseen)


def bytes_held(layer: Any) -> int:
    """Of the buffers behind a layer, spare room included."""
    return sum(states._buffer.nbytes for states in layer._both())


def extra_bytes(model: Any, decoder: Any, inputs: dict[str, torch.Tensor], new: int) -> float:
    """What the views beside the main one keep over all layers, as a part of what the main one does."""
    held: list[tuple[int, int]] = []
    with decoder as session:
        session.observers.append(
            lambda _views, _combined: held.extend(
                (bytes_held(layer.parts[0]), sum(map(bytes_held, layer.parts[1:])))
                for layer in session._loop.cache.layers
            )
        )
        model.generate(**inputs, max_new_tokens=new, min_new_tokens=new, do_sample=False)
    assert len(held) == new * model.config.num_hidden_layers
    return sum(extra for _, extra in held) / sum(main for main, _ in held)


def test_extra_bytes_follow_the_views_length() -> None:
    """100 tokens beside 4,000: at most a twentieth more."""
    model, inputs = tiny("llama", max_position_embeddings=8192), padded_batch(4000)
    decoder = tk.CAD(model, ToyTokenizer(), context=passages(inputs, 40, 60))
    assert 0.02 < extra_bytes(model, decoder, inputs, 8) < 0.05


@pytest.mark.slow
def test_extra_bytes_of_a_real_model(smollm2: Any) -> None:
    model, tokenizer = smollm2
    ids = tokenizer("The quick brown fox jumps over the lazy dog near the old river bank. " * 300).input_ids
    passage, question = tokenizer.decode(ids[:3900]), tokenizer.decode(ids[3900:4000])
    inputs = tokenizer(passage + question, return_tensors="pt")
    assert inputs["input_ids"].shape[1] == 4000
    assert extra_bytes(model, tk.CAD(model, tokenizer, context=passage), inputs, 4) < 0.05
