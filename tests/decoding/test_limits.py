"""Methods that are another one, or the model itself, at the limits of their options; for text and for images."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import truthkit as tk
from tests.decoding.cases import Bench, tiny_bench
from tests.decoding.test_decoders import decode
from tests.tiny_vlm import picture, tiny_vlm


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench("llama", tmp_path_factory.mktemp("adapter"))


def tokens(bench: Bench, decoder: Any) -> list[list[int]]:
    with decoder:
        return decode(bench.model, bench.rows(4)).sequences.tolist()


def test_of_text(bench: Bench) -> None:
    model, tokenizer, context = bench.model, bench.tokenizer, {"context": bench.contexts}
    plain = decode(model, bench.rows(4)).sequences.tolist()
    for same in (
        tk.SLED(model, evolution_rate=0.0),
        tk.DeCo(model, alpha=0.0),
        tk.ExitsMean(model, share=0.0),
        tk.ActivationDecoding(model, alpha=0.0),
        tk.TopNSigma(model, n=0.0),
        tk.EntropyGate(model, threshold=0.0),
        tk.Agreement(model, tokenizer, view=tk.View("same"), agree=1.0),
        tk.Agreement(model, tokenizer, view=tk.View("same"), threshold=0.0),
    ):
        assert tokens(bench, same) == plain, same
    strong = tk.AdaCAD(model, tokenizer, **context, theta=3.0)
    assert tokens(bench, strong) == tokens(bench, tk.CAD(model, tokenizer, **context, alpha=3.0))
    never = tk.Agreement(model, tokenizer, view="icd", threshold=0.0, differ=0.5, beta=0.0)
    other = tk.CAD(model, tokenizer, **context)
    contrast = tk.Agreement(model, tokenizer, view=other.views[1], threshold=0.0, differ=0.5, beta=0.0)
    assert tokens(bench, contrast) == tokens(bench, other)
    assert tokens(bench, never) != plain


def test_of_pictures() -> None:
    """A gate that never agrees is VCD; the methods of exits run where there are images."""
    tiny = tiny_vlm("llava")
    inputs = tiny.inputs(["{}what?", "{}and that there?"], [[picture(28, 28, 1)], [picture(28, 28, 2)]])

    def generate(decoder: Any) -> torch.Tensor:
        with decoder:
            return tiny.model.generate(**inputs, max_new_tokens=6, do_sample=False)

    never = tk.Agreement(tiny.model, tiny.processor, view="vcd", threshold=0.0)
    assert torch.equal(generate(never), generate(tk.VCD(tiny.model)))
    plain = tiny.model.generate(**inputs, max_new_tokens=6, do_sample=False)
    assert torch.equal(generate(tk.SLED(tiny.model, evolution_rate=0.0)), plain)
    assert torch.equal(generate(tk.DeCo(tiny.model, alpha=0.0)), plain)
    assert torch.equal(generate(tk.ExitsMean(tiny.model, share=0.0)), plain)
    assert torch.equal(generate(tk.ActivationDecoding(tiny.model, alpha=0.0)), plain)
