"""What is read before an engine runs: specs, vector files, settings, and the plug-in itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import truthkit_vllm
from truthkit_vllm import scores, spec, vector_file
from truthkit_vllm.layers import exit_layers
from truthkit_vllm.settings import PROCESSOR, SCHEDULER, WORKER, engine


def test_specs() -> None:
    assert spec.decoder("cad:alpha=1.5") == ("cad", {"alpha": 1.5, "beta": 0.0})
    assert spec.decoder("icd:amateur=prompt") == ("icd", {"amateur": "prompt", "lam": 1.0, "beta": 0.1})
    assert spec.decoder("dola:layers=2+4+-1,norm=false")[1] == {"layers": (2, 4, -1), "beta": 0.1, "norm": False}
    assert spec.decoder("sled:layers=low,steps=1")[1] == spec.DECODERS["sled"].defaults | {"layers": "low", "steps": 1}
    assert spec.decoder("deco:layers=none,top_p=1")[1] == spec.DECODERS["deco"].defaults | {"top_p": 1.0}
    assert spec.vector("a/b.safetensors:layers=8-10+-1") == ("a/b.safetensors", {"layers": (8, 9, 10, -1)})
    assert spec.vector("C:/b.safetensors") == ("C:/b.safetensors", {})


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("vcd", "is not available in vLLM; expected one of dola, sled, deco, cad, icd"),
        ("opera:beams=2", "rolls beams back"),
        ("cad:gamma=1", "its options are alpha, beta"),
        ("cad:alpha=1,alpha=2", "is given twice"),
        ("icd:beta=2", "expected a number from 0 to 1"),
        ("dola:layers=", "expected low, high, all, or layer numbers"),
        ("cad:alpha=nan", "expected a number"),
        ("icd:amateur=folder", "expected prompt; an adapter is named by the second request itself"),
        ("icd:amateur_prompt=Lie.", "the second prompt of each pair has it"),
        ("sled:steps=0", "expected a whole number, 1 or more"),
        ("sled:evolution_rate=-1", "expected a number, 0 or more"),
        ("deco:top_p=0", "expected a number above 0, 1 at most"),
        ("deco:norm=perhaps", "expected true or false"),
    ],
)
def test_specs_that_make_no_sense(text: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        spec.decoder(text)


def test_a_vector_file(folder: Path, reference: dict[str, Any], tmp_path: Path) -> None:
    path = str(folder / "love.safetensors")
    (layer,) = [reference["layer"]]
    assert vector_file.read(path, [layer])[layer].tolist() == reference["direction"]
    assert torch.equal(vector_file.read(path, [-1])[29], vector_file.read(path, [29])[29])
    with pytest.raises(ValueError, match="name those to steer"):
        vector_file.read(path)
    with pytest.raises(ValueError, match="has no layer 77"):
        vector_file.read(path, [77])
    with pytest.raises(ValueError, match="is not a steering vector written by truthkit"):
        vector_file.read(str(tmp_path / "none.safetensors"))
    tensors = load_file(path)
    save_file(tensors, tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match="is not a steering vector written by truthkit"):
        vector_file.read(str(tmp_path / "bare.safetensors"))
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors["block.0"] += 1
    save_file(tensors, tmp_path / "changed.safetensors", metadata)
    with pytest.raises(ValueError, match="was changed after it was written"):
        vector_file.read(str(tmp_path / "changed.safetensors"), [0])


def test_arguments_of_engines() -> None:
    assert engine() == {"enforce_eager": True}
    assert engine(views=True)["logits_processors"] == [PROCESSOR]
    assert engine(decoder="sled", architecture="LlamaForCausalLM") == {
        "enforce_eager": True,
        "hf_overrides": {"architectures": ["TruthkitExitsLlamaForCausalLM"]},
        "additional_config": {"truthkit": {"decoder": "sled"}},
    }
    assert engine(views=True, adapters=2)["max_loras"] == 3
    steered = engine(steer="v.safetensors")
    assert (steered["worker_cls"], steered["scheduler_cls"]) == (WORKER, SCHEDULER)
    with pytest.raises(ValueError, match="architecture is 'GPT2LMHeadModel'"):
        engine(decoder="dola", architecture="GPT2LMHeadModel")
    with pytest.raises(ValueError, match="which a request names"):
        engine(decoder="cad", architecture="LlamaForCausalLM")


def test_what_is_ruled_out_stays_so() -> None:
    main = torch.tensor([[0.0, 1.0, -torch.inf]])
    assert scores.cad(main, main, alpha=0.5, beta=0.0).isneginf().tolist() == [[False, False, True]]
    assert scores.icd(main, main, lam=1.0, beta=0.9).isneginf().tolist() == [[True, False, True]]


def test_dola_takes_the_most_divergent_exit() -> None:
    """The oracle: the formula, row by row."""
    torch.manual_seed(0)
    main, exits = torch.randn(3, 7), torch.randn(4, 3, 7)
    found = scores.dola(main, exits, beta=0.0)
    for row in range(3):
        p = main[row].softmax(-1)
        divergences = []
        for exit_ in exits[:, row].softmax(-1):
            m = (p + exit_) / 2
            divergences.append(float((p * (p / m).log()).sum() + (exit_ * (exit_ / m).log()).sum()))
        chosen = exits[divergences.index(max(divergences)), row].log_softmax(-1)
        torch.testing.assert_close(found[row], p.log() - chosen)


def test_layers_of_exits() -> None:
    assert exit_layers(None, 32) == tuple(range(19, 28))
    assert exit_layers((3, -1, 3), 32) == (3, 31, 3)
    with pytest.raises(ValueError, match="layers of early exits name 32; the model has 32 decoder blocks"):
        exit_layers((0, 32), 32)
    with pytest.raises(ValueError, match="has none below the last"):
        exit_layers("high", 1)


def test_a_vllm_that_takes_no_models_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    vllm = pytest.importorskip("vllm")

    def refuse(*_args: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(vllm.ModelRegistry, "register_model", refuse)
    monkeypatch.setattr(vllm.ModelRegistry, "get_supported_archs", lambda: ["LlamaForCausalLM"])
    truthkit_vllm.register()
