"""Sums of decoders. Oracle: each decoder alone, their logits added up by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.decoding.cases import Bench, tiny_bench
from tests.tiny import tiny

LIE = "lie now"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench("llama", tmp_path_factory.mktemp("amateur"))


def parts(bench: Bench, batch: int, beta: float = 0.0) -> list[Any]:
    model, tokenizer = bench.model, bench.tokenizer
    return [
        tk.LOL(model, tokenizer, amateur=bench.adapter, layers=[2], beta=beta),
        tk.DoLa(model, layers=[1, 2], beta=0.0),
        tk.CAD(model, tokenizer, context=bench.contexts[:batch]),
        tk.ICD(model, tokenizer, amateur=bench.other, beta=0.0),
    ]


def logits(model: Any, decoder: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with decoder, torch.no_grad():
        return model(**inputs).logits[:, -1]


@pytest.mark.parametrize("batch", [1, 3])
def test_differences_add_up(bench: Bench, batch: int) -> None:
    inputs = bench.rows(batch)
    with torch.no_grad():
        plain = bench.model(**inputs).logits[:, -1]
    alone = [logits(bench.model, part, inputs) for part in parts(bench, batch)]
    expected = plain + sum(scores - plain for scores in alone)
    first, *rest = parts(bench, batch)
    both = first
    for other in rest:
        both = both + other
    torch.testing.assert_close(logits(bench.model, both, inputs), expected, rtol=1e-4, atol=1e-4)


def test_strictest_constraint(bench: Bench) -> None:
    inputs = bench.rows(1)
    with torch.no_grad():
        plain = bench.model(**inputs).logits[:, -1]
    kept = plain >= plain.max() + math.log(0.3)
    one, two = tk.ICD(bench.model, amateur=bench.adapter, beta=0.3), tk.DoLa(bench.model, beta=0.1)
    assert torch.equal(logits(bench.model, one + two, inputs).isfinite(), kept)
    free = tk.Together(one, two, beta=0.0)
    assert logits(bench.model, free, inputs).isfinite().all()
    assert [(free + tk.DoLa(bench.model, beta=beta)).beta for beta in (0.0, 0.2)] == [0.0, 0.2]
    assert ((one + two) + tk.Together(one, two, beta=0.5)).beta == 0.5


@pytest.mark.parametrize("mode", [{}, {"num_beams": 3}])
def test_logits_processor(bench: Bench, mode: dict[str, Any]) -> None:
    inputs = bench.rows(3)
    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, **mode}
    one, two, *_ = parts(bench, 3)
    with one + two:
        expected = bench.model.generate(**inputs, **options)
    processor = tk.TogetherLogitsProcessor(*parts(bench, 3)[:2], attention_mask=inputs["attention_mask"])
    assert bench.model.generate(**inputs, **options, logits_processor=[processor]).tolist() == expected.tolist()


def test_bad_company(bench: Bench) -> None:
    dola = tk.DoLa(bench.model)
    with pytest.raises(tk.ArgumentError, match="two or more decoders"):
        tk.Together(dola)
    with pytest.raises(tk.ArgumentError, match="same model"):
        _ = dola + tk.DoLa(tiny("llama", seed=3))
    with pytest.raises(tk.ArgumentError, match="final norm"):
        _ = dola + tk.DoLa(bench.model, norm=False)


def test_model_is_clean_after_an_error(bench: Bench, tmp_path: Path) -> None:
    both = tk.DoLa(bench.model) + tk.ICD(bench.model, amateur=bench.adapter)
    with pytest.raises(RuntimeError, match="stop"), both:
        raise RuntimeError("stop")
    assert "generate" not in vars(bench.model)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in bench.model.modules())
