"""Plots are files that open; the numbers behind the heat map are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.activations.oracle import states
from tests.decoding.cases import ToyTokenizer
from tests.tiny import tiny
from truthkit.steering import plots
from truthkit.steering.vector import SteeringVector


def vector() -> SteeringVector:
    scores = {str(i): {"auc": 0.5 + i / 10, "low": 0.4 + i / 10, "high": 0.6 + i / 10} for i in range(4)}
    trials: list[dict[str, Any]] = [
        {"layer": layer, "strength": s, "effect": None if s > 1 else s, "divergence": s**2}
        for layer in (1, 2)
        for s in (0.5, 1.0, 2.0)
    ]
    about = {"scores": scores, "selection": {"trials": trials, "unsteered": 0.1}}
    return SteeringVector({i: torch.randn(48) for i in range(4)}, 4, provenance=about)


@pytest.mark.parametrize("name", ["plot.png", "plot.svg"])
def test_pictures(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra plots is not installed")
    start = b"\x89PNG" if name.endswith("png") else b"<?xml"
    for draw in (plots.plot_scores, plots.plot_trials):
        draw(vector(), tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
    plots.plot_tokens([" a", "$x_", "\n", ""], [1.0, -2.0, 0.0, 5.0], tmp_path / name, title="layer 1")
    assert (tmp_path / name).read_bytes().startswith(start)
    with pytest.raises(tk.ArgumentError, match=r"\.png, \.svg or \.pdf"):
        plots.plot_scores(vector(), tmp_path / "plot.bmp")


def test_projections_and_the_page(tmp_path: Path) -> None:
    model, v, text = tiny("llama"), vector(), "a <b> & c"
    tokens, values = plots.token_projections(model, ToyTokenizer(), v, text, layer=2)
    ids = ToyTokenizer()(text).input_ids
    expected = states(model, ids, 2).double() @ (v[2].double() / v[2].double().norm())
    assert values == pytest.approx(expected.tolist(), rel=1e-4)
    assert len(tokens) == len(ids)
    plots.plot_tokens(tokens, values, tmp_path / "page.html", title="layer 2", facts={"vector": "<v>"})
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<span title=") == len(ids)
    assert "&lt;" in page
    assert "http" not in page
    assert "<dt>vector</dt><dd>&lt;v&gt;</dd>" in page
    middle = sorted(values)[(len(values) - 1) // 2]
    assert f"<span>{middle:.3g}, the median</span>" in page


def test_nothing_to_plot(tmp_path: Path) -> None:
    bare = SteeringVector({0: torch.ones(2)}, 1)
    with pytest.raises(tk.ArgumentError, match="no held-out scores to plot"):
        plots.plot_scores(bare, tmp_path / "x.png")
    with pytest.raises(tk.ArgumentError, match="no trials"):
        plots.plot_trials(bare, tmp_path / "x.png")


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("truthkit.figures.find_spec", lambda _name: None)
    with pytest.raises(tk.MissingExtraError, match=r"truthkit\[plots\]"):
        plots.plot_scores(vector(), tmp_path / "x.png")
