"""What tells two models apart: every number in them, and nothing else."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.models.folders import byte_tokenizer, text_folder
from tests.tiny import tiny
from truthkit.models import identity
from truthkit.models.identities import adapter_sha256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    text_folder(path)
    return path


def wrapped(base: Any, seed: int = 3) -> Any:
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))


def checksums(model: Any, processor: Any = None) -> dict[str, Any]:
    return {name: value for name, value in identity(model, processor).items() if name.endswith("sha256")}


def test_copies_agree(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    one, other = (checksums(*tk.load(path)) for path in (folder, tmp_path / "copy"))
    assert one == other
    assert one["weights_sha256"] == checksums(tiny("llama"))["weights_sha256"]


def test_every_tensor_counts() -> None:
    """The last number of each, by its last bit."""
    model = tiny("llama")
    seen = {identity(model)["weights_sha256"]}
    for _, tensor in model.named_parameters():
        bits = tensor.data.view(-1)[-1:].view(torch.int32)
        bits ^= 1
        seen.add(identity(model)["weights_sha256"])
        bits ^= 1
    assert len(seen) == 1 + len(list(model.parameters()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_odd_sizes_and_dtypes(dtype: torch.dtype) -> None:
    """Tensors whose bytes are no multiple of eight, and views that begin in the middle of a word."""
    model = torch.nn.Linear(3, 5).to(dtype)
    model.weight.data = torch.randn(16, dtype=dtype)[1:].view(5, 3)
    model.config = tiny("llama").config
    before = identity(model)["weights_sha256"]
    assert identity(copy.deepcopy(model))["weights_sha256"] == before
    model.bias.data[-1] += 1
    assert identity(model)["weights_sha256"] != before


def test_another_dtype_is_another_model(folder: Path) -> None:
    one, other = (tk.load(folder, dtype=dtype)[0] for dtype in ("float32", "bfloat16"))
    assert identity(one)["weights_sha256"] != identity(other)["weights_sha256"]
    assert identity(one)["config_sha256"] == identity(other)["config_sha256"]


def test_adapters_are_apart() -> None:
    plain = identity(tiny("llama"))
    one, other = (identity(wrapped(tiny("llama"), seed)) for seed in (3, 4))
    assert plain["weights_sha256"] == one["weights_sha256"] == other["weights_sha256"]
    assert one["adapters"]["default"]["sha256"] != other["adapters"]["default"]["sha256"]
    merged = wrapped(tiny("llama"))
    merged.merge_adapter()
    assert identity(merged)["weights_sha256"] != plain["weights_sha256"]


def test_an_adapter_made_anew_at_the_same_path(tmp_path: Path) -> None:
    wrapped(tiny("llama")).save_pretrained(tmp_path)
    before = adapter_sha256(str(tmp_path))
    wrapped(tiny("llama")).save_pretrained(tmp_path)
    assert adapter_sha256(str(tmp_path)) == before
    wrapped(tiny("llama"), 4).save_pretrained(tmp_path)
    assert adapter_sha256(str(tmp_path)) != before


def test_tokenizer_and_template() -> None:
    model, tokenizer = tiny("llama"), byte_tokenizer(eos_token="</s>")
    plain = identity(model, tokenizer)
    assert plain["template_sha256"] is None
    tokenizer.chat_template = "{{ messages }}"
    assert identity(model, tokenizer)["template_sha256"]
    tokenizer(["a", "abc"], padding=True) if tokenizer.pad_token else None
    assert identity(model, tokenizer)["tokenizer_sha256"] == plain["tokenizer_sha256"]
    tokenizer.add_tokens(["<new>"])
    assert identity(model, tokenizer)["tokenizer_sha256"] != plain["tokenizer_sha256"]


def test_offloaded_weights_are_read_where_they_are() -> None:
    accelerate = pytest.importorskip("accelerate")
    model = tiny("llama")
    expected = identity(model)["weights_sha256"]
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert identity(model)["weights_sha256"] == expected
