"""The tiny models must be worth testing against: varied, sensitive to the whole prompt, right under left padding."""

from __future__ import annotations

import torch

from tests.each import each
from tests.tiny import ALIBI, FAMILIES, PAD, VOCAB, padded_batch, tiny


@each("family", FAMILIES)
def test_greedy_output_is_varied_and_does_not_depend_on_padding(family: str) -> None:
    """Oracle: each row alone, without padding and without a cache, one whole forward for each token."""
    model = tiny(family)
    batch = padded_batch(5, 9)
    generated = model.generate(**batch, max_new_tokens=24, do_sample=False)[:, 9:]
    assert generated.shape == (2, 24)
    for ids, mask, row in zip(batch["input_ids"], batch["attention_mask"], generated, strict=True):
        text = ids[mask.bool()][None]
        for _ in range(24):
            with torch.no_grad():
                logits = model(input_ids=text, use_cache=False).logits[:, -1]
            text = torch.cat([text, logits.argmax(-1, keepdim=True)], dim=-1)
        assert row.tolist() == text[0, -24:].tolist()
        assert len(set(row.tolist())) >= 4


@each("family", FAMILIES)
def test_logits_have_something_to_choose_from(family: str) -> None:
    """They depend on the first token, and are neither uniform nor a single certain token."""
    model, ids = tiny(family), torch.arange(2, 12)[None]
    other = ids.clone()
    other[0, 0] = 99
    with torch.no_grad():
        change = (model(input_ids=ids).logits - model(input_ids=other).logits)[0, -1].abs().max()
        logits = model(**padded_batch(8, 8, 8, 8)).logits[:, -1]
    assert change > 0.5
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    assert entropy.mean() > 1.0
    assert entropy.max() < 0.9 * torch.log(torch.tensor(float(VOCAB)))


def test_same_seed_same_weights_and_the_global_seed_is_left_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, second, other = tiny("llama"), tiny("llama"), tiny("llama", seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first.lm_head.weight, second.lm_head.weight)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_overrides_reach_the_config() -> None:
    model = tiny("mistral", sliding_window=6, num_hidden_layers=2, dtype=torch.float64, attn_implementation="eager")
    assert (model.config.sliding_window, model.config.num_hidden_layers) == (6, 2)
    assert model.dtype == torch.float64
    assert model.config._attn_implementation == "eager"


def test_padded_batch_pads_left_with_random_prompts() -> None:
    batch = padded_batch(2, 5)
    assert batch["input_ids"].shape == (2, 5)
    assert batch["input_ids"][0, :3].tolist() == [PAD] * 3
    assert batch["attention_mask"].tolist() == [[0, 0, 0, 1, 1], [1] * 5]
    assert (batch["input_ids"][batch["attention_mask"].bool()] > PAD).all()


def test_alibi_names_known_families() -> None:
    assert set(FAMILIES) >= ALIBI
