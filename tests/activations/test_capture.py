"""Oracle: each text alone, unpadded, with a plain hook."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.activations.oracle import block_list, right_padded, states, unpadded
from tests.tiny import FAMILIES, padded_batch, tiny
from truthkit.activations.capture import Capture, read_texts
from truthkit.activations.moments import Moments
from truthkit.hf.sites import site_module, site_width


def with_positions(model: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What `generate` passes for left-padded rows; a bare forward of a model with learned positions needs it."""
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return batch
    return {**batch, "position_ids": (batch["attention_mask"].cumsum(dim=1) - 1).clamp_min(0)}


@pytest.mark.parametrize("family", FAMILIES)
def test_states_do_not_depend_on_the_batch(family: str) -> None:
    """Nor on the side that is padded."""
    model, batch = tiny(family), padded_batch(5, 9, 2)
    for given in (with_positions(model, batch), right_padded(batch)):
        with Capture(model) as every, Capture(model, [1, -1], positions="last") as last, torch.no_grad():
            model(**given)
        for row, ids in enumerate(unpadded(batch)):
            for layer in range(4):
                expected = states(model, ids, layer)
                tolerance = {"rtol": 1e-4, "atol": 1e-5 * float(expected.abs().max())}
                torch.testing.assert_close(every[layer][every.rows == row], expected, **tolerance)
                if layer in (1, 3):
                    torch.testing.assert_close(last[layer][row], expected[-1], **tolerance)


@pytest.mark.parametrize("family", FAMILIES)
def test_read_texts_stops_early_and_agrees(family: str) -> None:
    model = tiny(family)
    texts = unpadded(padded_batch(5, 9, 2))
    ran: list[int] = []
    handles = [
        block.register_forward_pre_hook(lambda *_args, layer=layer: ran.append(layer))
        for layer, block in enumerate(block_list(model))
    ]
    head = model.get_output_embeddings().register_forward_pre_hook(lambda *_args: ran.append(99))
    read = read_texts(model, texts, [len(ids) for ids in texts], [2, 0])
    assert ran == [0, 1, 2]
    for handle in (*handles, head):
        handle.remove()
    for row, ids in enumerate(texts):
        for i, layer in enumerate((2, 0)):
            expected = states(model, ids, layer)[-1]
            torch.testing.assert_close(read[i, row], expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_last_layer_is_the_block_output_not_the_normed_one() -> None:
    model, ids = tiny("llama"), torch.arange(2, 12)[None]
    with Capture(model, [-1]) as capture, torch.no_grad():
        normed = model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]
    assert not torch.allclose(capture[-1], normed)
    torch.testing.assert_close(model.model.norm(capture[-1]), normed)


@pytest.mark.parametrize(
    "options", [{}, {"cache_implementation": "static"}, {"use_cache": False}, {"prefill_chunk_size": 4}]
)
def test_generated_tokens_under_generate(options: dict[str, Any]) -> None:
    model, batch = tiny("llama"), padded_batch(5, 9)
    with Capture(model, [2], positions="generated", reduce="keep") as capture:
        output = model.generate(**batch, max_new_tokens=6, do_sample=False, **options)
    for row, ids in enumerate(unpadded(batch)):
        whole = ids + output[row, 9:].tolist()
        expected = states(model, whole, 2)[len(ids) : -1]
        mine = capture[2][capture.rows == row]
        mine = mine[-len(expected) :] if options.get("use_cache") is False else mine
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-4)


def test_mean_and_moments() -> None:
    model, batch = tiny("qwen2"), padded_batch(5, 9)
    moments = Moments(2, 48, scatter=True)
    with (
        Capture(model, [0, 3], reduce="mean") as means,
        Capture(model, [0, 3], reduce=moments),
        Capture(model, [0, 3]) as every,
        torch.no_grad(),
    ):
        model(**batch)
    for i, layer in enumerate((0, 3)):
        for row in range(2):
            torch.testing.assert_close(means[layer][row], every[layer][every.rows == row].mean(dim=0))
        torch.testing.assert_close(moments.mean[i], every[layer].double().mean(dim=0))
        torch.testing.assert_close(moments.covariance()[i], every[layer].double().T.cov())


def test_moments_merge_to_what_one_pass_gives() -> None:
    rows = torch.randn(3, 50, 7, dtype=torch.float64) + 100
    whole, left, right = (Moments(3, 7, scatter=True) for _ in range(3))
    whole.update(rows)
    for part in (rows[:, :13], rows[:, 13:14], rows[:, 14:14]):
        left.update(part)
    right.update(rows[:, 14:])
    left.merge(right)
    assert left.count == 50
    torch.testing.assert_close(left.mean, whole.mean, rtol=1e-14, atol=0)
    torch.testing.assert_close(left.covariance(), whole.covariance(), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(left.second_moment(), rows.mT @ rows / 50, rtol=1e-12, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_are_what_the_output_projection_reads(family: str) -> None:
    model, ids = tiny(family), torch.arange(2, 12)[None]
    projection = site_module(block_list(model)[1], "heads")
    assert site_width(model, "heads") == 48
    seen: list[torch.Tensor] = []
    handle = projection.register_forward_hook(lambda _m, _a, output: seen.append(output))
    with Capture(model, [1], site="heads") as heads, torch.no_grad():
        model(input_ids=ids)
    handle.remove()
    with torch.no_grad():
        torch.testing.assert_close(projection(heads[1]), seen[0].view(-1, 48))


def test_nothing_is_left_behind() -> None:
    model = tiny("llama")
    before = {
        name: len(module._forward_hooks) + len(module._forward_pre_hooks) for name, module in model.named_modules()
    }
    with pytest.raises(KeyboardInterrupt), Capture(model):
        raise KeyboardInterrupt
    assert before == {n: len(m._forward_hooks) + len(m._forward_pre_hooks) for n, m in model.named_modules()}
    assert not {"generate", "generate_batch", "prepare_inputs_for_generation"} & set(vars(model))


def test_bad_input() -> None:
    model = tiny("llama")
    with pytest.raises(tk.ArgumentError, match="4 decoder blocks"):
        Capture(model, [4])
    with pytest.raises(tk.ArgumentError, match="site is 'head'"):
        Capture(model, site="head")
    with pytest.raises(tk.ArgumentError, match="reduce is 'max'"):
        Capture(model, reduce="max")  # type: ignore[arg-type]
    with pytest.raises(tk.ArgumentError, match="nothing was captured at layer 3"):
        _ = Capture(model, [3])[3]
    with pytest.raises(tk.ArgumentError, match="selects no token in a text of 3 tokens"):
        read_texts(model, [[3, 4, 5]], [3], [0], positions="answer")
