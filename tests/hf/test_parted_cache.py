"""A layer in parts. Oracle: one layer of all rows, padded, and torch's attention with the whole mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from truthkit.hf.growing_cache import GrowingLayer
from truthkit.hf.packed_attention import packed_attention_forward
from truthkit.hf.parted_cache import PartedLayer, Parting

VIEWS, BATCH, AHEAD, COLUMNS = [[0, 2], [1, 4], [3]], 2, [1, 9, 5], 12
ROWS = 5 * BATCH


def some(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.fixture
def layers() -> tuple[PartedLayer, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The layer, all rows' keys and values, and which of their columns are real: row 5 (view 2) has padding too."""
    keys, values = some(ROWS, 2, COLUMNS, 4), some(ROWS, 2, COLUMNS, 6)
    real = torch.ones(ROWS, COLUMNS, dtype=torch.bool)
    parts = []
    for views, ahead in zip(VIEWS, AHEAD, strict=True):
        rows = [view * BATCH + i for view in views for i in range(BATCH)]
        for tensor in (keys, values):
            tensor[rows, :, :ahead] = 0
        real[rows, :ahead] = False
        part = GrowingLayer()
        part.update(keys[rows][:, :, ahead:], values[rows][:, :, ahead:])
        parts.append(part)
    real[5, :4] = False
    return PartedLayer(Parting(VIEWS, BATCH, AHEAD, [True, False, False]), parts), keys, values, real


def attended(
    layer: PartedLayer, keys: Any, values: Any, real: Any, width: int, kind: torch.dtype, gone: bool = False
) -> tuple[Any, Any]:
    """`width` new tokens of all rows; keys and values with them."""
    new = some(len(keys), 2, width, 4), some(len(keys), 2, width, 6)
    keys, values = torch.cat([keys, new[0]], dim=2), torch.cat([values, new[1]], dim=2)
    query = some(len(keys), 4, width, 4)
    causal = torch.ones(width, keys.shape[2], dtype=torch.bool).tril(keys.shape[2] - width)
    sight = torch.nn.functional.pad(real, (0, keys.shape[2] - real.shape[1]), value=True)
    mask = sight[:, None, None] & causal
    if kind != torch.bool:
        mask = torch.zeros(mask.shape, dtype=kind).masked_fill(~mask, torch.finfo(kind).min)
    handed = layer.update(*new)
    if gone:  # as where a layer is offloaded before its keys are attended to
        layer.reset()
    got, weights = packed_attention_forward(torch.nn.Module(), query, *handed, mask, scaling=0.3)
    repeated = keys.repeat_interleave(2, dim=1), values.repeat_interleave(2, dim=1)
    expected = scaled_dot_product_attention(query, *repeated, attn_mask=mask, scale=0.3)
    torch.testing.assert_close(got, expected.transpose(1, 2))
    assert weights is None
    return keys, values


def check(layer: PartedLayer, keys: torch.Tensor, values: torch.Tensor) -> None:
    assert layer.get_seq_length() == keys.shape[2]
    assert layer.get_mask_sizes(3) == (keys.shape[2] + 3, 0)
    for held in (layer, layer.whole()):
        assert torch.equal(held.keys, keys)
        assert torch.equal(held.values, values)


@pytest.mark.parametrize("kind", [torch.bool, torch.float64])
def test_attention_after_steps_and_crops(layers: Any, kind: torch.dtype) -> None:
    layer, keys, values, real = layers
    check(layer, keys, values)
    for width in (1, 3, 1):
        keys, values = attended(layer, keys, values, real, width, kind)
        check(layer, keys, values)
    layer.crop(-2)
    keys, values = keys[:, :, :-2], values[:, :, :-2]
    check(layer, keys, values)
    attended(layer, keys, values, real, 1, kind)
    with pytest.raises(ValueError, match="no mask"):
        layer.parting.masks(None, 2)


@pytest.mark.parametrize("move", ["beams", "more rows", "fewer rows", "repeated", "chosen"])
def test_rows_move_within_their_views(layers: Any, move: str) -> None:
    layer, keys, values, real = layers
    of_view = {"more rows": [1, 1, 0], "fewer rows": [1]}.get(move, [1, 0])
    index = torch.cat([torch.tensor(of_view) + view * BATCH for view in range(5)])
    if move == "repeated":
        index = torch.arange(ROWS).repeat_interleave(3)
        layer.batch_repeat_interleave(3)
    elif move == "chosen":
        index = torch.arange(0, ROWS, BATCH)
        layer.batch_select_indices(torch.arange(ROWS) % BATCH == 0)
    else:
        layer.reorder_cache(index)
    check(layer, keys[index], values[index])
    attended(layer, keys[index], values[index], real[index], 1, torch.bool)


def test_offloading_and_reset(layers: Any) -> None:
    layer, keys, values, real = layers
    layer.offload()
    layer.prefetch()
    attended(layer, keys, values, real, 2, torch.bool, gone=True)
    assert [part.get_seq_length() for part in layer.parts] == [0, 0, 0]
