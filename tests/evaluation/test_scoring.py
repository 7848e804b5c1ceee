"""Log-probabilities with a shared beginning. Oracle: every row alone and whole, under the same decoder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.decoding.cases import ToyTokenizer
from tests.decoding.oracle import save_adapter
from tests.tiny import tiny
from truthkit.evaluation.scoring import log_probabilities

GENERATOR = torch.Generator().manual_seed(0)


def draw(count: int) -> list[int]:
    return torch.randint(33, 127, (count,), generator=GENERATOR).tolist()


PREFIX = [1, *draw(40)]
QUESTIONS = [draw(length) for length in (6, 1, 11, 6)]
ROWS = [[*PREFIX, *QUESTIONS[question], *draw(length)] for question, length in enumerate((5, 2, 9, 1))]
ROWS += [[*PREFIX, *QUESTIONS[question], *draw(length)] for question, length in ((0, 1), (2, 3), (0, 7), (3, 12))]
STARTS = [len(PREFIX) + len(QUESTIONS[question]) for question in (0, 1, 2, 3, 0, 2, 0, 3)]

DECODERS: dict[str, Callable[[Any, str], Any]] = {
    "none": lambda _model, _adapter: None,
    "icd-adapter": lambda model, adapter: tk.ICD(model, amateur=adapter, beta=0.0),
    "icd-prompt": lambda model, _adapter: tk.ICD(model, ToyTokenizer(), amateur_prompt="lie", beta=0.0),
    "icd-model": lambda model, _adapter: tk.ICD(model, amateur=tiny(model.config.model_type, seed=5), beta=0.0),
    "dola": lambda model, _adapter: tk.DoLa(model, layers=[1, 2], beta=0.0),
    "lol": lambda model, adapter: tk.LOL(
        model, ToyTokenizer(), amateur=adapter, layers=[1, 2], refocus="be exact", beta=0.0
    ),
}


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    made: dict[str, str] = {}

    def adapter(family: str) -> str:
        if family not in made:
            made[family] = save_adapter(tiny(family), tmp_path_factory.mktemp(family))
        return made[family]

    return adapter


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3", "mistral"])
def test_equals_rows_alone(family: str, name: str, share: bool, adapters: Callable[[str], str]) -> None:
    """Mistral's sliding window cannot be shared and is read whole."""
    model = tiny(family)
    decoder = DECODERS[name](model, adapters(family))
    with decoder or nullcontext():
        found = log_probabilities(model, ROWS, STARTS, decoder, batch_tokens=40, share_prefix=share)
        for row, start, score in zip(ROWS, STARTS, found, strict=True):
            with torch.no_grad():
                log_p = model(input_ids=torch.tensor([row])).logits[0].float().log_softmax(-1)
            expected = sum(float(log_p[i - 1, row[i]]) for i in range(start, len(row)))
            assert score == pytest.approx(expected, abs=2e-4)


def test_what_is_shared_is_read_once() -> None:
    model, read = tiny("llama"), []
    handle = model.model.register_forward_pre_hook(
        lambda _m, _a, kwargs: read.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    done: list[int] = []
    with handle:
        log_probabilities(model, ROWS, STARTS, batch_tokens=10_000, on_rows=done.append)
    assert read == [len(PREFIX) - 1, len(QUESTIONS) * 11, len(ROWS) * 13]
    assert done == [len(ROWS)]


def test_rows_without_anything_in_common() -> None:
    model = tiny("llama")
    rows = [draw(6), draw(9)]
    assert len(log_probabilities(model, rows, [1, 2])) == 2
    assert log_probabilities(model, [], []) == []


def test_a_branch_of_something_else() -> None:
    model = tiny("llama")
    cache = tk.GrowingCache(config=model.config)
    with (
        tk.DoLa(model) as decoder,
        pytest.raises(tk.ArgumentError, match="has not read what is in this cache"),
        decoder.branched(cache, torch.zeros(2, dtype=torch.long)),
    ):
        pass
