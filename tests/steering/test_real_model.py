"""Conditions, VTI, ITI and VISTA on SmolLM2, and VTI's two parts on scene-vlm, against whole forwards by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize

import truthkit as tk
from tests.steering.oracle import Steered, decode, logits_with, same

TEXTS = ("The capital of Australia is", "A spider has as many legs as", "Water", "My favourite colour is blue, because")


def vectors(scale: float, layers: Any = range(0, 30, 3)) -> dict[int, torch.Tensor]:
    return {at: scale * torch.randn(576, generator=torch.Generator().manual_seed(at)) for at in layers}


def relative(states: torch.Tensor, vector: torch.Tensor, strength: Any) -> torch.Tensor:
    length = states.norm(dim=-1, keepdim=True)
    return normalize(normalize(states, dim=-1) + strength * normalize(vector, dim=0), dim=-1) * length


def case(name: str, model: Any) -> tuple[Any, Any]:
    """The block, and the changes of modules for a text whose prompt has so many tokens."""
    blocks = model.model.layers
    if name == "where":
        steered = vectors(0.5)

        def where(_prompt: int) -> Any:
            def change(states: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
                return states + (cosine_similarity(states, v[None], dim=-1) > 0.0)[:, None] * v

            return {blocks[at]: lambda states, v=v: change(states, v) for at, v in steered.items()}

        return tk.Steering(model, steered, where=tk.Cosine(steered, above=0.0)), where
    if name == "vti":
        steered = vectors(1.0)
        return (
            tk.VTI(model, steered, alpha_text=3.0),
            lambda _: {blocks[at].mlp: lambda x, v=v: relative(x, v, 0.3) for at, v in steered.items()},
        )
    if name == "vista":
        steered = vectors(1.0)

        def vista(_prompt: int) -> Any:
            def change(x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
                return relative(x, v, 0.17 * (1 + cosine_similarity(x, -v[None], dim=-1).clamp_min(0))[:, None])

            return {blocks[at].mlp: lambda x, v=v: change(x, v) for at, v in steered.items()}

        return tk.VISTA(model, vectors=steered, share=0.0), vista
    heads = {at: torch.nn.functional.pad(v[:64], (128, 384)) for at, v in vectors(0.05).items()}

    def iti(prompt: int) -> Any:
        def change(out: torch.Tensor, through: torch.Tensor) -> torch.Tensor:
            moved = out.clone()
            moved[prompt - 1 :] += 15.0 * through
            return moved

        return {
            blocks[at].self_attn.o_proj: lambda out, v=v, at=at: change(out, blocks[at].self_attn.o_proj.weight @ v)
            for at, v in heads.items()
        }

    return tk.ITI(model, tk.SteeringVector(heads, 30, "heads")), iti


@pytest.mark.slow
@pytest.mark.parametrize("name", ["where", "vti", "vista", "iti"])
def test_on_smollm2(smollm2: Any, name: str) -> None:
    model, tokenizer = smollm2
    batch = tokenizer(list(TEXTS), return_tensors="pt", padding=True, padding_side="left")
    block, changes = case(name, model)

    def account(prompt: list[int], continuation: list[int]) -> torch.Tensor:
        return logits_with(model, prompt + continuation, changes(len(prompt)))

    with block:
        found = decode(model, batch, "greedy")
    assert found.sequences.tolist() != decode(model, batch, "greedy").sequences.tolist()
    oracle = Steered(model, account)
    oracle.prepare_likely(found.sequences, batch["attention_mask"])
    same(found, decode(oracle, batch, "greedy"))


@pytest.mark.slow
def test_vti_on_scene_vlm() -> None:
    from tests.tiny_vlm import picture
    from truthkit.hf.vision import vision_blocks

    try:
        model, processor = tk.load("scene-vlm")
    except (tk.NotAvailableError, tk.MissingExtraError) as error:
        pytest.skip(f"the image-text model cannot be loaded here: {error}")
    images = [picture(64, 64, seed=n) for n in range(4)]
    vision = tk.vision_vector(model, processor, images, tokens="mean", share=0.5, trials=2)
    messages = [{"role": "user", "content": [{"type": "image", "image": images[0]}, {"type": "text", "text": "What?"}]}]
    inputs = dict(
        processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
    )
    width = model.config.get_text_config().hidden_size
    layers = model.get_decoder().layers
    text = {at: torch.randn(width, generator=torch.Generator().manual_seed(at)) for at in range(len(layers))}
    with tk.VTI(model, text, vision, alpha_text=2.0, alpha_image=3.0):
        found = model.generate(
            **inputs, max_new_tokens=24, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
    acts = {layers[at].mlp: lambda x, v=v: relative(x, v, 0.2) for at, v in text.items()}
    tower = vision_blocks(model)
    acts |= {tower[at].mlp: lambda x, v=v: relative(x, v, 0.3) for at, v in vision.directions.items()}
    ids = inputs["input_ids"][0].tolist()
    answer = found.sequences[0, len(ids) :].tolist()
    more = {name: value for name, value in inputs.items() if name not in ("input_ids", "attention_mask")}
    logits = logits_with(model, ids + answer[:-1], acts, **more)[len(ids) - 1 :]
    assert logits.argmax(-1).tolist() == answer
    for step, given in enumerate(found.logits):
        torch.testing.assert_close(given[0], logits[step], rtol=1e-4, atol=1e-4 * float(logits.abs().max()))
