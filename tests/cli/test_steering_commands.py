"""`truthkit extract` and `truthkit vector`, on a tiny model in place of the bundled one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.decoding.cases import ToyTokenizer
from tests.steering.test_extract import toy_pairs
from tests.tiny import tiny
from truthkit import cli


@pytest.fixture(autouse=True)
def _tiny_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("truthkit.models.load", lambda *_args, **_options: (tiny("llama"), ToyTokenizer()))


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    lines = [
        json.dumps({"positive": pair.positive, "negative": pair.negative, "prompt": pair.prompt})
        for pair in toy_pairs(24)
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join([*lines[:3], '{"positive": "x"}', *lines[3:]]))
    return path


def test_extract(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "v.safetensors"
    arguments = ["--layers", "1-2+-1", "--positions", "answer+0", "--method", "logistic:l2=2"]
    assert cli.main(["extract", str(pairs), "--out", str(out), *arguments]) == 0
    captured = capsys.readouterr()
    assert "line 4: the pair has no negative side" in captured.err
    assert "3 layers (1-3 of 4)" in captured.out
    assert "best held-out AUC: layer" in captured.out
    vector = tk.SteeringVector.load(out)
    options: dict[str, Any] = {"layers": [1, 2, 3], "positions": ("answer", 0), "method": "logistic", "l2": 2.0}
    expected = tk.extract(tiny("llama"), ToyTokenizer(), toy_pairs(24), **options)
    assert all(torch.equal(vector[layer], expected[layer]) for layer in expected)
    assert not (tmp_path / "v.safetensors.partial").exists()


def test_heads(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "iti.safetensors"
    arguments = ["--heads", "3", "--method", "logistic:l2=2", "--held-out", "0.4"]
    assert cli.main(["extract", str(pairs), "--out", str(out), *arguments]) == 0
    assert "held-out accuracy of the best heads, as layer.head: " in capsys.readouterr().out
    found, options = tk.SteeringVector.load(out), {"heads": 3, "direction": "probe", "l2": 2.0, "held_out": 0.4}
    expected = tk.iti_vector(tiny("llama"), ToyTokenizer(), toy_pairs(24), **options)  # type: ignore[arg-type]
    assert found.provenance["heads"] == expected.provenance["heads"]
    assert all(torch.equal(found[layer], expected[layer]) for layer in expected)
    assert cli.main(["vector", "show", str(out)]) == 0
    assert cli.main(["extract", str(pairs), "--out", str(out), "--heads", "3", "--method", "pca"]) == 2
    assert "--heads goes with" in capsys.readouterr().err


def test_select(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "v.safetensors"
    arguments = ["--select", "--strengths=-0.1+-0.05+0.05+0.1", "--json"]
    assert cli.main(["extract", "--pairs", str(pairs), "--out", str(out), *arguments]) == 0
    about = json.loads(capsys.readouterr().out)
    selection = about["selection"]
    assert len(selection["trials"]) == 12
    assert [trial["layer"] for trial in selection["trials"][::4]] == sorted({t["layer"] for t in selection["trials"]})
    for trial in selection["trials"]:
        assert (trial["effect"] is None) == (trial["positive"] is None or trial["positive"] < 0)
    assert selection["positive"] >= 0
    assert selection["gain"] == pytest.approx(selection["effect"] - selection["unsteered"])
    assert selection["interval"][0] <= selection["gain"] <= selection["interval"][1]
    assert (selection["unit"], selection["groups"]) == ("nats per token", selection["pairs"])
    assert (selection["edge"] is not None) == (selection["strength"] in (-0.1, 0.1))
    assert tk.SteeringVector.load(out).layers == (selection["layer"],)
    assert selection["effect"] == max(t["effect"] for t in selection["trials"] if t["effect"] is not None)
    assert about["pairs"]["count"] + selection["pairs"] == 24
    assert cli.main(["extract", str(pairs), "--out", str(out), "--select", "--strengths=-0.1+0.1"]) == 0
    said = capsys.readouterr()
    assert f"in nats per token, on {selection['pairs']} pairs held out for this" in said.out
    assert "KL from the unsteered model" in said.out
    assert "is at the edge of those tried" in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "v.bin"], "expected a .safetensors file"),
        (["--out", "none/v.safetensors"], "in a folder that exists"),
        (["--out", "v.safetensors", "--layers", "x"], "layers is 'x'"),
        (["--out", "v.safetensors", "--positions", "end"], "positions contains 'end'"),
        (["--out", "v.safetensors", "--method", "mean:l2=1"], "takes no 'l2'"),
        (["--out", "v.safetensors", "--method", "lda:shrinkage=some"], "is not a number"),
        (["--out", "v.safetensors", "--select", "--held-out", "0"], "needs held-out pairs"),
    ],
)
def test_bad_arguments(
    arguments: list[str], message: str, pairs: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["extract", str(pairs), *arguments]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_no_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "pairs.jsonl"
    empty.write_text("nonsense\n")
    out = str(tmp_path / "v.safetensors")
    assert cli.main(["extract", str(empty), "--out", out]) == 2
    assert "line 1: not JSON" in (err := capsys.readouterr().err)
    assert "holds no usable pair" in err
    assert cli.main(["extract", "--out", out]) == 2
    assert cli.main(["extract", str(tmp_path / "none.jsonl"), "--out", out]) == 1


@pytest.fixture
def vector(tmp_path: Path) -> Path:
    path = tmp_path / "v.safetensors"
    tk.extract(tiny("llama"), ToyTokenizer(), toy_pairs(24)).save(path)
    return path


def test_show(vector: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["vector", "show", str(vector)]) == 0
    out = capsys.readouterr().out
    assert "SteeringVector(4 layers (0-3 of 4), 48 features, 'block')" in out
    assert "method: mean" in out
    assert out.count("[0.") == 4
    assert cli.main(["vector", "show", str(vector), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layer_count"] == 4


@pytest.mark.parametrize("ending", ["gguf", "npz", "pt", "safetensors"])
def test_export(ending: str, vector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from truthkit.steering.formats import read_vector

    out = tmp_path / f"w.{ending}"
    assert cli.main(["vector", "export", str(vector), "--out", str(out), "--layer", "2", "--strength", "2"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    torch.testing.assert_close(read_vector(out)[2], 2 * tk.SteeringVector.load(vector)[2])
    assert cli.main(["vector", "export", str(vector), "--out", str(tmp_path / "w.txt")]) == 2


def test_compare(vector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "w.safetensors"
    (tk.SteeringVector.load(vector) * -2).save(other)
    assert cli.main(["vector", "compare", str(vector), str(other), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cosine"] == pytest.approx({str(i): -1.0 for i in range(4)})
    assert found["leakage"] == pytest.approx({str(i): 1.0 for i in range(4)})
    assert cli.main(["vector", "compare", str(vector), str(other)]) == 0
    assert "-1.0000" in capsys.readouterr().out


def test_plot(vector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "tokens.html"
    tiny("llama").save_pretrained(tmp_path / "model")
    text = ["--text", "some text", "--layer", "1", "--model", str(tmp_path / "model")]
    assert cli.main(["vector", "plot", str(vector), *text, "--out", str(page)]) == 0
    for fact in ("layer 1", "<dt>vector</dt><dd>", "1 of 4, counted from 0", "at the blocks", "<dt>model</dt>"):
        assert fact in page.read_text()
    assert cli.main(["vector", "plot", str(vector), "--trials", "--out", str(tmp_path / "x.png")]) == 2
    assert "no trials" in capsys.readouterr().err
    pytest.importorskip("matplotlib", reason="the extra plots is not installed")
    assert cli.main(["vector", "plot", str(vector), "--out", str(tmp_path / "auc.png")]) == 0
    assert (tmp_path / "auc.png").stat().st_size > 1000


def test_answers_are_steered(
    smollm2: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: `generate` in a `with` block of one's own."""
    monkeypatch.setattr("truthkit.models.load", lambda *_args, **_options: smollm2)
    model, tokenizer = smollm2
    vector = tk.SteeringVector({10: 20 * torch.randn(576)}, 30)
    vector.save(path := tmp_path / "v.safetensors")
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Who are you?"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with vector.steer(model, strength=1.5, positions="generated"):
        steered = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    arguments = ["--decoder", "greedy", "--max-new-tokens", "6", "--json"]
    assert cli.main(["generate", "Who are you?", "--steer", f"{path}:1.5,positions=generated", *arguments]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["prompts"][0]["answers"]
    assert answer["text"] == tokenizer.decode(steered[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert answer["text"] != tokenizer.decode(
        model.generate(**inputs, max_new_tokens=6, do_sample=False)[0, inputs["input_ids"].shape[1] :],
        skip_special_tokens=True,
    )
