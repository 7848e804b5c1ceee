"""The recipe of contrastive PCA. Oracle: numpy's eigenvectors, of states that transformers itself hands out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import truthkit as tk
from recipes import contrastive_pca as recipe
from tests.tiny import tiny
from tests.training.toys import chat_tokenizer
from truthkit.steering.extraction.methods import METHODS, LayerData


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cpca") / "model"
    tiny("llama", num_hidden_layers=2).save_pretrained(folder)
    chat_tokenizer().save_pretrained(folder)
    return folder


def test_the_whole_of_it(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--out", str(tmp_path), "--model", str(model), "--pairs", "12", "--layer", "0", "--threads", "1"]
    assert recipe.main(command) == 0
    assert "layer 0, 12 pairs of reviews to find, as many to try" in " ".join(capsys.readouterr().out.split())
    summary = json.loads((tmp_path / "summary.json").read_text())

    loaded, tokenizer = tk.load(model)

    def states(part: str) -> np.ndarray:
        rows = []
        for text in recipe.make_texts(part, 12, 0).texts:
            with torch.no_grad():
                ids = torch.tensor([tokenizer(text).input_ids])
                rows.append(loaded(ids, output_hidden_states=True).hidden_states[1][0, -1].double().numpy())
        return np.stack(rows)

    train, test, background = (states(part) for part in ("train", "test", "background"))
    target, common = np.cov(train.T), np.cov(background.T)
    for trial in summary["layers"]["0"]["trials"][::6]:
        direction = np.linalg.eigh(target - trial["alpha"] * common)[1][:, -1]
        direction *= np.sign((train[0::2] - train[1::2]).mean(axis=0) @ direction)
        along = test @ direction
        above = [float(good > bad) for good in along[0::2] for bad in along[1::2]]
        assert trial["test"] == pytest.approx(np.mean(above), abs=1 / 144 + 1e-9)
        assert trial["of background"] == pytest.approx(direction @ common @ direction / np.trace(common), abs=1e-5)
    assert {len(points) for points in summary["points"].values()} == {24}
    pytest.importorskip("matplotlib")
    for name in ("sweep.png", "planes.png"):
        assert (tmp_path / name).stat().st_size > 5000


def test_direction_that_the_background_lacks() -> None:
    """Two features vary; the larger varies in the background, too."""
    draw = torch.Generator().manual_seed(0)
    scale = torch.tensor([9.0, 2.0, 1.0], dtype=torch.float64)
    target = torch.randn(400, 3, generator=draw, dtype=torch.float64) * scale
    background = torch.randn(400, 3, generator=draw, dtype=torch.float64) * torch.tensor([9.0, 0.5, 1.0])
    covariances = [recipe.moments(rows).covariance()[0] for rows in (target, background)]
    assert abs(float(recipe.components(*covariances, 0)[0, 0])) > 0.99
    first = recipe.components(*covariances, 2.0)[:, 0]
    assert abs(float(first[1])) > 0.99

    # With centred target states in the place of pairs' differences, it is the method of `truthkit extract`.
    centred = LayerData(recipe.moments(target), recipe.moments(background), recipe.moments(target - target.mean(dim=0)))
    scatter = (len(target) - 1) / len(target)  # of E[d dᵀ] to the covariance
    found = METHODS["contrastive_pca"].fit(centred, alpha=2.0 * scatter)
    assert abs(float(found @ first / found.norm())) == pytest.approx(1, abs=1e-6)


def test_texts_and_choices_of_alpha() -> None:
    train, test, background = (recipe.make_texts(part, 30, 0) for part in ("train", "test", "background"))
    assert train.things == background.things
    assert not set(train.things) & set(test.things)
    for one, other in zip(train.texts, background.texts, strict=True):
        assert sum(a != b for a, b in zip(one.split(), other.split(), strict=True)) <= 1
    words = {text.split(" was ")[1].split(".")[0] for text in train.texts}
    assert not words & {text.split(" was ")[1].split(".")[0] for text in test.texts + background.texts}
    trials = [{"alpha": at, "train": auc, "of background": share} for at, auc, share in ((0, 0.5, 0.3), (1, 0.9, 0.02))]
    assert recipe.without_labels(trials, 10)["alpha"] == recipe.with_labels(trials)["alpha"] == 1
    assert recipe.without_labels(trials, 100)["alpha"] == 1


def test_bad_options(tmp_path: Path, capsys: pytest.CaptureFixture[str], model: Path) -> None:
    for more, message in ((["--pairs", "1"], "--pairs is 1; expected 2 or more"), (["--layer", "9"], "layer is 9")):
        assert recipe.main(["--out", str(tmp_path), "--model", str(model), *more]) == 2
        assert message in " ".join(capsys.readouterr().out.split())
