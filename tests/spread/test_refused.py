"""What cannot be spread over processes is refused in a line, before anything is waited for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.distributed.configuration_utils import DistributedConfig

import truthkit as tk
from tests.each import each
from tests.models.folders import text_folder
from tests.tiny import tiny
from truthkit.cli.model_options import placing
from truthkit.hf.spread import shards


@each(
    "world, options, message",
    [
        (1, {"tp_plan": "auto"}, "this is none of several"),
        (4, {"tp_size": 3}, "which it does not divide"),
        (4, {"tp_size": 1}, "at least 2"),
        (4, {"tp_plan": "rows"}, "expected 'auto'"),
        (4, {"tp_size": 2, "device_map": "auto"}, "device_map='auto'"),
        (4, {"tp_size": 2, "quantization": "4bit"}, "quantization='4bit'"),
        (4, {"tp_plan": "auto"}, "num_key_value_heads=2, which 4 processes"),
    ],
)
def test_tensor_parallelism_that_cannot_be(
    world: int, options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (tmp_path / "config.json").exists():
        text_folder(tmp_path)
    for name, value in {"WORLD_SIZE": world, "RANK": 0, "LOCAL_RANK": 0}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(tk.TruthkitError, match=message):
        tk.load(tmp_path, **options)


def test_pipelines() -> None:
    """Of which each process has some layers alone: they would be steered and read there only."""
    model = tiny("llama")
    model.config.distributed_config = DistributedConfig(pp_size=2)
    for use in (tk.Capture, tk.DoLa, shards):
        with pytest.raises(tk.ModelError, match="pp_size=2"):
            use(model)


def test_a_command_takes_the_gpu_of_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert placing(argparse.Namespace(device_map=None)) == {"device_map": {"": 3}}
    assert placing(argparse.Namespace(device_map="cpu")) == {"device_map": "cpu", "tp_size": None}
    assert placing(argparse.Namespace(device_map=None, tp=2)) == {"device_map": None, "tp_size": 2}
