"""The REFLEX recipe from end to end, on a tiny random model and made-up claims; and going on where it stopped."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from recipes import reflex as recipe
from recipes.reflex_results import ROWS

TEMPLATE = (
    "{% for one in messages %}<m>{{ one['role'] }}:{{ one['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<m>assistant:{% endif %}"
)
SPECIAL = ("<pad>", "</s>", "<m>")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level tokenizer with a chat template, and a random Llama."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = Tokenizer(models.BPE({token: i for i, token in enumerate([*SPECIAL, *letters])}, merges=[]))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens, pad_token="<pad>", eos_token="</s>", additional_special_tokens=["<m>"]
    )
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(letters) + len(SPECIAL),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.2,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    folder = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def claims(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    draw, folder = random.Random(0), tmp_path_factory.mktemp("claims")
    files = {}
    for name, count, start in (("train", 60, 0), ("test", 24, 100)):
        lines = []
        for number in range(start, start + count):
            label = draw.choice(["true", "half-true", "pants-fire"])
            lines.append({"event_id": f"{number}.json", "claim": f"Claim {number} is {draw.random()}.", "label": label})
            lines[-1]["explain"] = f"It is so. We looked at {number}. Click here."
        files[name] = folder / f"{name}.jsonl"
        files[name].write_text("\n".join(map(json.dumps, lines)))
    return files


def run(out: Path, model: Path, claims: dict[str, Path], *more: str) -> int:
    words = ["--out", str(out), "--model", str(model), "--train", str(claims["train"]), "--more"]
    words += ["--test", str(claims["test"]), "--transfer", str(claims["test"]), "--train-claims", "40", "--quick"]
    words += ["--held-out", "10", "--steps", "6", "--explained", "2", "--explanation-tokens", "8", "--test-claims", "0"]
    return recipe.main([*words, "--layers", "0", "2", "--train-dtype", "float32", "--lr", "0.02", *more])


def test_the_whole_of_it_and_again(
    tmp_path: Path, model_folder: Path, claims: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, model_folder, claims) == 0
    shown = capsys.readouterr().out
    assert "SFT: verdict and explanation" in shown
    assert "quadrants: Q1" in shown
    assert "REFLEX 65.0 / 50.6" in shown
    summary: dict[str, Any] = json.loads((tmp_path / "summary.json").read_text())
    assert [row["name"] for row in summary["table"]] == list(ROWS)
    assert sum(summary["quadrants"][0].values()) == 40
    assert all(0 <= row["metrics"]["macro_f1"] <= 1 for row in summary["table"])
    assert summary["metrics"]["majority"]["macro_f1"] < 0.34
    for name in ("gains", "quadrants", "projections"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    refined = (tmp_path / "seed-0" / "refine.jsonl").read_text().splitlines()
    assert len(refined) == summary["refined_claims"][0] == sum(summary["quadrants"][0][q] for q in ("Q2", "Q4"))
    assert {"sft, cleaned", "both, explanation"} <= set(summary["explanations"][0])
    assert summary["transfer"][0]["both"]["claims"] == 24

    # Again: every stage is there, and nothing is made anew.
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "seed-0").rglob("*") if path.suffix != ".jsonl"}
    assert run(tmp_path, model_folder, claims) == 0
    assert made == {path: path.stat().st_mtime_ns for path in made}
    assert json.loads((tmp_path / "summary.json").read_text()) == summary

    # Killed before the last stages, and with other strengths: what depends on them is made anew, training is not.
    (tmp_path / "seed-0" / "refined.json").unlink()
    assert run(tmp_path, model_folder, claims) == 0
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    adapter = tmp_path / "seed-0" / "adapter-sft" / "adapter_model.safetensors"
    before = adapter.stat().st_mtime_ns
    assert run(tmp_path, model_folder, claims, "--strengths", "1.0") == 0
    assert adapter.stat().st_mtime_ns == before
    other = json.loads((tmp_path / "summary.json").read_text())
    assert {chosen["strength"] for chosen in other["chosen"][0].values()} <= {0.0, 1.0}
    assert other["metrics"]["sft"] == summary["metrics"]["sft"]


@pytest.mark.slow
def test_other_vectors_touch_neither_training_nor_self_refinement(
    tmp_path: Path, model_folder: Path, claims: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, model_folder, claims) == 0
    refined = [(tmp_path / "seed-0" / f"{name}.json").stat().st_mtime_ns for name in ("train_refined", "refined")]
    capsys.readouterr()
    assert run(tmp_path, model_folder, claims, "--without-shift") == 0
    assert "less the shift, style is" in capsys.readouterr().out
    assert run(tmp_path, model_folder, claims, "--contrast", "horizontal") == 0
    assert "less the shift" not in capsys.readouterr().out
    assert not (tmp_path / "seed-0" / "states-shift.safetensors").exists()
    assert run(tmp_path, model_folder, claims, "--contrast", "horizontal", "--without-shift") == 2
    assert "there is no shift vector" in capsys.readouterr().out
    assert refined == [
        (tmp_path / "seed-0" / f"{name}.json").stat().st_mtime_ns for name in ("train_refined", "refined")
    ]


def test_too_few_claims(
    tmp_path: Path, model_folder: Path, claims: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, model_folder, claims, "--held-out", "60") == 2
    assert "too few to hold 60 of them out" in " ".join(capsys.readouterr().out.split())


def test_it_does_not_train_on_what_it_tests(
    tmp_path: Path, model_folder: Path, claims: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, model_folder, {**claims, "test": claims["train"]}) == 2
    assert "60 training claims stand in the test files too" in capsys.readouterr().out
