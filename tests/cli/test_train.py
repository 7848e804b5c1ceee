"""`truthkit train` as a real process that is killed and interrupted, and its messages. Oracle: an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import ROOT
from tests.training.toys import chat_folder, halueval
from truthkit import cli

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, HaluEval-like pairs and fact-checked claims."""
    folder = tmp_path_factory.mktemp("train")
    chat_folder(folder / "model")
    halueval(folder / "qa.json", 12)
    claims = [
        {"event_id": str(n), "claim": f"{n} is even.", "label": ("true", "false")[n % 2], "explain": f"It is {n}."}
        for n in range(12)
    ]
    (folder / "claims.jsonl").write_text("\n".join(map(json.dumps, claims)))
    (folder / "test.jsonl").write_text(json.dumps(claims[3]) + "\n" + json.dumps({**claims[0], "claim": "Other."}))
    return folder


def amateur(folder: Path, out: Path, *more: str) -> list[str]:
    settings = ["--rank", "2", "--lr", "0.01", "--token-budget", "300", "--dropout", "0.1", "--forms", "chat+plain"]
    data = ["--model", str(folder / "model"), "--out", str(out)]
    return ["train", "amateur", str(folder / "qa.json"), *data, *settings, *more]


def reflex(folder: Path, out: Path, *more: str) -> list[str]:
    data = ["--model", str(folder / "model"), "--out", str(out), "--rank", "2"]
    return ["train", "reflex", str(folder / "claims.jsonl"), *data, *more]


def failure(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(arguments) == 2
    return capsys.readouterr().err


LONG = ("--steps", "60", "--save-every", "0")


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> dict[str, torch.Tensor]:
    assert cli.main(amateur(folder, folder / "undisturbed", *LONG)) == 0
    return load_file(folder / "undisturbed" / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_stopped_in_the_middle(
    number: signal.Signals, code: int, folder: Path, undisturbed: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    out, state = tmp_path / "a", tmp_path / "a.partial" / "state.safetensors"
    started = [sys.executable, "-m", "truthkit.cli", *amateur(folder, out, *LONG)]
    process = subprocess.Popen(started, env=ENVIRONMENT, cwd=ROOT)
    while not state.exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(timeout=60) == code
    assert 1 <= len(load_file(state)["losses"]) < 60
    assert not out.exists()
    assert cli.main(amateur(folder, out, *LONG)) == 0
    found = load_file(out / "adapter_model.safetensors")
    assert found.keys() == undisturbed.keys()
    assert all(torch.equal(found[name], undisturbed[name]) for name in found)
    assert {path.name for path in tmp_path.iterdir()} == {"a"}


class TestReport:
    def test_amateur(self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(amateur(folder, tmp_path / "a", "--steps", "8")) == 0
        said = capsys.readouterr().out
        assert "a: 24 examples, 8 steps\nloss" in said
        assert said.endswith("nats per answer token\n")
        record = json.loads((tmp_path / "a" / "training.json").read_text())
        assert (record["task"], record["limit"], record["quantization"]) == ("amateur", None, None)
        assert record["files"][0]["path"].endswith("qa.json")
        assert "tk.LOL(amateur=FOLDER)" in (tmp_path / "a" / "README.md").read_text()

    def test_reflex(self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        more = ("--formats", "verdict+explained", "--labels", "2", "--epochs", "0.5", "--json")
        more += ("--contrastive-margin", "0.5")
        assert cli.main(reflex(folder, tmp_path / "a", *more)) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["data"]["examples"] == 24
        assert report["data_options"]["labels"] == ["true", "false"]
        assert 0.2 < report["epochs"] < 0.8
        assert report["settings"]["contrastive_margin"] == 0.5
        both = [sum(terms) for terms in zip(report["cross_entropy"], report["contrastive"], strict=True)]
        assert report["losses"] == pytest.approx(both)
        assert min(report["contrastive"]) > 0
        assert report["loss_unit"] == (
            "nats per answer token, plus SimCTG's loss per pair of tokens, a difference of cosines"
        )

    def test_limit_keeps_all_forms_of_a_question(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert cli.main(amateur(folder, tmp_path / "a", "--steps", "1", "--limit", "5")) == 0
        assert "10 examples" in capsys.readouterr().out


class TestHeldOut:
    def test_refused(self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        message = failure(reflex(folder, tmp_path / "a", "--held-out", str(folder / "test.jsonl")), capsys)
        assert (
            "1 of the 12 texts of claims.jsonl are in the held-out file test.jsonl too, such as '3 is even.'" in message
        )
        assert not (tmp_path / "a").exists()

    def test_dropped(self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        more = ("--held-out", str(folder / "test.jsonl"), "--drop-overlap", "--steps", "1")
        assert cli.main(reflex(folder, tmp_path / "a", *more)) == 0
        captured = capsys.readouterr()
        assert "11 examples" in captured.out
        assert "1 texts are in" in captured.err

    def test_nothing_left(self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        more = ("--held-out", str(folder / "claims.jsonl"), "--drop-overlap")
        assert "all texts are held out" in failure(reflex(folder, tmp_path / "a", *more), capsys)


class TestBadInput:
    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (("--formats", "evidence-verdict"), "needs evidence, which none of the 12 claims has"),
            (("--max-length", "20"), "claim '0' (verdict): its answer has"),
            (("--max-length", "9999"), "max_length is 9999; expected 2 to 512"),
            (("--steps", "0"), "steps is 0"),
            (("--limit", "0"), "--limit is 0"),
        ],
    )
    def test_settings(
        self, more: tuple[str, ...], message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert message in failure(reflex(folder, tmp_path / "a", *more), capsys)

    @pytest.mark.parametrize(
        ("record", "message"),
        [
            ({"claim": "x", "label": "blue"}, "line 1: label 'blue' is unknown"),
            ({"label": "true"}, "line 1: no 'claim'"),
            (None, "has no records"),
        ],
    )
    def test_data(
        self, record: Any, message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "bad.jsonl").write_text(json.dumps(record) if record else "")
        arguments = ["train", "reflex", str(tmp_path / "bad.jsonl"), "--out", str(tmp_path / "a")]
        assert message in failure(arguments, capsys)

    def test_other_folder(self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "notes.txt").write_text("mine")
        assert "already holds something else" in failure(amateur(folder, tmp_path / "a"), capsys)
        assert "expected a name in a folder that exists" in failure(amateur(folder, tmp_path / "no" / "a"), capsys)


@pytest.mark.slow
def test_two_processes_share_each_step(folder: Path, tmp_path: Path) -> None:
    """Sums in another order, so equal up to rounding."""
    more = ("--steps", "6", "--dropout", "0")
    assert cli.main(amateur(folder, tmp_path / "one", *more)) == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launcher, "-m", "truthkit.cli", *amateur(folder, tmp_path / "two", *more)]
    subprocess.run(command, check=True, env=ENVIRONMENT, cwd=ROOT)
    losses = [json.loads((tmp_path / name / "training.json").read_text())["losses"] for name in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.slow
def test_real_model(smollm2: Any, shared_data: Path, tmp_path: Path) -> None:
    """A few steps on HaluEval: the hallucinated answers become likelier, and ICD takes the adapter."""
    import truthkit as tk
    from truthkit.training.amateur_data import read_pairs
    from truthkit.training.lora import train
    from truthkit.training.settings import TrainingSettings

    model, tokenizer = smollm2
    pairs = read_pairs(shared_data / "data/halueval/qa_one-turn_data.json")[:5]  # one batch, again and again
    settings = TrainingSettings(steps=6, token_budget=512, lr=2e-3, rank=8)
    losses = train(model, tokenizer, pairs, tmp_path / "a", settings=settings)["losses"]
    assert losses[-1] < 0.5 * losses[0]
    inputs = tokenizer("Q: Who wrote Romeo and Juliet?\nA:", return_tensors="pt")
    with tk.ICD(model, tokenizer, amateur=str(tmp_path / "a")):
        assert model.generate(**inputs, max_new_tokens=4, do_sample=False).shape[1] == inputs.input_ids.shape[1] + 4
