"""Blocks on one model, entered and left in any order, by exceptions, in several threads: whose they are, what stays."""

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
import torch._dynamo.config as dynamo
from transformers import GenerationConfig, LogitsProcessorList, TextIteratorStreamer

import truthkit as tk
from tests.decoding.cases import ToyTokenizer
from tests.tiny import padded_batch, tiny

SHORT: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False}
IDS = padded_batch(7)["input_ids"]
Make = Callable[[Any], AbstractContextManager[Any]]


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny("llama", num_hidden_layers=2, hidden_size=264, intermediate_size=264)  # large enough for fast layers


def _steering(model: Any) -> tk.Steering:
    vector = torch.linspace(-3, 3, model.config.hidden_size)
    return tk.Steering(model, {0: vector, 1: vector.flip(0)}, strength=2.0)


BLOCKS: dict[str, Make] = {
    "DoLa": lambda m: tk.DoLa(m, layers=[0], beta=0.0),
    "ICD": lambda m: tk.ICD(m, ToyTokenizer(), amateur_prompt="lie"),
    "Steering": _steering,
    "Capture": lambda m: tk.Capture(m, [1]),
    "fast": tk.fast_decoding,
    "ContrastiveSearch": lambda m: tk.ContrastiveSearch(m),
    "OPERA": lambda m: tk.OPERA(m),
}


def tree(model: Any) -> dict[str, Any]:
    """All that lies in the modules of a model, by identity, and what else blocks change."""
    found: dict[str, Any] = {
        f"{name}.{key}": [(k, id(v)) for k, v in value.items()] if isinstance(value, dict) else id(value)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
    }
    return found | {"settings": (model.config._attn_implementation, threading.Thread.start)}


def in_thread(call: Callable[[], Any]) -> Any:
    """What a call gives in a thread of its own: its result, or its exception."""
    given: list[Any] = []

    def run() -> None:
        try:
            given.append(call())
        except Exception as error:
            given.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return given[0]


def test_200_random_sequences_leave_the_model_as_it_was(model: Any) -> None:
    before, refused = tree(model), 0
    for seed in range(200):
        chance, inside = random.Random(seed), list[AbstractContextManager[Any]]()
        for _ in range(chance.randrange(2, 9)):
            act = chance.choice(["enter", "enter", "enter", "leave", "run"])
            if act == "enter":
                block = BLOCKS[chance.choice(list(BLOCKS))](model)
                enter = block.__enter__
                try:
                    error = in_thread(enter) if chance.random() < 0.3 else enter()
                    if isinstance(error, Exception):
                        raise error
                    inside.append(block)
                except tk.AttachError:
                    refused += 1
            elif act == "leave" and inside:
                gone = inside.pop(chance.randrange(len(inside)))
                failure = RuntimeError("from inside")
                by = (RuntimeError, failure, None) if chance.random() < 0.3 else (None, None, None)
                if chance.random() < 0.3:
                    in_thread(lambda gone=gone, by=by: gone.__exit__(*by))  # type: ignore[misc]
                else:
                    gone.__exit__(*by)
            elif seed % 10 == 0:
                model(IDS)
        chance.shuffle(inside)
        for block in inside:
            block.__exit__(None, None, None)
        assert tree(model) == before, f"sequence {seed}"
        with tk.Capture(model, [1]):  # torch's settings are each thread's own: what others left is put right here
            pass
        assert dynamo.skip_nnmodule_hook_guards
    assert refused


def test_two_threads_never_share_a_block(model: Any) -> None:
    """100 pairs of threads: each gets the tokens of its own block, or the second decoder a refusal."""
    names: list[str | None] = [*BLOCKS, None]

    def answer(name: str | None) -> Any:
        if name is None:
            return model.generate(IDS, **SHORT)
        with BLOCKS[name](model):
            return model.generate(IDS, **SHORT)

    right = {name: answer(name) for name in names}
    assert len({tuple(tokens[0].tolist()) for tokens in right.values()}) > 3
    before, wrong, refused = tree(model), [], 0
    for seed in range(100):
        chance = random.Random(seed)
        pair = [chance.choice(names), chance.choice([None, None, *names])]
        given: dict[int, Any] = {}

        def run(place: int, name: str | None, given: dict[int, Any] = given) -> None:
            try:
                given[place] = answer(name)
            except tk.AttachError as error:
                given[place] = error

        threads = [threading.Thread(target=run, args=(place, name)) for place, name in enumerate(pair)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for place, name in enumerate(pair):
            if isinstance(given.get(place), tk.AttachError) and name is not None:
                refused += 1
            elif not torch.equal(given[place], right[name]):
                wrong.append((seed, pair, name))
    assert not wrong
    assert refused < 75
    assert tree(model) == before


@pytest.mark.parametrize("name", ["DoLa", "Steering"])
class TestHelpers:
    def test_streams_from_a_thread_that_it_starts(self, model: Any, name: str) -> None:
        class Words(ToyTokenizer):
            def decode(self, ids: Any, **_options: Any) -> str:
                return " ".join(str(int(i)) for i in ids) + " "

        with BLOCKS[name](model):
            right = model.generate(IDS, **SHORT)
            streamer = TextIteratorStreamer(Words(), skip_prompt=True)  # type: ignore[arg-type]
            thread = threading.Thread(target=model.generate, args=(IDS,), kwargs={**SHORT, "streamer": streamer})
            thread.start()
            text = "".join(streamer)
            thread.join()
        assert [int(word) for word in text.split()] == right[0, IDS.shape[1] :].tolist()

    def test_one_call_at_a_time(self, model: Any, name: str) -> None:
        """The second one is refused while the first waits in its processor; afterwards it is served."""
        waiting, go_on = threading.Event(), threading.Event()

        def hold(_ids: Any, scores: Any) -> Any:
            waiting.set()
            go_on.wait(20)
            return scores

        def held() -> Any:
            return model.generate(IDS, **SHORT, logits_processor=LogitsProcessorList([hold]))

        with BLOCKS[name](model):
            right = model.generate(IDS, **SHORT)
            given: list[Any] = []
            thread = threading.Thread(target=lambda: given.append(held()))
            thread.start()
            waiting.wait(20)
            with pytest.raises(tk.AttachError, match="one call at a time"):
                model.generate(IDS, **SHORT)
            with pytest.raises(tk.AttachError, match="one call at a time"):
                model(IDS)
            go_on.set()
            thread.join()
            assert torch.equal(given[0], right)
            assert torch.equal(in_thread(lambda: model.generate(IDS, **SHORT)), right)

    def test_leaving_while_it_runs_is_an_error(self, model: Any, name: str) -> None:
        before, running, given = tree(model), threading.Event(), list[Any]()

        def slow(_ids: Any, scores: Any) -> Any:
            running.set()
            return scores

        def run() -> None:
            try:
                given.append(
                    model.generate(
                        IDS, max_new_tokens=400, do_sample=False, logits_processor=LogitsProcessorList([slow])
                    )
                )
            except tk.AttachError as error:
                given.append(error)

        thread, block = threading.Thread(target=run), BLOCKS[name](model)
        block.__enter__()
        thread.start()
        running.wait(20)
        with pytest.raises(tk.AttachError, match="was left while a generate under it ran in thread"):
            block.__exit__(None, None, None)
        assert tree(model) == before
        thread.join()
        assert isinstance(given[0], tk.AttachError)

    def test_what_begins_after_the_block_is_plain(self, model: Any, name: str) -> None:
        plain = model.generate(IDS, **SHORT)
        with BLOCKS[name](model):
            generate = model.generate
        assert torch.equal(generate(IDS, **SHORT), plain)


def test_another_text_within_generate_is_refused(model: Any) -> None:
    """By guidance, in the call or a config, or by a processor of one's own; with and without a cache, and by beams."""
    batch = padded_batch(7, 4)

    def asks_itself(ids: Any, scores: Any) -> Any:
        model(torch.full_like(ids, 5))
        return scores

    modes: list[dict[str, Any]] = [{}, {"num_beams": 2}, {"use_cache": False}]
    for name in ("DoLa", "ICD"):
        for mode in modes:
            with BLOCKS[name](model):
                right = model.generate(**batch, **SHORT, **mode)
                config = GenerationConfig(guidance_scale=1.5, **SHORT, **mode, pad_token_id=0)
                for options in ({"guidance_scale": 1.5, **SHORT, **mode}, {"generation_config": config}):
                    with pytest.raises(tk.ArgumentError, match=r"guidance_scale=1\.5"):
                        model.generate(**batch, **options)
                with pytest.raises(tk.ArgumentError, match="a forward of another text came"):
                    model.generate(**batch, **SHORT, **mode, logits_processor=LogitsProcessorList([asks_itself]))
                assert torch.equal(model.generate(**batch, **SHORT, **mode), right)


def test_guidance_is_refused_where_tokens_are_told_apart(model: Any) -> None:
    """Steering and reading go by where the prompt ends, and a second text has a prompt of its own."""
    for name in ("Steering", "Capture"):
        with BLOCKS[name](model):
            right = model.generate(IDS, **SHORT)
            for options in ({"guidance_scale": 1.5}, {"generation_config": GenerationConfig(guidance_scale=1.5)}):
                with pytest.raises(tk.ArgumentError, match=rf"guidance_scale=1\.5.*cannot be used with {name}"):
                    model.generate(IDS, **options)
            assert torch.equal(model.generate(IDS, **SHORT, guidance_scale=1), right)


def test_a_copy_inside_a_block_is_refused(model: Any) -> None:
    for name, make in BLOCKS.items():
        with make(model), pytest.raises(tk.AttachError, match="cannot be copied inside"):
            copy.deepcopy(model)
        assert copy.deepcopy(model) is not model, name


def test_entering_twice_is_refused(model: Any) -> None:
    before = tree(model)
    for make in (_steering, BLOCKS["Capture"], BLOCKS["DoLa"], BLOCKS["ContrastiveSearch"], BLOCKS["OPERA"]):
        block = make(model)
        with block, pytest.raises(tk.AttachError, match="already"):
            block.__enter__()
        assert tree(model) == before
