"""Isotropy. Oracle: the cosine of every pair of tokens, of states that transformers itself hands out, text by text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import truthkit as tk
from tests.each import each
from tests.hf.architectures import small
from tests.tiny import tiny
from tests.training.toys import chat_folder, chat_tokenizer, toy_examples
from truthkit import cli
from truthkit.activations.isotropy import plot_isotropy
from truthkit.activations.passages import PASSAGES
from truthkit.models.adapter import with_adapter
from truthkit.training.lora import train
from truthkit.training.settings import TrainingSettings

TEXTS = ["a text", "another, longer text", "x", "the third of the texts, longer than its limit of tokens", "ab"]


def pair_by_pair(states: torch.Tensor) -> float:
    """(positions, features) to 1 - mean cosine of pairs."""
    rows = states.double().numpy()
    cosines = [
        float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        for i, a in enumerate(rows)
        for j, b in enumerate(rows)
        if i != j
    ]
    return 1 - float(np.mean(cosines))


def by_text(model: Any, texts: list[str], max_tokens: int) -> list[list[float]]:
    """For each text of two tokens or more, of every block but the last and of the last after the final norm."""
    found = []
    for text in texts:
        ids = chat_tokenizer()(text).input_ids[:max_tokens]
        if len(ids) > 1:
            with torch.no_grad():
                states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
            found.append([pair_by_pair(one[0]) for one in states[1:]])
    return found


@pytest.mark.parametrize(
    ("family", "token_budget"),
    [("llama", 1), ("llama", 64), ("gpt2", 1), ("bloom", 64), ("gemma3_text", 64), ("opt", 64), ("mistral", 1)],
)
def test_against_every_pair(family: str, token_budget: int) -> None:
    model = tiny(family)
    score = tk.isotropy(model, chat_tokenizer(), TEXTS, max_tokens=24, token_budget=token_budget)
    expected = by_text(model, TEXTS, 24)
    assert list(score.metrics) == ["layer_0", "layer_1", "layer_2", "layer_3", "final"]
    for item, values in zip(score.items, expected, strict=True):
        got = [item[f"layer_{layer}"] for layer in (0, 1, 2)] + [item["final"]]
        assert got == pytest.approx(values, abs=2e-6)
    assert score.metrics["final"] == pytest.approx(np.mean(expected, axis=0)[-1], abs=2e-6)
    assert score.config["skipped"] == 1
    low, high = score.intervals(resamples=200)["final"]
    assert low < score.metrics["final"] < high


def test_the_last_block_before_its_norm() -> None:
    """`output_hidden_states` has it after the norm only, so a hook reads it."""
    model, seen = tiny("llama"), []
    handle = model.model.layers[-1].register_forward_hook(lambda _m, _a, output: seen.append(output))
    score = tk.isotropy(model, chat_tokenizer(), TEXTS[:1], layers=[-1])
    handle.remove()
    assert list(score.metrics) == ["layer_3", "final"]
    output = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    assert score.metrics["layer_3"] == pytest.approx(pair_by_pair(output[0]), abs=2e-6)


@each("model_type", ["lfm2", "llama4_text", "modernbert-decoder", "openai-gpt", "mamba", "xglm"])
def test_final_whatever_the_last_norm_is_called(model_type: str) -> None:
    """By what the decoder gives to its head; openai-gpt's blocks return lists, and it has no last norm."""
    model = small(model_type)
    found = tk.isotropy(model, chat_tokenizer(), TEXTS, max_tokens=24)
    assert found.metrics["final"] == pytest.approx(np.mean(by_text(model, TEXTS, 24), axis=0)[-1], abs=2e-6)


def test_some_layers_stop_the_forward() -> None:
    model, reached = tiny("llama"), []
    handle = model.model.layers[2].register_forward_hook(lambda *_: reached.append(2))
    score = tk.isotropy(model, chat_tokenizer(), TEXTS, layers=[1, 0])
    handle.remove()
    assert list(score.metrics) == ["layer_0", "layer_1"]
    assert not reached


def test_image_text_model_and_adapter(tmp_path: Path) -> None:
    """The text decoder of an image-text model; an adapter that is switched on."""
    model, processor = tk.load("scene-vlm")
    ids = processor.tokenizer(PASSAGES[0]).input_ids[:16]
    with torch.no_grad():
        states = model.get_decoder()(torch.tensor([ids])).last_hidden_state[0]
    score = tk.isotropy(model, processor, PASSAGES[:1], max_tokens=16)
    assert score.metrics["final"] == pytest.approx(pair_by_pair(states), abs=2e-6)

    train(tiny("llama"), chat_tokenizer(), toy_examples(4), tmp_path / "a", settings=TrainingSettings(steps=2, lr=0.1))
    adapted = with_adapter(tiny("llama"), tmp_path / "a")
    found = tk.isotropy(adapted, chat_tokenizer(), TEXTS, max_tokens=24).metrics["final"]
    assert found == pytest.approx(np.mean(by_text(adapted, TEXTS, 24), axis=0)[-1], abs=2e-6)
    assert found != pytest.approx(np.mean(by_text(tiny("llama"), TEXTS, 24), axis=0)[-1], abs=1e-3)


def test_states_that_are_alike_or_opposite() -> None:
    from truthkit.activations.isotropy import text_isotropy

    real = torch.tensor([[True, True, True], [True, True, False], [True, True, True]])
    states = torch.tensor([[[1.0, 0], [2, 0], [3, 0]], [[1, 0], [-1, 0], [9, 9]], [[1, 0], [0, 2], [0, 0]]])
    assert text_isotropy(states, real).tolist() == pytest.approx([0, 2, 1])


def test_bad_arguments() -> None:
    model, tokenizer = tiny("llama"), chat_tokenizer()
    with pytest.raises(tk.ArgumentError, match=r"layers contains 9, .* 4 decoder blocks"):
        tk.isotropy(model, tokenizer, TEXTS, layers=[9])
    with pytest.raises(tk.ArgumentError, match="none of the 2 texts has two tokens"):
        tk.isotropy(model, tokenizer, ["", "x"])
    with pytest.raises(tk.ArgumentError, match="max_tokens is 1; expected at least 2"):
        tk.isotropy(model, tokenizer, TEXTS, max_tokens=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_folder(tmp_path_factory.mktemp("isotropy") / "model")


class TestCommand:
    def test_default_texts_and_plot(self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        pytest.importorskip("matplotlib")
        plot = tmp_path / "isotropy.png"
        assert cli.main(["isotropy", str(folder), "--plot", str(plot)]) == 0
        shown = capsys.readouterr().out
        assert f"{len(PASSAGES)} texts of up to 256 tokens" in " ".join(shown.split())
        assert "final" in shown
        assert plot.read_bytes().startswith(b"\x89PNG")

    @pytest.mark.parametrize("name", ["texts.txt", "texts.jsonl"])
    def test_texts_of_a_file(self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
        lines = TEXTS if name.endswith("txt") else [json.dumps({"text": text}) for text in TEXTS]
        (tmp_path / name).write_text("\n".join(lines) + "\n\n")
        arguments = ["isotropy", str(folder), "--texts", str(tmp_path / name), "--layers", "0-3", "--limit", "4"]
        assert cli.main([*arguments, "--max-tokens", "24", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        expected = np.mean(by_text(tk.load(folder)[0], TEXTS[:4], 24), axis=0)
        assert found["isotropy"]["final"] == pytest.approx(expected[-1], abs=2e-6)
        assert found["config"]["skipped"] == 1
        assert found["intervals"].keys() == found["isotropy"].keys()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--texts", "none.txt"], "none.txt"),
            (["--texts", "empty.txt"], "holds no texts; write one per line"),
            (["--plot", "x.gif"], "--plot is 'x.gif'; expected .png, .svg or .pdf in a folder that exists"),
            (["--limit", "0"], "--limit is 0; expected at least 1"),
            (["--layers", "7"], "layers contains 7"),
        ],
    )
    def test_bad_options(
        self,
        folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        options: list[str],
        message: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("empty.txt").write_text("\n \n")
        assert cli.main(["isotropy", str(folder), *options]) in (1, 2)
        assert message in " ".join(capsys.readouterr().err.split())


def test_plot_of_several_models(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    scores = {family: tk.isotropy(tiny(family), chat_tokenizer(), TEXTS) for family in ("llama", "gpt2")}
    plot_isotropy(scores, tmp_path / "both.svg")
    assert "final norm" in (tmp_path / "both.svg").read_text()
