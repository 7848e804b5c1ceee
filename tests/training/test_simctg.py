"""SimCTG's contrastive loss. Oracle: the paper's double sum, text by text, over states that transformers hands out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import tiny
from tests.training.toys import chat_tokenizer, toy_examples
from truthkit.activations.isotropy import isotropy
from truthkit.models.adapter import with_adapter
from truthkit.training.chat import Encoded, Example, encode
from truthkit.training.lora import train
from truthkit.training.settings import TrainingSettings
from truthkit.training.simctg import margin_loss, pair_count

FAST = TrainingSettings(lr=1e-2, rank=4, token_budget=100_000, steps=1, contrastive_margin=0.5)


def double_loop(states: torch.Tensor, start: int, margin: float) -> tuple[float, int]:
    """Sum and number of pairs of one text without padding, (tokens, features), whose answer begins at `start`."""
    total, pairs = 0.0, 0
    for i, one in enumerate(states.double()):
        for j, other in enumerate(states.double()):
            if i == j or max(i, j) < start:
                continue
            same = float(one @ one / (one.norm() * one.norm()))
            cosine = float(one @ other / (one.norm() * other.norm()))
            total += max(0.0, margin - same + cosine)
            pairs += 1
    return total, pairs


@pytest.mark.parametrize("margin", [0.5, 1.0, -0.2])
def test_against_the_formula(margin: float) -> None:
    """A whole text (the paper's loss), answers behind prompts, and padding on either side."""
    texts = [(5, 0), (7, 3), (2, 1), (1, 0)]
    states = torch.randn(4, 9, 6, generator=torch.Generator().manual_seed(0)) + 1
    real, learned = torch.zeros(4, 9, dtype=torch.bool), torch.zeros(4, 9, dtype=torch.bool)
    expected = 0.0
    for row, (length, start) in enumerate(texts):
        left = row % 2 * (9 - length)
        real[row, left : left + length] = True
        learned[row, left + start : left + length] = True
        total, pairs = double_loop(states[row, left : left + length], start, margin)
        expected += total
        assert pair_count([Encoded([0] * length, start, False)]) == pairs
    assert float(margin_loss(states, real, learned, margin)) == pytest.approx(expected, rel=1e-5)


def test_gradients_are_finite_where_there_is_padding() -> None:
    states = torch.zeros(1, 4, 3)
    states[0, 2:] = torch.tensor([[1.0, 2, 3], [1, 2, 2]])
    states.requires_grad_()
    real = torch.tensor([[False, False, True, True]])
    margin_loss(states, real, real, 0.5).backward()
    assert states.grad is not None
    assert bool(states.grad.isfinite().all())
    assert not bool(states.grad[0, :2].any())
    assert bool(states.grad[0, 2:].any())


def both_losses(model: Any, examples: list[Example], margin: float) -> float:
    """Mean cross-entropy of an answer's token plus mean over pairs of the contrastive loss, each example by itself."""
    cross_entropy, tokens, contrast, pairs = 0.0, 0, 0.0, 0
    for example in examples:
        ids, start, _ = encode(chat_tokenizer(), example, 500)
        with torch.no_grad():
            output = model(torch.tensor([ids]), output_hidden_states=True)
        log_p = output.logits[0].double().log_softmax(-1)
        cross_entropy -= sum(float(log_p[i - 1, ids[i]]) for i in range(start, len(ids)))
        tokens += len(ids) - start
        more = double_loop(output.hidden_states[-1][0], start, margin)
        contrast, pairs = contrast + more[0], pairs + more[1]
    return cross_entropy / tokens + contrast / pairs


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_first_loss(family: str, accumulate: int, tmp_path: Path) -> None:
    """A new adapter changes nothing yet: the padded batch's loss is the model's own, in any number of pieces."""
    no_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0} if family == "gpt2" else {}
    model, examples = tiny(family, **no_dropout), [*toy_examples(4), Example("A plain prompt", "and more.")]
    settings = replace(FAST, accumulate=accumulate)
    report = train(model, chat_tokenizer(), examples, tmp_path / "a", settings=settings)
    assert report["losses"][0] == pytest.approx(both_losses(model, examples, 0.5), rel=1e-5)


def test_it_makes_states_more_isotropic(tmp_path: Path) -> None:
    """Trained alike with and without it, on a model whose states point much the same way."""
    texts = ["to be, or not to be, that is the question", "now is the winter of our discontent"]
    examples = [Example(text[:2], text[3:]) for text in texts]
    found = {}
    for margin in (None, 1.0):
        model = tiny("llama", initializer_range=0.05)
        settings = replace(FAST, steps=30, lr=3e-3, contrastive_margin=margin)
        train(model, chat_tokenizer(), examples, tmp_path / str(margin), settings=settings)
        adapted = with_adapter(model, tmp_path / str(margin))
        found[margin] = isotropy(adapted, chat_tokenizer(), texts, layers=[-1]).metrics["final"]
    assert found[1.0] > found[None] + 0.3
