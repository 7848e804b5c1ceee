"""What a vector does when little is said: which layer, on which model, and how sure its scores are."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

import truthkit as tk
from tests.decoding.cases import ToyTokenizer
from tests.steering.test_extract import toy_pairs
from tests.tiny import tiny
from truthkit import cli
from truthkit.statistics.intervals import wilson
from truthkit.steering.extraction.held_out import held_out_scores
from truthkit.steering.formats import from_gguf
from truthkit.steering.layers import worth_trying
from truthkit.steering.spec import parse_layers, parse_steer


def scored(aucs: dict[int, float], count: int = 4, width: int = 48) -> tk.SteeringVector:
    directions = {layer: torch.randn(width, generator=torch.Generator().manual_seed(layer)) for layer in aucs}
    return tk.SteeringVector(
        directions, count, provenance={"scores": {str(layer): {"auc": auc} for layer, auc in aucs.items()}}
    )


def test_ties_go_to_the_middle_of_the_longest_stretch() -> None:
    cases: list[tuple[dict[int, float], int]] = [
        (dict.fromkeys(range(30), 1.0), 15),
        ({layer: float(5 <= layer < 25) for layer in range(30)}, 15),
        ({layer: float(layer in (1, 10, 11, 12, 20)) for layer in range(30)}, 11),
        ({1: 0.5, 2: 0.9, 3: 0.8}, 2),
        (dict.fromkeys((2, 8, 14), 1.0), 8),
    ]
    for aucs, expected in cases:
        assert scored(aucs, 30).best_layer() == expected, aucs


def test_layers_to_try_are_spread_over_the_plateau() -> None:
    plateau = {layer: 1.0 if 1 <= layer <= 17 else 0.6 for layer in range(30)}
    assert worth_trying(plateau, 3) == [3, 9, 15]
    assert worth_trying(dict.fromkeys(range(30), 0.5), 3) == [5, 15, 25]
    assert worth_trying({1: 0.7, 2: 0.9, 3: 0.8, 4: 0.6}, 3) == [1, 2, 3]


def test_one_layer_is_steered_unless_more_are_asked_for() -> None:
    """Oracle: the same vector with its layers named; for `bake` and for the command line's words too."""
    model = tiny("llama")
    best, plain = scored({1: 0.6, 2: 0.9, 3: 0.6}), tk.SteeringVector(scored({0: 1, 1: 1, 3: 1}).directions, 4)
    for vector, layer, why in ((best, 2, "held-out AUC"), (plain, 1, "in the middle")):
        for steered in (vector.steer, lambda m, v=vector: v.bake(m, keep_in_memory=True)):
            with pytest.warns(UserWarning, match=f"{len(vector)} layers; layer {layer} is steered, the .*{why}"):
                made = steered(model)
            if isinstance(made, tk.Steering):
                assert made.layers == (layer,)
                assert torch.equal(made.vectors[layer], vector[layer])
            else:
                made.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert best.steer(model, layers="all").layers == (1, 2, 3)
        assert best.steer(model, layers=[-1, 1]).layers == (1, 3)
        assert best.at(3).steer(model).layers == (3,)
        chosen = tk.SteeringVector(best.directions, 4, provenance={"selection": {"strength": 2.0}})
        assert chosen.steer(model).layers == (1, 2, 3)
    with pytest.raises(tk.ArgumentError, match="layers is 'every'; expected numbers, or 'all'"):
        best.steer(model, layers="every")  # type: ignore[arg-type]
    assert parse_steer("v.npz:1,layers=all").options == {"layers": "all"}
    assert parse_layers("all") == "all"
    every = tk.extract(model, ToyTokenizer(), toy_pairs(4), layers="all", held_out=0)
    assert every.layers == (0, 1, 2, 3)


def test_few_pairs_that_are_all_right_prove_little() -> None:
    """Oracle: Wilson's interval of so many independent items; copies of a pair in one group count once."""
    perfect = torch.tensor([[1.0, -1.0]], dtype=torch.float64).expand(1, 5, 2) + torch.arange(5)[:, None] / 100
    (score,) = held_out_scores(perfect, list(range(5)), seed=0)
    assert (score.auc, score.high, score.groups) == (1.0, 1.0, 5)
    assert score.low == pytest.approx(wilson(5, 5).low, abs=1e-6)
    (copies,) = held_out_scores(perfect, [0, 0, 0, 1, 1], seed=0)
    assert copies.low == pytest.approx(wilson(2, 2).low, abs=1e-6)


def control_vector(path: Path, layers: range, kind: Any = gguf.GGMLQuantizationType.F32) -> dict[int, np.ndarray]:
    values = {layer: np.linspace(-1, 1, 64, dtype=np.float32) * layer for layer in layers}
    writer = gguf.GGUFWriter(str(path), "controlvector")
    for layer, value in values.items():
        writer.add_tensor(f"direction.{layer}", gguf.quantize(value[None], kind)[0], raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def test_a_control_vector_of_some_layers_fits_any_model_that_has_them(tmp_path: Path) -> None:
    control_vector(path := tmp_path / "v.gguf", range(1, 3))
    vector = from_gguf(path)
    assert vector.layer_count is None
    assert repr(vector) == "SteeringVector(2 layers (1-2), 64 features, 'block')"
    model = tiny("llama", hidden_size=64)
    assert vector.steer(model, layers=2).layers == (2,)
    vector.save(tmp_path / "v.safetensors")
    again = tk.SteeringVector.load(tmp_path / "v.safetensors", model=model)
    assert again.layer_count is None
    known = tk.SteeringVector({1: torch.ones(64)}, 4)
    assert [(a + b).layer_count for a, b in ((vector, known), (known, vector), (vector, vector))] == [4, 4, None]
    with pytest.raises(tk.ArgumentError, match="layer -1 counts from the end"):
        vector.at(-1)
    with pytest.raises(tk.ModelError, match="at least 3 decoder blocks with 64 features"):
        vector.steer(tiny("llama", num_hidden_layers=2, hidden_size=64))


def test_quantised_control_vectors_are_read_as_numbers(tmp_path: Path) -> None:
    for kind in ("Q8_0", "Q4_0", "F16", "BF16", "F32"):
        values = control_vector(path := tmp_path / f"{kind}.gguf", range(1, 3), gguf.GGMLQuantizationType[kind])
        vector = from_gguf(path)
        for layer, value in values.items():
            assert vector[layer].shape == (64,)
            assert np.abs(vector[layer].numpy() - value).max() < (0.2 if kind == "Q4_0" else 0.02) * layer, kind


def test_a_model_is_told_by_its_weights_where_it_has_no_name_of_its_own(tmp_path: Path) -> None:
    """The same weights in another folder are the same model; other weights in a folder of that name are not."""
    made = {}
    for name, seed in (("hub/snapshots/0123abc", 0), ("copies/model", 0), ("tuned/model", 1)):
        model = tiny("llama")
        if seed:
            with torch.no_grad():
                model.model.layers[0].mlp.up_proj.weight[0, 0] += 1
        model.save_pretrained(tmp_path / name)
        made[name] = type(model).from_pretrained(tmp_path / name)
    hub, copy, tuned = made.values()
    vector = tk.extract(copy, ToyTokenizer(), toy_pairs(4), layers=[2], held_out=0)
    assert vector.provenance["model"]["id"] == "model"
    for same in (hub, copy):
        vector.steer(same)
    with pytest.raises(tk.ModelError, match="made from 'model', but this model is 'model', with another"):
        vector.steer(tuned)
    vector.steer(tuned, allow_other_model=True)
    assert parse_steer("v.npz", allow_other_model=True).on(vector, tuned).layers == (2,)
    with torch.no_grad():
        copy.lm_head.weight[0, 0] += 1  # what was found of a model holds until a weight changes
    with pytest.raises(tk.ModelError, match="--allow-other-model"):
        vector.steer(copy)


def test_what_is_refused_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scored({1: 1.0, 2: 1.0}).save(path := tmp_path / "v.safetensors")
    (pairs := tmp_path / "p.jsonl").write_text(json.dumps({"positive": "a", "negative": "b"}))
    out = ["--out", str(tmp_path / "x.png")]
    for arguments, message in (
        (["vector", "plot", str(path), "--layer", "99", *out], "--layer goes with --text"),
        (["vector", "plot", str(path), "--text", "Hi", "--layer", "99", *out], "the vector has no layer 99"),
        (
            ["extract", str(pairs), "--method", "logistic:l2=1+2", "--out", str(path)],
            "--method has l2=1+2; expected one number, as in l2=1",
        ),
    ):
        assert cli.main(arguments) == 2
        assert message in capsys.readouterr().err
