"""What only an accelerator can show: `pytest -m gpu` on a machine that has one.

The CPU's tokens are the reference; they are held to the formulas by the tests beside these. With
TRUTHKIT_TEST_DEVICE=cpu the checks run without an accelerator, which tries the checks themselves.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.decoding.cases import CASES, MODES, Bench, tiny_bench
from truthkit.scenes.questions import held_out, question_text
from truthkit.scenes.render import render

DEVICE = os.environ.get("TRUTHKIT_TEST_DEVICE", "cuda")
ON_GPU = DEVICE == "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(ON_GPU and not torch.cuda.is_available(), reason="no CUDA device"),
]

FAMILIES = ("llama", "qwen2", "gemma2", "gpt2")
NEW = 24


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    """No TF32, which would round float32 products to ten bits."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture(scope="module", params=FAMILIES)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(request.param, tmp_path_factory.mktemp("adapter"))


def tokens(model: Any, inputs: dict[str, torch.Tensor], attach: AbstractContextManager[Any], **options: Any) -> Any:
    torch.manual_seed(0)
    with attach:
        given = {name: value.to(model.device) for name, value in inputs.items()}
        return model.generate(**given, **{"max_new_tokens": NEW, "do_sample": False, **options}).cpu()


@pytest.mark.parametrize("name", CASES)
def test_tokens_of_the_cpu(bench: Bench, name: str) -> None:
    wanted: dict[str, torch.Tensor] = {}
    found: dict[str, torch.Tensor] = {}
    modes = {mode: MODES[mode] for mode in ("greedy", "beams")} | {"static": {"cache_implementation": "static"}}
    for device, kept in (("cpu", wanted), (DEVICE, found)):
        bench.model.to(device), bench.other.to(device)
        for mode, options in modes.items():
            kept[mode] = tokens(bench.model, bench.inputs, CASES[name].attached(bench, 4), **options)
    bench.model.to("cpu"), bench.other.to("cpu")
    assert all(torch.equal(wanted[mode], found[mode]) for mode in modes), name


@pytest.mark.parametrize("decoder", ["ritual", "vcd", "m3id"])
def test_pictures(decoder: str) -> None:
    image, question = render(held_out(1)[0]), question_text("cup")
    answers = []
    for device in ("cpu", DEVICE):
        model, processor = tk.load("scene-vlm")
        model.to(device)
        made = {
            "ritual": lambda m=model, p=processor: tk.RITUAL(m, p, images=[image]),
            "vcd": lambda m=model: tk.VCD(m),
            "m3id": lambda m=model, p=processor: tk.M3ID(m, p),
        }[decoder]()
        talk = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
        text = processor.apply_chat_template(talk, add_generation_prompt=True)
        answers.append(tokens(model, dict(processor(images=image, text=text, return_tensors="pt").items()), made))
    assert torch.equal(*answers)


def _synchronisations(run: Callable[[int], Any]) -> int:
    """Those of eight more tokens."""
    counts = []
    for new in (4, 12):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                run(new)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        counts.append(sum("synchroniz" in str(warning.message) for warning in caught))
    return counts[1] - counts[0]


@pytest.mark.skipif(not ON_GPU, reason="counts CUDA's own warnings")
@pytest.mark.parametrize("name", CASES)
def test_no_synchronisation_of_ours(bench: Bench, name: str) -> None:
    model = bench.model.to(DEVICE)
    bench.other.to(DEVICE)

    def run(new: int, attach: AbstractContextManager[Any]) -> None:
        tokens(model, bench.inputs, attach, max_new_tokens=new)

    plain = _synchronisations(lambda new: run(new, nullcontext()))
    ours = _synchronisations(lambda new: run(new, CASES[name].attached(bench, 4)))
    model.to("cpu"), bench.other.to("cpu")
    assert ours <= plain


def test_vectors_and_steering() -> None:
    pairs = [(f"It is {word}.", f"It is not {word}.") for word in ("so", "good", "here", "late", "true", "over")]
    found = []
    for device in ("cpu", DEVICE):
        model, tokenizer = tk.load()
        model.to(device)
        vector = tk.extract(model, tokenizer, pairs, held_out=0)
        inputs = dict(tokenizer("The sea is", return_tensors="pt").items())
        found.append((vector, tokens(model, inputs, vector.steer(model, strength=2.0, layers=15))))
    (here, wanted), (there, steered) = found
    for layer in here.layers:
        torch.testing.assert_close(here[layer].cpu(), there[layer].cpu(), rtol=1e-3, atol=1e-4)
    assert torch.equal(wanted, steered)


@pytest.mark.skipif(not ON_GPU or torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
@pytest.mark.parametrize("name", ["icd-model", "lol-model"])
def test_an_amateur_on_another_device(bench: Bench, name: str) -> None:
    wanted = tokens(bench.model, bench.inputs, CASES[name].attached(bench, 4))
    bench.model.to("cuda:0"), bench.other.to("cuda:1")
    found = tokens(bench.model, bench.inputs, CASES[name].attached(bench, 4))
    bench.model.to("cpu"), bench.other.to("cpu")
    assert torch.equal(wanted, found)
