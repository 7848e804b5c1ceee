"""Oracle: `DynamicCache`, which appends by concatenation."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import DynamicCache, EncoderDecoderCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from tests.tiny import FAMILIES, padded_batch, tiny
from truthkit.hf.growing_cache import GrowingCache, GrowingLayer, GrowingTensor, grow

MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {"do_sample": True, "top_k": 20, "temperature": 1.3},
    "beams": {"num_beams": 3},
    "beams-sampled": {"num_beams": 3, "do_sample": True},
    "two-each": {"num_return_sequences": 2, "do_sample": True},
    "prompt-lookup": {"prompt_lookup_num_tokens": 3},
}


def states(new: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of (batch, 2 heads, new, 3 and 4 numbers)."""
    return torch.randn(batch, 2, new, 3), torch.randn(batch, 2, new, 4)


def filled(length: int) -> tuple[GrowingLayer, DynamicLayer]:
    """Both kinds of layer with the same contents."""
    layers = GrowingLayer(), DynamicLayer()
    keys, values = states(length)
    for layer in layers:
        layer.update(keys, values)
    return layers


def assert_same(grown: GrowingLayer, plain: DynamicLayer) -> None:
    assert grown.get_seq_length() == plain.get_seq_length()
    assert torch.equal(grown.keys, plain.keys)
    assert torch.equal(grown.values, plain.values)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_generates_as_the_dynamic_cache_does(family: str, mode: str) -> None:
    model = tiny(family)
    inputs = padded_batch(6) if mode == "prompt-lookup" else padded_batch(7, 4)
    tokens = []
    for make in (DynamicCache, GrowingCache):
        torch.manual_seed(1)
        options = {"do_sample": False} | MODES[mode]
        tokens.append(model.generate(**inputs, max_new_tokens=70, cache=make(config=model.config), **options))
    assert torch.equal(*tokens)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_generates_the_same(family: str) -> None:
    model, inputs = tiny(family), padded_batch(7, 4)
    tokens = [
        model.generate(**inputs, max_new_tokens=16, do_sample=False, use_cache=True, cache=make(config=model.config))
        for make in (DynamicCache, GrowingCache)
    ]
    assert torch.equal(*tokens)


def test_update_crop_and_row_operations() -> None:
    grown, plain = filled(5)
    rows = {
        "reorder_cache": torch.tensor([1, 1]),
        "batch_select_indices": torch.tensor([1, 0]),
        "batch_repeat_interleave": 3,
    }
    for name, argument in rows.items():
        for layer in (grown, plain):
            getattr(layer, name)(argument)
            layer.crop(-1)
        assert_same(grown, plain)
        more = states(2, batch=len(plain.keys))
        for layer in (grown, plain):
            layer.update(*more)
        assert_same(grown, plain)
    assert grown.get_mask_sizes(4) == plain.get_mask_sizes(4)


def test_a_mask_selects_rows() -> None:
    grown, plain = filled(5)
    for layer in (grown, plain):
        layer.batch_select_indices(torch.tensor([False, True]))
    assert_same(grown, plain)


def test_crop_goes_no_further_than_everything_and_takes_no_positive_count() -> None:
    grown, _ = filled(5)
    with pytest.raises(ValueError, match="positive value"):
        grown.crop(2)
    grown.crop(-7)
    assert grown.get_seq_length() == 0


def test_grows_in_place_with_bounded_spare_room() -> None:
    """Storage moves some tens of times in 4,000 appends, and holds at most 1,024 + 64 slots more than tokens."""
    layer = GrowingLayer()
    places = set()
    for _ in range(4000):
        keys, _ = layer.update(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))
        places.add(keys.untyped_storage().data_ptr())
        capacity = keys.untyped_storage().nbytes() // 4
        assert layer.get_seq_length() <= capacity <= layer.get_seq_length() * 1.5 + 64
        assert capacity <= layer.get_seq_length() + 1024 + 64
    assert len(places) < 20


def test_what_is_assigned_from_outside_becomes_the_contents_and_is_never_written() -> None:
    grown, plain = filled(6)
    keys = grown.keys.clone()
    for layer in (grown, plain):
        layer.keys, layer.values = layer.keys[..., :4, :], layer.values[..., :4, :]
    assert_same(grown, plain)
    grown.keys = keys
    grown.crop(-2)
    before = keys.clone()
    grown.update(*states(1))
    assert torch.equal(keys, before)


def test_grow_converts_filled_and_empty_plain_layers_only() -> None:
    model = tiny("gemma3_text")
    inputs = padded_batch(7)
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(**inputs, cache=cache)
    expected, empty = copy.deepcopy(cache), DynamicCache()
    grow(cache)
    grow(empty)
    assert [type(layer) for layer in cache.layers] == [DynamicSlidingWindowLayer, GrowingLayer] * 2
    assert cache.is_croppable
    assert empty.layer_class_to_replicate is GrowingLayer
    for grown, plain in zip(cache.layers, expected.layers, strict=True):
        assert torch.equal(grown.keys, plain.keys)
    token = torch.tensor([[5]])
    assert torch.equal(model(token, cache=cache).logits, model(token, cache=expected).logits)


def test_grow_takes_the_decoders_half_of_an_encoder_decoder_cache() -> None:
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    grow(cache)
    assert cache.self_attention_cache.layer_class_to_replicate is GrowingLayer
    assert cache.cross_attention_cache.layer_class_to_replicate is DynamicLayer


def test_reset_offload_and_copies() -> None:
    grown, plain = filled(5)
    twin = copy.deepcopy(grown)
    for layer in (grown, plain):
        layer.offload()
        layer.prefetch()
    assert_same(grown, plain)
    grown.reset()
    assert grown.get_seq_length() == 0
    assert grown.keys is None
    assert_same(twin, plain)


def test_a_cache_filled_in_inference_mode_can_grow_outside() -> None:
    with torch.inference_mode():
        grown, plain = filled(5)
    more = states(1)
    for layer in (grown, plain):
        layer.update(*more)
    assert_same(grown, plain)


def test_states_of_other_rows_are_refused_where_a_write_would_broadcast() -> None:
    tensor = GrowingTensor(torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match=r"cannot append states of shape \(1, 1, 4\) to \(2, 3, 4\)"):
        tensor.append(torch.zeros(1, 1, 4))
