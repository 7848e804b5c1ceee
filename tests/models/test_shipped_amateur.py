"""The amateur that comes along: which models have it, and what ICD and LOL contrast with then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.decoding.oracle import save_adapter
from tests.tiny import tiny
from tests.training.toys import chat_tokenizer
from truthkit.evaluation.running.asking import Asking
from truthkit.evaluation.running.contents import contents
from truthkit.models import identity, shipped_amateur
from truthkit.models.shipped_amateur import FOLDER

SIZES = ("model_type", "hidden_size", "num_hidden_layers")
PROMPT = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A tiny model that has an amateur, in `tmp_path`."""
    made: Any = tiny("llama", eos_token_id=2).eval()
    save_adapter(tiny("llama", eos_token_id=2), tmp_path)
    base = {
        "sizes": {name: getattr(made.config, name) for name in SIZES},
        "weights_sha256": {
            "float32": identity(made)["weights_sha256"],
            "bfloat16": identity(tiny("llama", eos_token_id=2).bfloat16())["weights_sha256"],
        },
    }
    (tmp_path / "base.json").write_text(json.dumps(base))
    monkeypatch.setattr(shipped_amateur, "FOLDER", tmp_path)
    shipped_amateur._base.cache_clear()
    yield made
    shipped_amateur._base.cache_clear()


def logits(model: Any, decoder: Any) -> torch.Tensor:
    with decoder, torch.no_grad():
        return model(PROMPT).logits


def test_a_model_is_known_by_its_weights(model: Any, tmp_path: Path) -> None:
    assert shipped_amateur.shipped_amateur(model) == str(tmp_path)
    twin = tiny("llama", eos_token_id=2)
    twin.config._name_or_path = "somebody/else"
    assert shipped_amateur.shipped_amateur(twin) == str(tmp_path)
    assert shipped_amateur.shipped_amateur(twin.bfloat16()) == str(tmp_path)
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    assert shipped_amateur.shipped_amateur(model) is None


def test_an_adapter_that_is_on_makes_another_model_of_it(model: Any, tmp_path: Path) -> None:
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(model, str(tmp_path))
    assert shipped_amateur.shipped_amateur(adapted) is None
    with adapted.disable_adapter():
        assert shipped_amateur.shipped_amateur(adapted) == str(tmp_path)


def test_weights_of_other_sizes_are_not_read(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped_amateur, "known_identity", None)
    for other in (tiny("gpt2"), tiny("llama", num_hidden_layers=3)):
        assert shipped_amateur.shipped_amateur(other) is None


@pytest.mark.parametrize("method", [tk.ICD, tk.LOL])
def test_it_is_the_default(method: Any, model: Any, tmp_path: Path) -> None:
    """Oracle: the same adapter, named. No processor is needed."""
    assert torch.equal(logits(model, method(model)), logits(model, method(model, amateur=str(tmp_path))))


@pytest.mark.parametrize("method", [tk.ICD, tk.LOL])
def test_the_prompt_only_amateur_stays(method: Any, model: Any) -> None:
    """Oracle: the view for a model without an amateur of its own."""
    tokenizer = chat_tokenizer()
    views = {
        name: method(model, tokenizer, **options).views[1]
        for name, options in {
            "default": {},
            "prompt": {"amateur": "prompt"},
            "words": {"amateur_prompt": "Lie."},
            "both": {"amateur": "prompt", "amateur_prompt": "Lie."},
        }.items()
    }
    assert {name: (view.adapter is None, view.prompt is None) for name, view in views.items()} == {
        "default": (False, True),
        "prompt": (True, False),
        "words": (True, False),
        "both": (True, False),
    }
    told = {name: view.prompt([[5, 6]]) for name, view in views.items() if view.prompt}
    assert told["words"] == told["both"] != told["prompt"]
    other = method(tiny("gpt2"), tokenizer).views[1]
    assert other.adapter is None
    assert other.prompt([[5, 6]]) == told["prompt"]


@pytest.mark.parametrize(
    ("spec", "supplied", "noted"),
    [
        ("icd", {}, True),
        ("lol:omega=0", {}, True),
        ("icd+dola", {}, True),
        ("icd:amateur=prompt", {}, False),
        ("icd:amateur_prompt=Lie.", {}, False),
        ("dola", {}, False),
    ],
)
def test_a_runs_record_names_it(spec: str, supplied: dict[str, Any], noted: bool, model: Any) -> None:
    from truthkit.decoding.spec import parse_spec

    assert ("amateur" in contents(Asking(model, chat_tokenizer(), parse_spec(spec), supplied))) == noted


def test_the_bundled_models_own(smollm2: Any) -> None:
    """Oracle: the folder that is shipped, named."""
    model, tokenizer = smollm2
    assert shipped_amateur.shipped_amateur(model) == str(FOLDER)
    inputs = tokenizer("Q: Who wrote Romeo and Juliet?\nA:", return_tensors="pt")
    with torch.no_grad():
        with tk.ICD(model):
            default = model(**inputs).logits
        with tk.ICD(model, amateur=str(FOLDER)):
            assert torch.equal(model(**inputs).logits, default)


def test_it_is_small_and_says_how_it_was_made() -> None:
    assert (FOLDER / "adapter_model.safetensors").stat().st_size <= 2_000_000
    record = json.loads((FOLDER / "training.json").read_text())
    base = json.loads((FOLDER / "base.json").read_text())
    assert record["model"]["weights_sha256"] == base["weights_sha256"]["float32"]
    assert {file["path"] for file in record["files"]} == {"qa_one-turn_data.json", "qa_multi-turn_data.json"}
    written = (FOLDER / "README.md").read_text()
    assert all(file["sha256"] in written for file in record["files"])
    assert f"| seed | `{record['settings']['seed']}` |" in written
    assert "/" not in json.loads((FOLDER / "adapter_config.json").read_text())["base_model_name_or_path"]
