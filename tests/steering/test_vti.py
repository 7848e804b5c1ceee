"""VTI. Oracle: whole forwards of one row in which the outputs of MLPs are moved as the paper writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

import truthkit as tk
from tests.activations.oracle import block_list
from tests.each import each
from tests.steering.oracle import FAMILIES, MODES, check, decode, logits_with, same
from tests.tiny import padded_batch, tiny
from tests.tiny_vlm import TinyVLM, picture, tiny_vlm
from truthkit.hf.vision import vision_blocks
from truthkit.steering.vision import VisionVector, _damaged

ALPHA = 6.0
TEXT = {at: torch.randn(48, generator=torch.Generator().manual_seed(at)) for at in range(4)}
TOWERS = {"llava": "model.vision_tower.encoder.layers", "qwen2_vl": "model.visual.blocks"}
TOWERS["smolvlm"] = "model.vision_model.encoder.layers"


def moved(states: torch.Tensor, vector: torch.Tensor, alpha: float = ALPHA) -> torch.Tensor:
    length = states.norm(dim=-1, keepdim=True)
    return normalize(normalize(states, dim=-1) + 0.1 * alpha * normalize(vector, dim=-1), dim=-1) * length


def changes(model: Any) -> dict[Any, Any]:
    return {block_list(model)[at].mlp: lambda x, v=vector: moved(x, v.to(x.dtype)) for at, vector in TEXT.items()}


@each("mode", sorted(MODES))
@pytest.mark.parametrize("family", FAMILIES)
def test_text(family: str, mode: str) -> None:
    model, batch = tiny(family), padded_batch(5, 9, 3, 7)

    def account(prompt: list[int], continuation: list[int]) -> torch.Tensor:
        return logits_with(model, prompt + continuation, changes(model))

    vti = tk.VTI(model, TEXT, alpha_text=ALPHA)
    found = check(model, vti, account, batch, mode)
    assert found.sequences.tolist() != decode(model, batch, mode).sequences.tolist()
    with vti:
        same(decode(model, batch, mode, cache_implementation="static"), found)


def tower(vlm: TinyVLM) -> Any:
    return vlm.model.get_submodule(TOWERS[vlm.family])


def vision_of(vlm: TinyVLM, tokens: int | None) -> VisionVector:
    width = 32
    draw = torch.Generator().manual_seed(5)
    shape = (width,) if tokens is None else (tokens, width)
    return VisionVector({at: torch.randn(shape, generator=draw) for at in range(2)})


@pytest.mark.parametrize("family", sorted(TOWERS))
def test_text_and_vision(family: str) -> None:
    """Two rows with an image each, padded on the left, greedy and by beams; the oracle sees one row at a time."""
    vlm = tiny_vlm(family)
    images, texts = [[picture(40, 30)], [picture(28, 28, seed=1)]], ["a {} b", "{} what is it"]
    vision = vision_of(vlm, None)
    vti = tk.VTI(vlm.model, TEXT, vision, alpha_text=2.0, alpha_image=ALPHA)
    batch = vlm.inputs(texts, images)
    plain = vlm.model.generate(**batch, max_new_tokens=24, do_sample=False)
    with tk.VTI(vlm.model, vision=vision, alpha_image=ALPHA):
        seen = vlm.model.generate(**batch, max_new_tokens=24, do_sample=False)
    with vti:
        found = vlm.model.generate(
            **batch, max_new_tokens=24, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
        beams = vlm.model.generate(**batch, max_new_tokens=8, num_beams=3, do_sample=False)
        static = vlm.model.generate(**batch, max_new_tokens=24, do_sample=False, cache_implementation="static")
    assert static.tolist() == found.sequences.tolist()
    assert found.sequences.tolist() not in (plain.tolist(), seen.tolist())
    assert plain.tolist() != seen.tolist()
    acts = {block_list(vlm.model)[at].mlp: lambda x, v=v: moved(x, v, 2.0) for at, v in TEXT.items()}
    acts |= {tower(vlm)[at].mlp: lambda x, v=v: moved(x, v) for at, v in vision.directions.items()}
    for row in range(2):
        alone = vlm.inputs([texts[row]], [images[row]])
        ids, answer = alone["input_ids"][0].tolist(), found.sequences[row, batch["input_ids"].shape[1] :].tolist()
        more = {
            name: torch.nn.functional.pad(value, (0, 23)) if name == "mm_token_type_ids" else value
            for name, value in alone.items()
            if name not in ("input_ids", "attention_mask")
        }
        logits = logits_with(vlm.model, ids + answer[:-1], acts, **more)[len(ids) - 1 :]
        assert logits.argmax(-1).tolist() == answer
        largest = float(logits.abs().max())
        for step, given in enumerate(found.logits):
            torch.testing.assert_close(given[row], logits[step], rtol=1e-4, atol=1e-4 * largest)
        with vti:
            one = vlm.model.generate(**alone, max_new_tokens=8, num_beams=3, do_sample=False)
        assert one[0, len(ids) :].tolist() == beams[row, batch["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize(("family", "tokens"), [("llava", "each"), ("smolvlm", "mean"), ("qwen2_vl", "mean")])
def test_directions_of_the_vision_tower(family: str, tokens: Any, tmp_path: Path) -> None:
    """Oracle: blocks' outputs gathered by hand, over the same damaged copies."""
    vlm = tiny_vlm(family)
    images = [picture(28, 28, seed=n) for n in range(3)]
    found = tk.vision_vector(vlm.model, vlm.processor, images, tokens=tokens, share=0.7, trials=2)
    each, draw = [], torch.Generator().manual_seed(0)
    for image in images:
        inputs = vlm.inputs(["{}"], [[image]])
        runs, whole = [], inputs["pixel_values"]
        side = vlm.model.config.vision_config.patch_size
        for pixels in (whole, *(_damaged(whole, 0.7, side, draw) for _ in range(2))):
            seen: list[Any] = []
            handles = [
                block.register_forward_hook(lambda _m, _a, out, seen=seen: seen.append(out)) for block in tower(vlm)
            ]
            with torch.no_grad():
                vlm.model(**inputs | {"pixel_values": pixels})
            for handle in handles:
                handle.remove()
            states = torch.stack([(one[0] if isinstance(one, tuple) else one) for one in seen])
            runs.append(states if states.dim() == 3 else states.mean(dim=1))
        difference = (runs[1] + runs[2]) / 2 - runs[0]
        each.append(difference.mean(dim=1, keepdim=True) if tokens == "mean" else difference)
    stacked = torch.stack(each).double()
    for at, direction in found.directions.items():
        for place in range(stacked.shape[2]):
            d = stacked[:, at, place]
            mean = d.mean(dim=0)
            top = torch.linalg.eigh((d - mean).T @ (d - mean)).eigenvectors[:, -1]
            expected = mean + (top if float(top @ mean) > 0 else -top)
            got = direction if tokens == "mean" else direction[place]
            torch.testing.assert_close(got.double(), expected, rtol=1e-3, atol=1e-3)
    found.save(tmp_path / "v.safetensors")
    again = VisionVector.load(tmp_path / "v.safetensors")
    assert all(torch.equal(again.directions[at], one) for at, one in found.directions.items())
    with pytest.raises(tk.ArgumentError, match="directions of a vision tower, not of a text decoder"):
        tk.SteeringVector.load(tmp_path / "v.safetensors")
    batch = vlm.inputs(["a {} b"], [[images[0]]])
    with tk.VTI(vlm.model, vision=found, alpha_image=20.0):
        vlm.model.generate(**batch, max_new_tokens=4, do_sample=False)


def test_the_damage() -> None:
    draw = torch.Generator().manual_seed(0)
    image = _damaged(torch.ones(1, 3, 8, 8), 0.5, 4, draw)
    cells = image[0, 0].unfold(0, 4, 4).unfold(1, 4, 4).mean(dim=(2, 3))
    assert sorted(cells.flatten().tolist()) == [0.0, 0.0, 1.0, 1.0]
    assert _damaged(torch.ones(10, 6), 0.3, 4, draw).mean(dim=1).sum() == 7


def test_directions_of_the_text() -> None:
    """Mean plus top component, by numpy's singular values, at the scale of all methods."""
    import numpy as np

    from truthkit.activations.moments import Moments
    from truthkit.steering.extraction.methods import METHODS, LayerData

    draw = torch.Generator().manual_seed(0)
    positive, negative = (torch.randn(1, 12, 6, generator=draw, dtype=torch.float64) for _ in range(2))
    moments = [Moments(1, 6, scatter=True) for _ in range(3)]
    moments[0].update(positive)
    moments[1].update(negative)
    moments[2].update(positive, minus=negative)
    found = METHODS["mean_pca"].fit(LayerData(*moments))
    d = (positive - negative)[0].numpy()
    mean = d.mean(axis=0)
    top = np.linalg.svd(d - mean)[2][0]
    expected = mean + top * np.sign(top @ mean)
    expected *= (expected @ mean) / (expected @ expected)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_bad_input() -> None:
    text, vlm = tiny("llama"), tiny_vlm("llava")
    vision = vision_of(vlm, None)
    cases: list[tuple[Any, type[Exception], str]] = [
        (lambda: tk.VTI(text), tk.ArgumentError, "nothing to steer by"),
        (lambda: tk.VTI(text, vision=vision), tk.ModelError, "cannot tell the vision tower's blocks of Llama"),
        (lambda: tk.VTI(text, {4: TEXT[0]}), tk.ArgumentError, "4 decoder blocks"),
        (lambda: tk.VTI(text, {}), tk.ArgumentError, "layers is empty"),
        (lambda: tk.VTI(text, TEXT, alpha_text=float("nan")), tk.ArgumentError, "alpha_text is nan"),
        (lambda: tk.VTI(text, tk.SteeringVector(TEXT, 4), layers=[7]), tk.ArgumentError, "no layer 7"),
        (lambda: tk.VisionSteering(vlm.model, vision, layers=[2]), tk.ArgumentError, "2 decoder blocks"),
        (lambda: tk.VisionSteering(vlm.model, VisionVector({0: torch.ones(31)})), tk.ArgumentError, "has 31 features"),
        (lambda: VisionVector({}), tk.ArgumentError, "directions have shapes"),
        (lambda: tk.vision_vector(vlm.model, vlm.processor, []), tk.ArgumentError, "images is empty"),
        (lambda: tk.vision_vector(vlm.model, vlm.processor, [], share=0.0), tk.ArgumentError, "share 0.0"),
        (lambda: tk.vision_vector(text, None, [picture(9, 9)]), tk.ModelError, "cannot tell"),
    ]
    for make, error, message in cases:
        with pytest.raises(error, match=message):
            make()
    batch = vlm.inputs(["a {} b"], [[picture(28, 28)]])
    plain = vlm.model.generate(**batch, max_new_tokens=4, do_sample=False)
    hooks = [len(module._forward_hooks) for module in vlm.model.modules()]
    wrong = tk.VTI(vlm.model, vision=vision_of(vlm, 3))
    with wrong, pytest.raises(tk.ArgumentError, match="for 3 image tokens, but this image has"):
        vlm.model.generate(**batch, max_new_tokens=4)
    with wrong, pytest.raises(tk.AttachError, match="entered already"):
        wrong.__enter__()
    assert torch.equal(vlm.model.generate(**batch, max_new_tokens=4, do_sample=False), plain)
    assert [len(module._forward_hooks) for module in vlm.model.modules()] == hooks


@each("family", ["llava_next", "qwen2_5_vl", "qwen3_vl", "idefics3", "instructblip", "paligemma", "gemma3", "internvl"])
def test_towers_of_other_families(family: str) -> None:
    assert len(vision_blocks(tiny_vlm(family).model)) == 2
