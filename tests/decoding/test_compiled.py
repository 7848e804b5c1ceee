"""Decode steps with a static cache as one compiled graph: the tokens of the uncompiled run, which other tests hold
against the oracles; no break, no second graph, at whichever entry; and nothing of it left on the model."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters
from transformers import CompileConfig

import truthkit as tk
from tests.decoding.cases import CASES, Bench, tiny_bench
from tests.decoding.image_cases import CASES as IMAGE_CASES
from tests.decoding.image_cases import image_bench
from tests.decoding.oracle import with_adapter
from tests.each import each
from tests.tiny import FAMILIES, padded_batch, tiny
from tests.tiny_vlm import FAMILIES as IMAGE_FAMILIES
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.view import View, ViewLogits
from truthkit.hf import fast_linear
from truthkit.steering.conditions import Cosine, Entropy

WITH_WINDOWS = {"gemma2", "gemma3_text", "mistral", "llava_next", "gemma3"}
"""Whose static layers count the tokens in a Python number, at which torch makes a second and a third graph."""


class Compiler:
    """A backend that runs graphs as they are, how many there were, and what the last one calls."""

    def __init__(self) -> None:
        self.graphs = 0
        self.calls: list[Any] = []

        def backend(graph: torch.fx.GraphModule, _inputs: Any, **_options: Any) -> Any:
            self.graphs += 1
            self.calls = [node.target for node in graph.graph.nodes if node.op == "call_function"]
            return graph.forward

        self.backend = backend  # a function, for configs copy what they hold

    def options(self, tokens: int = 8, **others: Any) -> dict[str, Any]:
        """What asks `generate` for compiled steps; a config is enough on a CPU."""
        config = CompileConfig(backend=self.backend)
        static = {"cache_implementation": "static", "compile_config": config}
        return {"max_new_tokens": tokens, "do_sample": False} | others | static


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def run(model: Any, inputs: Any, **options: Any) -> list[list[int]]:
    torch.manual_seed(0)
    return model.generate(**inputs, **options).tolist()


def check(attached: Any, model: Any, inputs: Any, tokens: int, *, entries: int = 2, most: int = 1, **mode: Any) -> None:
    """`attached()` gives the block to enter, the same one for all entries."""
    compiler = Compiler()
    block = attached()
    with block:
        want = run(model, inputs, **{"max_new_tokens": tokens, "do_sample": False} | mode)
    for _ in range(entries):
        with block:
            assert run(model, inputs, **compiler.options(tokens, **mode)) == want
        assert 1 <= compiler.graphs <= most
    assert not counters["graph_break"]


@pytest.fixture
def bench(tmp_path: Any) -> Bench:
    return tiny_bench("llama", tmp_path, num_hidden_layers=2)


def test_one_graph_for_all_kinds_of_views(bench: Bench) -> None:
    """An adapter, another prompt, early exits and padding; over 128 tokens, entered three times."""
    case = CASES["lol-adapter-refocus"]
    check(lambda: case.attached(bench, 3), bench.model, bench.rows(3), 128, entries=3)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """For how many rows layouts were measured; blocks of 64 are found to be the fastest for all."""
    rows: list[int] = []
    monkeypatch.setattr(fast_linear, "_chosen", {})
    monkeypatch.setattr(fast_linear, "_fastest", lambda n, _weights: rows.append(n) or "rows by blocks of 64")
    return rows


def test_linear_layers_in_their_layout(measured: list[int], tmp_path: Any) -> None:
    """Four views of three rows; measured before the graph is made, then no more."""
    large = {"hidden_size": 264, "intermediate_size": 264, "num_hidden_layers": 2}
    bench, compiler = tiny_bench("llama", tmp_path, **large), Compiler()
    with (block := CASES["lol-adapter-refocus"].attached(bench, 3)):
        want = run(bench.model, bench.rows(3), max_new_tokens=128, do_sample=False)
    assert measured == [12]
    measured.clear()
    fast_linear._chosen.clear()
    for _ in range(3):
        with block:
            assert run(bench.model, bench.rows(3), **compiler.options(128)) == want
    assert compiler.graphs == 1
    assert compiler.calls.count(torch.bmm) == 2 * 3  # the layers of the MLP; the others are small
    assert measured == [12]
    assert not counters["graph_break"]


def test_plain_greedy_search_in_the_layout_and_without(measured: list[int]) -> None:
    """`tk.fast_decoding` is part of the code of its blocks, whichever comes first, and of no other."""
    model = tiny("llama", num_hidden_layers=2, hidden_size=264, intermediate_size=264)
    inputs, compiler = padded_batch(5, 9), Compiler()
    options = compiler.options()
    options["compile_config"]._compile_all_devices = True
    want = run(model, inputs, max_new_tokens=8, do_sample=False)
    for _ in range(3):
        with tk.fast_decoding(model):
            assert run(model, inputs, **options) == want
        blocks = compiler.calls.count(torch.bmm)
        assert run(model, inputs, **options) == want
    assert compiler.graphs == 2
    assert blocks == 0
    assert measured == [2]


def test_modes(bench: Bench) -> None:
    """A view longer than a lone prompt without padding; prompts read in chunks, the last one of a single token; and
    several draws of each prompt from one seed.
    """
    check(lambda: CASES["icd-prompt"].attached(bench, 1), bench.model, bench.rows(1), 8)
    check(lambda: CASES["dola-high"].attached(bench, 3), bench.model, bench.rows(3), 8, prefill_chunk_size=4)
    check(lambda: tk.ActivationDecoding(bench.model, alpha=2.0), bench.model, bench.rows(3), 8, prefill_chunk_size=4)
    sampled = {"do_sample": True, "temperature": 0.8, "num_return_sequences": 2}
    check(lambda: CASES["cad-beta"].attached(bench, 3), bench.model, bench.rows(3), 8, **sampled)


def test_an_adapter_in_the_model_that_is_trained_meanwhile(bench: Bench) -> None:
    """Its weights are read where they are, not kept in the graph."""
    model = with_adapter(bench.model, bench.adapter)
    decoder, compiler, said = tk.ICD(model, amateur="default"), Compiler(), []
    for _ in range(2):
        with decoder:
            said.append(run(model, bench.rows(2), max_new_tokens=8, do_sample=False))
        with decoder:
            assert run(model, bench.rows(2), **compiler.options()) == said[-1]
        for name, weights in model.named_parameters():
            if "lora_B" in name:
                weights.data.mul_(-3)
    assert said[0] != said[1]
    assert compiler.graphs == 1


def test_places_on_several_axes(tmp_path: Any) -> None:
    """M3ID's weight grows with every token, and Qwen2-VL's positions have three axes."""
    bench, case = image_bench("qwen2_vl", tmp_path), IMAGE_CASES["m3id"]
    check(lambda: case.attached(bench, 2), bench.model, bench.inputs(2), 12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own, in BLOOM's GELU
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "mpt"])  # which has no static cache
def test_every_family(family: str, tmp_path: Any) -> None:
    bench, most = tiny_bench(family, tmp_path), 3 if family in WITH_WINDOWS else 1
    case = CASES["lol-adapter-refocus"]
    check(lambda: case.attached(bench, 4), bench.model, bench.rows(4), 24, most=most)


@pytest.mark.slow
@pytest.mark.parametrize("family", IMAGE_FAMILIES)
def test_every_image_family(family: str, tmp_path: Any) -> None:
    bench, most = image_bench(family, tmp_path), 3 if family in WITH_WINDOWS else 1
    for name in ("m3id", "icd-adapter") if family == "qwen2_5_vl" else ("m3id",):
        torch.compiler.reset()
        case = IMAGE_CASES[name]
        check(lambda case=case: case.attached(bench, 2), bench.model, bench.inputs(2), 12, most=most)  # type: ignore[misc]


@pytest.mark.slow
def test_compiled_to_machine_code(bench: Bench) -> None:
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("torch's inductor needs a C++ compiler, and there is none")
    case, rows = CASES["lol-adapter-refocus"], bench.rows(3)
    asks = {"cache_implementation": "static", "compile_config": CompileConfig(mode="default")}
    with case.attached(bench, 3):
        want = run(bench.model, rows, max_new_tokens=16, do_sample=False)
    with case.attached(bench, 3), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # torch's own
        assert run(bench.model, rows, max_new_tokens=16, do_sample=False, **asks) == want
    assert counters["stats"]["unique_graphs"] == 1


# -- steering ----------------------------------------------------------------------------------------------------------

VECTORS = {0: torch.linspace(-3, 3, 48), 1: torch.linspace(2, -2, 48)}


_STEERINGS: list[dict[str, Any]] = [
    {},
    {"where": (Cosine(VECTORS[1], above=0.0, layer=0), Entropy(above=2.0)), "mode": "relative"},
    {"positions": slice(2, None), "mode": "project_out", "strength": [1.0, 0.5]},
    {"positions": "prompt", "site": "heads"},
    {"where": Cosine(VECTORS, above=0.0)},
    {"where": Cosine(VECTORS[1], above=0.05, of="mean"), "keep_norm": True},
]


@pytest.mark.parametrize("some", [slice(2), pytest.param(slice(2, None), marks=pytest.mark.slow)], ids=str)
def test_steering(some: slice) -> None:
    for options in _STEERINGS[some]:
        _check_steering(options)


def _check_steering(options: dict[str, Any]) -> None:
    torch.compiler.reset()
    model = tiny("llama", num_hidden_layers=2)
    check(lambda: tk.Steering(model, VECTORS, **options), model, padded_batch(5, 9), 12)


def test_steering_comes_and_goes_around_a_decoder(bench: Bench) -> None:
    """The same decoder with and without it: code that knows of no hooks must not serve where there are some."""
    compiler, decoder = Compiler(), CASES["cad"].attached(bench, 3)
    steering = tk.Steering(bench.model, VECTORS)
    for blocks in ([decoder], [decoder, steering], [steering, decoder], [decoder]):
        got = []
        for options in ({"max_new_tokens": 8, "do_sample": False}, compiler.options()):
            with ExitStack() as stack:
                for block in blocks:
                    stack.enter_context(block)
                got.append(run(bench.model, bench.rows(3), **options))
        assert got[0] == got[1]
    assert compiler.graphs == 3  # one for each order of the hooks


def test_the_model_is_left_clean() -> None:
    """Compiled greedy search before, between and after blocks; each with code of its own."""
    model, inputs, compiler = tiny("llama", num_hidden_layers=2), padded_batch(5, 9), Compiler()
    plain = run(model, inputs, max_new_tokens=8, do_sample=False)
    own = compiler.options()
    own["compile_config"]._compile_all_devices = True  # transformers' own way on a CPU
    for block in (tk.Steering(model, VECTORS), tk.DoLa(model, layers=[0]), tk.Steering(model, {1: VECTORS[1]})):
        with block:
            inside = run(model, inputs, **compiler.options())
        with block:
            assert run(model, inputs, max_new_tokens=8, do_sample=False) == inside
        assert "_compiled_call" not in vars(model) or compiler.graphs > 1
        assert run(model, inputs, **own) == plain
    assert compiler.graphs == 4


# -- other people's decoders, and what stays uncompiled ----------------------------------------------------------------


class Growing(Decoder):
    """A weight that grows with the answer, in plain torch."""

    def __init__(self, model: Any):
        super().__init__(model, [View("shorter", prompt=lambda rows: [row[1:] for row in rows])])

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        (other,) = views
        return main.logits + 0.3 * main.step * (main.logits - other.logits)


class Peeking(Growing):
    """What it does depends on a number, which no graph knows."""

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        return main.logits if float(main.logits[0, 0, 5]) > 0 else super().combine(main, *views)


def test_a_decoder_of_somebody_else() -> None:
    """And layers that are large enough for another layout on a CPU."""
    model = tiny("llama", num_hidden_layers=2, hidden_size=264, intermediate_size=264)
    check(lambda: Growing(model), model, padded_batch(5, 9), 8)


@each(
    "make, reason",
    [
        (Peeking, "Peeking"),
        (lambda m: tk.ICD(m, amateur=tiny("llama", seed=1, num_hidden_layers=2)), "a view with a forward of its own"),
        (lambda m: tk.Capture(m, [0]), "Capture reads every forward"),
    ],
)
def test_what_cannot_be_one_graph_runs_uncompiled_with_a_word(make: Any, reason: str) -> None:
    model, inputs = tiny("llama", num_hidden_layers=2), padded_batch(5, 9)
    block = make(model)
    with block:
        want = run(model, inputs, max_new_tokens=8, do_sample=False)
    with block, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(2):
            assert run(model, inputs, **Compiler().options()) == want
    (word,) = [str(one.message) for one in said if issubclass(one.category, UserWarning)]
    assert word.startswith("decode steps run uncompiled: ")
    assert reason in word
    assert "\n" not in word


def test_a_compiled_model_asks_for_compiled_steps() -> None:
    """All else of it runs uncompiled, and there is a word."""
    model, inputs = tiny("llama", num_hidden_layers=2), padded_batch(5, 9)
    with tk.DoLa(model, layers=[0]):
        want = run(model, inputs, max_new_tokens=8, do_sample=False)
    with tk.Steering(model, VECTORS):
        steered = run(model, inputs, max_new_tokens=8, do_sample=False)
    model.compile(backend="eager")
    compiler = Compiler()
    for block, expected in ((tk.DoLa(model, layers=[0]), want), (tk.Steering(model, VECTORS), steered)):
        compiler.graphs = 0
        with pytest.warns(UserWarning, match="this model is compiled; inside a truthkit block"), block:  # noqa: PT031
            assert run(model, inputs, max_new_tokens=8, do_sample=False) == expected
            assert run(model, inputs, **compiler.options()) == expected
        assert compiler.graphs == 1
