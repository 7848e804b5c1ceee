"""Gated decoders. Oracle: plain forwards of each row by itself, one token at a time, the gate worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.tiny import padded_batch, tiny
from tests.tiny_vlm import picture, tiny_vlm
from truthkit.decoding.engine.view import View, ViewLogits
from truthkit.decoding.spec import parse_spec

NEW = 12


class Shortened(tk.Decoder):
    """Contrasts with a prompt that lacks its first three tokens."""

    def __init__(self, model: Any, processor: Any = None, *, beta: float = 0.1):
        super().__init__(model, [View("short", prompt=lambda rows: [list(row)[3:] for row in rows])], beta=beta)

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        return 2 * main.logits - views[0].logits


def entropy(logits: torch.Tensor) -> float:
    p = logits.double().softmax(-1)
    return float(-(p * p.log()).sum())


def by_hand(model: Any, prompt: Sequence[int], threshold: float, *, detector: str) -> tuple[list[int], list[bool]]:
    """The gated contrast's tokens, and where the gate fired."""
    ids, fired = list(prompt), []
    for _ in range(NEW):
        with torch.no_grad():
            own, other = (model(torch.tensor([row])).logits[0, -1] for row in (ids, ids[3:]))
        p, q = own.double().softmax(-1), other.double().softmax(-1)
        middle = (p + q) / 2
        js = float((p * (p / middle).log() + q * (q / middle).log()).sum() / 2)
        score = {"entropy": entropy(own), "max_prob": 1 - float(p.max()), "agreement": 1 - js / math.log(2)}[detector]
        fired.append(score > threshold)
        if fired[-1]:
            scores = 2 * own - other
            own = scores.masked_fill(own < own.max() + math.log(0.1), -torch.inf)
        ids.append(int(own.argmax()))
    return ids[len(prompt) :], fired


def rows_of(batch: dict[str, torch.Tensor]) -> list[list[int]]:
    return [ids[kept.bool()].tolist() for ids, kept in zip(batch["input_ids"], batch["attention_mask"], strict=True)]


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom"])
@pytest.mark.parametrize("skip", [True, False])
def test_it_acts_where_it_fires_and_nowhere_else(family: str, skip: bool) -> None:
    model, batch = tiny(family), padded_batch(9, 6, 12)
    for detector, threshold in (("entropy", 1.4), ("max_prob", 0.6), ("agreement", 0.4)):
        wanted = [by_hand(model, row, threshold, detector=detector) for row in rows_of(batch)]
        share = sum(map(sum, (fired for _, fired in wanted))) / (3 * NEW)
        gate = tk.When(model, decoder=Shortened(model), detector=detector, threshold=threshold, skip=skip)  # type: ignore
        with gate as session:
            new = model.generate(**batch, max_new_tokens=NEW, do_sample=False)[:, 12:]
        assert new.tolist() == [tokens for tokens, _ in wanted]
        assert session.share == pytest.approx(share)
        assert 0 < share < 1, (detector, share)


@pytest.mark.parametrize("mode", [{"num_beams": 3}, {"use_cache": False}, {"prompt_lookup_num_tokens": 3}])
def test_views_that_wait_catch_up_in_every_mode(mode: dict[str, Any]) -> None:
    model = tiny("llama")
    batch = padded_batch(9) if "prompt_lookup_num_tokens" in mode else padded_batch(9, 6, 12)
    found = []
    for skip in (True, False):
        with tk.When(model, decoder=Shortened(model), threshold=1.4, skip=skip):
            found.append(model.generate(**batch, max_new_tokens=NEW, do_sample=False, **mode))
    assert torch.equal(*found)


def test_where_it_never_fires_it_is_greedy_search_and_reads_no_view() -> None:
    model, batch = tiny("llama"), padded_batch(9, 6)
    plain = model.generate(**batch, max_new_tokens=NEW, do_sample=False)
    forwards: list[int] = []
    handle = model.register_forward_hook(lambda _m, _a, out: forwards.append(len(out.logits)))
    with tk.When(model, decoder=Shortened(model), threshold=100.0, skip=True) as session:
        assert torch.equal(model.generate(**batch, max_new_tokens=NEW, do_sample=False), plain)
    handle.remove()
    assert session.share == 0
    assert forwards == [2] * NEW
    with tk.When(model, decoder=Shortened(model), threshold=0.0, skip=True) as session:
        always = model.generate(**batch, max_new_tokens=NEW, do_sample=False)
    with Shortened(model):
        assert torch.equal(model.generate(**batch, max_new_tokens=NEW, do_sample=False), always)
    assert session.share == 1
    assert not model._forward_hooks


def test_as_a_logits_processor() -> None:
    model, batch = tiny("llama"), padded_batch(9, 6, 12)
    options: dict[str, Any] = {"decoder": tk.DoLa(model, layers=[1, 2]), "threshold": 1.4}
    with tk.When(model, **options) as session:
        wanted = model.generate(**batch, max_new_tokens=NEW, do_sample=False)
    assert 0 < session.share < 1
    processors = [tk.WhenLogitsProcessor(model, **options)]
    assert torch.equal(
        model.generate(**batch, max_new_tokens=NEW, do_sample=False, logits_processor=processors), wanted
    )
    shortened = [tk.WhenLogitsProcessor(model, decoder=Shortened(model), threshold=1.4)]
    new = model.generate(**batch, max_new_tokens=NEW, do_sample=False, logits_processor=shortened)[:, 12:]
    assert new.tolist() == [by_hand(model, row, 1.4, detector="entropy")[0] for row in rows_of(batch)]


def test_images() -> None:
    vlm = tiny_vlm("qwen2_vl")
    inputs = vlm.inputs(["{}What is here?", "{}And here, long ago?"], [[picture(40, 30, 1)], [picture(30, 44, 2)]])
    found, shares = [], []
    for skip in (True, False):
        decoder = tk.VCD(vlm.model, vlm.processor)
        with tk.When(vlm.model, vlm.processor, decoder=decoder, threshold=4.0, skip=skip) as session:
            found.append(vlm.model.generate(**inputs, max_new_tokens=NEW, do_sample=False))
        shares.append(session.share)
    assert torch.equal(*found)
    assert shares[0] == shares[1]


def test_at_random_it_fires_as_often_as_asked_whatever_is_beside_a_row() -> None:
    model, batch = tiny("llama"), padded_batch(*[9] * 24)
    gate = tk.When(model, decoder=Shortened(model), detector="random", threshold=0.7)
    with gate as session:
        together = model.generate(**batch, max_new_tokens=NEW, do_sample=False)
    assert session.share == pytest.approx(0.3, abs=0.1)
    with gate:
        alone = model.generate(batch["input_ids"][3:4], max_new_tokens=NEW, do_sample=False)
    assert torch.equal(alone[0], together[3])


def test_it_is_written_and_read_back() -> None:
    spec = parse_spec('when:decoder="vcd:alpha=2,beta=0.2",threshold=0.5+apc')
    assert [one.name for one in spec.every] == ["when", "apc", "vcd"]
    assert spec.needs_image
    assert parse_spec("when:decoder=cad").takes("context")
    model = tiny("llama")
    gate = parse_spec('when:decoder="dola:layers=1+2,beta=0.2",detector=max_prob,threshold=0.5').build(model, None)
    assert isinstance(gate, tk.When)
    assert parse_spec(gate.spec).build(model, None).spec == gate.spec  # type: ignore[attr-defined]
    controls = {one.name: one.decoder for one in parse_spec(gate.spec).controls()}
    assert controls["ungated"] == gate.decoder.spec
    assert "sampling" in controls


def test_bad_input() -> None:
    model, other = tiny("llama"), tiny("llama")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"decoder": "vcd"}, "decoder is 'vcd'; expected one for this model, such as tk.VCD"),
        ({"decoder": Shortened(other)}, "decoder is a Shortened of another one; expected one for this model"),
        ({"detector": "surprise"}, "detector is 'surprise'; expected"),
        ({"threshold": -1.0}, "threshold is -1.0; expected 0 or more"),
        ({"detector": "max_prob", "threshold": 1.5}, "threshold is 1.5; scores of 'max_prob' are from 0 to 1"),
        ({"decoder": tk.APC(model), "detector": "agreement"}, "compares views, and APC has none"),
    ]
    for options, message in cases:
        with pytest.raises(tk.ArgumentError, match=message):
            tk.When(model, **{"decoder": Shortened(model), **options})
    for text, message in (
        ("when:decoder=greedy", "cannot have 'greedy' as its decoder"),
        ("when:decoder=opera", "cannot have 'opera' as its decoder"),
        ("when:decoder=dolla", "did you mean 'dola'"),
    ):
        with pytest.raises(tk.ArgumentError, match=message):
            parse_spec(text)
