"""VISTA. Oracle: whole forwards of one row with MLPs' outputs moved, and exits taken from its blocks by hand."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize

import truthkit as tk
from tests.activations.oracle import all_states, block_list, unpadded
from tests.decoding.oracle import Look
from tests.each import each
from tests.steering.oracle import FAMILIES, MODES, check, decode, logits_with, same
from tests.tiny import padded_batch, tiny
from tests.tiny_vlm import picture, tiny_vlm
from truthkit.decoding.spec import parse_spec
from truthkit.evaluation.running.asking import Asking
from truthkit.evaluation.running.item import Item
from truthkit.scenes.render import render
from truthkit.scenes.scene import sample_scene

STRENGTH, SHARE, EXITS = 0.6, 0.3, (1, 2)


def moved(states: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    more = 1 + cosine_similarity(states, -vector[None], dim=-1).clamp_min(0)[:, None]
    length = states.norm(dim=-1, keepdim=True)
    return normalize(normalize(states, dim=-1) + STRENGTH * more * normalize(vector, dim=0), dim=-1) * length


@each("mode", sorted(MODES))
@pytest.mark.parametrize("family", FAMILIES)
def test_a_vector_for_each_prompt(family: str, mode: str) -> None:
    model, batch = tiny(family), padded_batch(5, 9, 3, 7)
    vectors = {at: torch.randn(4, 48, generator=torch.Generator().manual_seed(at)) for at in range(4)}
    rows = {tuple(ids): row for row, ids in enumerate(unpadded(batch))}

    def account(prompt: list[int], continuation: list[int]) -> torch.Tensor:
        seen: dict[int, torch.Tensor] = {}

        def look(layer: int) -> Any:
            return lambda states: seen.setdefault(layer, states)

        blocks, row = block_list(model), rows[tuple(prompt)]
        acts = {blocks[at].mlp: lambda x, v=vectors[at][row]: moved(x, v.to(x.dtype)) for at in vectors}
        acts |= {blocks[at]: look(at) for at in EXITS}
        final = logits_with(model, prompt + continuation, acts)
        with torch.no_grad():
            exits = [Look(model)._exit(seen[at]) for at in EXITS]
        return (1 - SHARE) * final + SHARE * torch.stack(exits).mean(dim=0)

    vista = tk.VISTA(model, vectors=vectors, strength=STRENGTH, share=SHARE, layers=list(EXITS))
    found = check(model, vista, account, batch, mode)
    assert found.sequences.tolist() != decode(model, batch, mode).sequences.tolist()
    with vista:
        same(decode(model, batch, mode, cache_implementation="static"), found)


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_what_an_image_adds(family: str) -> None:
    vlm = tiny_vlm(family)
    images, texts = [[picture(40, 30)], [picture(28, 28, seed=1)]], ["a {} b", "{} what is it"]
    plain_texts = [text.replace("{}", "") for text in texts]
    batch, without = vlm.inputs(texts, images), vlm.inputs(plain_texts, [[], []])
    vectors = tk.vista_vectors(vlm.model, batch, without)
    for row in range(2):
        alone = vlm.inputs([texts[row]], [images[row]])
        seen: dict[int, torch.Tensor] = {}
        acts = {
            block_list(vlm.model)[at]: lambda states, at=at, seen=seen: seen.setdefault(at, states) for at in range(4)
        }
        rest = {name: value for name, value in alone.items() if name not in ("input_ids", "attention_mask")}
        logits_with(vlm.model, alone["input_ids"][0].tolist(), acts, **rest)
        ids = vlm.inputs([plain_texts[row]], [[]])["input_ids"][0].tolist()
        for layer, state in enumerate(all_states(vlm.model, ids)):
            torch.testing.assert_close(vectors[layer][row], seen[layer][-1] - state[-1], rtol=1e-3, atol=1e-3)
    plain = vlm.model.generate(**batch, max_new_tokens=8, do_sample=False)
    with tk.VISTA(vlm.model, vectors=vectors, strength=STRENGTH):
        found = vlm.model.generate(**batch, max_new_tokens=8, do_sample=False)
        beams = vlm.model.generate(**batch, max_new_tokens=8, do_sample=False, num_beams=3)
    assert found.tolist() != plain.tolist()
    width = batch["input_ids"].shape[1]
    for row in range(2):
        own = {layer: vector[row] for layer, vector in vectors.items()}
        alone = vlm.inputs([texts[row]], [images[row]])
        with tk.VISTA(vlm.model, vectors=own, strength=STRENGTH):
            one = vlm.model.generate(**alone, max_new_tokens=8, do_sample=False)
            three = vlm.model.generate(**alone, max_new_tokens=8, do_sample=False, num_beams=3)
        assert one[0, -8:].tolist() == found[row, width:].tolist()
        assert three[0, -8:].tolist() == beams[row, width:].tolist()


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_directions_of_each_call(family: str) -> None:
    """Those that `vista_vectors` finds, for every call anew; with beams, several answers, and beside other views."""
    vlm = tiny_vlm(family)
    model, vista = vlm.model, tk.VISTA(vlm.model, vlm.processor, strength=STRENGTH)
    options: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "num_beams": 3, "num_return_sequences": 2}
    calls = [(["a {} b", "{} what is it"], [[picture(40, 30)], [picture(28, 28, seed=1)]])]
    calls.append((["{} c"], [[picture(30, 40, seed=2)]]))
    for texts, images in calls:
        batch = vlm.inputs(texts, images)
        without = vlm.inputs([text.replace("{}", "") for text in texts], [[] for _ in texts])
        vectors = tk.vista_vectors(model, batch, without)
        with tk.VISTA(model, vectors=vectors, strength=STRENGTH):
            expected = model.generate(**batch, **options)
        with vista:
            assert model.generate(**batch, **options).tolist() == expected.tolist()
        beside = tk.VCD(model, alpha=0.5, seed=1)
        with tk.VISTA(model, vectors=vectors, strength=STRENGTH) + beside:
            expected = model.generate(**batch, **options)
        with vista + beside:
            assert model.generate(**batch, **options).tolist() == expected.tolist()
    assert not model._forward_pre_hooks
    assert "generate" not in vars(model)


def test_as_text_and_in_an_evaluation(tmp_path: Path) -> None:
    """Prompts about one image are read apart: what one has the next does not know."""
    model, processor = tk.load("scene-vlm")
    path = tmp_path / "scene.png"
    render(sample_scene(random.Random(0), bias=0.0), size=128).save(path)
    items = [Item(question, question, (str(path),)) for question in ("What is this?", "Describe it.")]
    asking = Asking(model, processor, parse_spec("vista:strength=0.8,share=0.5"), {}, max_new_tokens=8)
    built = asking.decoder.build(model, processor)
    found = asking.write(items, built)
    assert found == [asking.write([item], built)[0] for item in items]
    assert found != Asking(model, processor, parse_spec("greedy"), {}, max_new_tokens=8).write(items)
    assert tk.VISTA(model, processor, strength=0.8).spec == "vista:strength=0.8"
    assert tk.VISTA.controls(strength=0.8, share=0.5)[-1].decoder == "exits_mean:share=0.5"


def test_without_images() -> None:
    vlm = tiny_vlm("llava")
    text = vlm.inputs(["a b"], [[]])
    with tk.VISTA(vlm.model), pytest.raises(tk.ArgumentError, match="there is a prompt without one"):
        vlm.model.generate(**text, max_new_tokens=2)
    with tk.VISTA(vlm.model), pytest.raises(tk.ArgumentError, match="a forward outside of it; pass vectors="):
        vlm.model(**text)
    batch = vlm.inputs(["a {}", "b"], [[picture(20, 20)], []])
    with tk.VISTA(vlm.model), pytest.raises(tk.ArgumentError, match="there is a prompt without one"):
        vlm.model.generate(**batch, max_new_tokens=2)
    with pytest.raises(tk.ModelError, match="is a text-only model"):
        tk.VISTA(tiny("llama"))


def test_bad_input() -> None:
    model, batch = tiny("llama"), padded_batch(5, 9)
    vectors = {1: torch.ones(48)}
    cases: list[tuple[Any, str]] = [
        (lambda: tk.VISTA(model, vectors={}), "layers is empty"),
        (lambda: tk.VISTA(model, vectors={9: torch.ones(48)}), "4 decoder blocks"),
        (lambda: tk.VISTA(model, vectors=vectors, share=2.0), "share is 2.0"),
        (lambda: tk.VISTA(model, vectors=vectors, strength=float("inf")), "strength is inf"),
        (lambda: tk.VISTA(model, vectors=vectors, layers=[7]), "layers contains 7"),
        (lambda: tk.vista_vectors(model, batch, batch), "the same with and without its image"),
        (lambda: tk.vista_vectors(model, batch, padded_batch(5)), "inputs has 2 prompts, but without has 1"),
    ]
    for make, message in cases:
        with pytest.raises(tk.ArgumentError, match=message):
            make()
    plain = decode(model, batch, "greedy").sequences.tolist()
    vista = tk.VISTA(model, vectors={1: torch.ones(3, 48)})
    with vista, pytest.raises(tk.ArgumentError, match="given for 3 items, but the batch has 2"):
        decode(model, batch, "greedy")
    with vista, pytest.raises(tk.AttachError, match="already runs under VISTA"):
        vista.__enter__()
    with tk.DoLa(model), pytest.raises(tk.AttachError, match="already runs under DoLa"):
        vista.__enter__()
    assert decode(model, batch, "greedy").sequences.tolist() == plain
    with tk.VISTA(model, vectors=vectors, strength=0.0, share=0.0):
        assert decode(model, batch, "greedy").sequences.tolist() == plain


def test_prompt_lookup() -> None:
    """Of all three recipes: several tokens in one forward, some of them taken back."""
    model, batch = tiny("llama"), padded_batch(9)
    heads = tk.SteeringVector({1: torch.cat([torch.zeros(12), torch.ones(36)])}, 4, "heads")
    vectors = {at: torch.randn(48, generator=torch.Generator().manual_seed(at)) for at in range(4)}
    for block in (
        tk.VTI(model, vectors, alpha_text=6.0),
        tk.ITI(model, heads, alpha=2.0),
        tk.VISTA(model, vectors=vectors),
    ):
        with block:
            expected = decode(model, batch, "greedy")
            found = decode(model, batch, "greedy", prompt_lookup_num_tokens=3)
        assert found.sequences.tolist() == expected.sequences.tolist()
