"""Oracle: every text alone, unpadded, with a plain hook; means in float64 by hand."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.activations.oracle import all_states, states
from tests.decoding.cases import ToyTokenizer
from tests.tiny import FAMILIES, tiny
from truthkit.steering import Pair
from truthkit.steering.extraction.encoding import encode_pairs
from truthkit.steering.extraction.progress import Progress


def words(generator: random.Random, longest: int = 30) -> str:
    return "".join(chr(generator.randint(33, 126)) for _ in range(generator.randint(2, longest)))


def toy_pairs(count: int = 12, seed: int = 0) -> list[Pair]:
    draw = random.Random(seed)
    return [Pair(words(draw), words(draw), prompt=words(draw)) for _ in range(count)]


def read(model: Any, pairs: list[Pair], tokenizer: Any = None) -> list[tuple[list[torch.Tensor], int]]:
    """For every text of the pairs the states of all layers, and the length of its prompt."""
    encoded = encode_pairs(pairs, tokenizer or ToyTokenizer())
    return [(all_states(model, ids), prompt) for ids, prompt in zip(encoded.ids, encoded.prompts, strict=True)]


def mean_difference(texts: list[tuple[list[torch.Tensor], int]], layer: int, take: Any) -> torch.Tensor:
    signed = [(-1) ** number * take(of[layer].double(), prompt) for number, (of, prompt) in enumerate(texts)]
    return torch.stack(signed).sum(0) / (len(texts) // 2)


def by_hand(model: Any, pairs: list[Pair], layer: int, take: Any, tokenizer: Any = None) -> torch.Tensor:
    return mean_difference(read(model, pairs, tokenizer), layer, take)


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b).norm() / b.norm())


TAKES = {
    "last": lambda h, _p: h[-1],
    "answer": lambda h, p: h[p:].mean(0),
    "all": lambda h, _p: h.mean(0),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_mean_difference_of_every_layer(family: str) -> None:
    model, pairs = tiny(family), toy_pairs()
    texts = read(model, pairs)
    for positions, take in TAKES.items():
        vector = tk.extract(model, ToyTokenizer(), pairs, positions=positions, held_out=0, token_budget=200)
        assert vector.layers == (0, 1, 2, 3)
        for layer in vector:
            assert distance(vector[layer], mean_difference(texts, layer, take)) < 1e-5, positions


@pytest.mark.parametrize("method", ["mean", "pca", "lda", "logistic", "contrastive_pca"])
def test_the_batches_do_not_matter(method: str) -> None:
    model, pairs = tiny("llama", dtype=torch.float64), toy_pairs(16)
    expected = tk.extract(model, ToyTokenizer(), pairs, layers=[1, -1], method=method, token_budget=333)
    for budget in (1, 60, 100_000):
        vector = tk.extract(model, ToyTokenizer(), pairs, layers=[1, -1], method=method, token_budget=budget)
        for layer in (1, 3):
            assert distance(vector[layer], expected[layer].double()) < 1e-6
        assert vector.scores == expected.scores


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_side_and_dtype(side: str, dtype: torch.dtype) -> None:
    model, pairs, tokenizer = tiny("llama", dtype=dtype), toy_pairs(), ToyTokenizer()
    tokenizer.padding_side = side  # type: ignore[attr-defined]
    vector = tk.extract(model, tokenizer, pairs, held_out=0)
    tolerance = 0.05 if dtype == torch.bfloat16 else 1e-5
    assert distance(vector[2], by_hand(model, pairs, 2, TAKES["last"])) < tolerance


def test_on_the_real_model(smollm2: Any) -> None:
    model, tokenizer = smollm2
    pairs = [
        Pair(f"{a} is the capital of {b}, that is true.", f"{a} is not the capital of {b}!")
        for a, b in [
            ("Paris", "France"),
            ("Rome", "Italy"),
            ("Oslo", "Norway"),
            ("Athens", "the Hellenic Republic, also known as Greece"),
        ]
    ]
    vector = tk.extract(model, tokenizer, pairs, held_out=0, layers=[3, 15, 29])
    texts = read(model, pairs, tokenizer)
    for layer in vector:
        assert distance(vector[layer], mean_difference(texts, layer, TAKES["last"])) < 1e-5


@pytest.mark.parametrize("how", ["wrapped", "in place"])
def test_a_compiled_model_is_read_uncompiled(how: str) -> None:
    """Compiled code would pass the hooks by."""
    torch.compiler.reset()
    model: Any = tiny("llama")
    if how == "wrapped":
        model = torch.compile(model, backend="eager")
    else:
        model.compile(backend="eager")
    with torch.no_grad():
        model(input_ids=torch.arange(2, 10)[None])
    vector = tk.extract(model, ToyTokenizer(), toy_pairs(), layers=[2], held_out=0)
    expected = tk.extract(tiny("llama"), ToyTokenizer(), toy_pairs(), layers=[2], held_out=0)
    torch.compiler.reset()
    assert torch.equal(vector[2], expected[2])


def test_held_out_scores_are_those_of_a_vector_that_has_not_seen_them() -> None:
    """Oracle: fit on the pairs that were not held out, score the held-out ones by counting."""
    from truthkit.steering.extraction.held_out import auc, split_groups

    model, pairs = tiny("qwen2"), toy_pairs(30)
    vector = tk.extract(model, ToyTokenizer(), pairs, layers=[2], held_out=0.3, seed=3)
    fit, held = split_groups(encode_pairs(pairs, ToyTokenizer()).groups, 0.3, seed=3)
    trained = by_hand(model, [pairs[i] for i in fit], 2, TAKES["last"])
    encoded = encode_pairs([pairs[i] for i in held], ToyTokenizer())
    projections = torch.stack([states(model, ids, 2)[-1].double() @ trained for ids in encoded.ids]).view(1, -1, 2)
    assert vector.scores[2]["auc"] == pytest.approx(float(auc(projections)[0]), abs=1e-6)
    assert vector.scores[2]["pairs"] == len(held) == 9
    assert distance(vector[2], by_hand(model, pairs, 2, TAKES["last"])) < 1e-5


def test_provenance(tmp_path: Path) -> None:
    model = tiny("llama")
    model.config._name_or_path = "/somewhere/on/this/machine/tiny"
    vector = tk.extract(
        model, ToyTokenizer(), toy_pairs(), layers=[1, 2], positions=("last", -2), method="logistic", l2=2.0
    )
    about = vector.provenance
    named: dict[str, Any] = {"id": "tiny", "commit": None, "type": "llama", "dtype": "float32", "adapters": {}}
    assert named.items() <= about["model"].items()
    checksums = ("config_sha256", "weights_sha256", "tokenizer_sha256")
    assert all(len(about["model"][name]) == 64 for name in checksums)
    assert (about["layers"], about["positions"], about["method"]) == ([1, 2], "last + -2", "logistic")
    assert about["options"] == {"l2": 2.0}
    assert about["pairs"] == {"count": 12, "held_out": 3, "groups": 12}
    assert set(about["hashes"]) == {"pairs", "template"}
    assert set(about["versions"]) == {"truthkit", "transformers", "torch", "python"}
    assert about["norms"] == pytest.approx({str(layer): norm for layer, norm in vector.norms().items()}, rel=1e-4)
    vector.save(tmp_path / "v.safetensors")
    assert b"somewhere" not in (tmp_path / "v.safetensors").read_bytes()
    assert tk.SteeringVector.load(tmp_path / "v.safetensors", model=model).provenance == about


def test_two_models_on_the_same_text() -> None:
    """REFLEX' vertical pairs: what a tuned model's states have that its base's lack."""
    base, texts = tiny("llama"), [("abcdef", "abcdef"), ("xyz", "xyz"), ("hello", "hello")]
    tuned = tiny("llama", seed=1)
    vector = tk.extract(tuned, ToyTokenizer(), texts, held_out=0, against=base)
    expected = torch.stack([states(tuned, ToyTokenizer()(t).input_ids, 1)[-1] for t, _ in texts]).double().mean(0)
    expected -= torch.stack([states(base, ToyTokenizer()(t).input_ids, 1)[-1] for t, _ in texts]).double().mean(0)
    assert distance(vector[1], expected) < 1e-5

    import peft

    config = peft.LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    wrapped = peft.get_peft_model(tiny("llama"), config, adapter_name="one")
    wrapped.add_adapter("two", config)
    difference = tk.extract(wrapped, ToyTokenizer(), texts, held_out=0, against="base")
    other = tk.extract(wrapped, ToyTokenizer(), texts, held_out=0, against="two")
    by_model = tk.extract(wrapped, ToyTokenizer(), texts, held_out=0, against=tiny("llama"))
    assert distance(difference[2], by_model[2].double()) < 1e-5
    assert distance(other[2], by_model[2].double()) > 0.1
    assert list(wrapped.active_adapters) == ["one"]
    with pytest.raises(tk.ArgumentError, match="names an adapter, but this model has none"):
        tk.extract(base, ToyTokenizer(), texts, against="two")
    with pytest.raises(tk.ArgumentError, match="adapters are"):
        tk.extract(wrapped, ToyTokenizer(), texts, against="three")


@pytest.mark.parametrize("method", ["mean", "lda", "pca", "logistic"])
def test_a_killed_extraction_goes_on_to_the_identical_vector(method: str, tmp_path: Path, monkeypatch: Any) -> None:
    model, pairs = tiny("llama"), toy_pairs(24)
    options: dict[str, Any] = {"method": method, "token_budget": 120}
    whole = tk.extract(model, ToyTokenizer(), pairs, **options)
    monkeypatch.setattr("truthkit.steering.extraction.progress._EVERY", 0.0)
    noted: list[int] = []
    note = Progress.note

    def dying(self: Progress, done: int, *args: Any, **kwargs: Any) -> None:
        note(self, done, *args, **kwargs)
        noted.append(done)
        if len(noted) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "note", dying)
    with pytest.raises(KeyboardInterrupt):
        tk.extract(model, ToyTokenizer(), pairs, checkpoint=tmp_path, **options)
    resumed = tk.extract(model, ToyTokenizer(), pairs, checkpoint=tmp_path, **options)
    assert noted[:4] == [1, 2, 3, 4]
    assert all(torch.equal(whole[layer], resumed[layer]) for layer in whole)
    assert resumed.provenance == whole.provenance
    with pytest.raises(tk.ArgumentError, match="belongs to another extraction"):
        tk.extract(model, ToyTokenizer(), toy_pairs(24, seed=1), checkpoint=tmp_path, **options)
    (tmp_path / "progress.safetensors").write_bytes(b"half")
    with pytest.raises(tk.ArgumentError, match="cannot be read"):
        tk.extract(model, ToyTokenizer(), pairs, checkpoint=tmp_path, **options)


def test_bad_lines_of_a_file_are_skipped_with_a_warning(tmp_path: Path) -> None:
    path, model = tmp_path / "pairs.jsonl", tiny("llama")
    path.write_text('["abc", "de"]\nnonsense\n["fgh", "ij"]\n')
    with pytest.warns(UserWarning, match="1 bad lines of pairs.jsonl were skipped: line 2: not JSON"):
        vector = tk.extract(model, ToyTokenizer(), path, held_out=0)
    expected = tk.extract(model, ToyTokenizer(), [("abc", "de"), ("fgh", "ij")], held_out=0)
    assert torch.equal(vector[1], expected[1])


@pytest.mark.parametrize(
    ("pairs", "options", "message"),
    [
        ([("a", "")], {}, r"pairs\[0\]: negative is empty"),
        ([("a", "b")], {"layers": [4]}, "4 decoder blocks"),
        ([("a", "b")], {"layers": []}, "layers is empty"),
        ([("a", "b")], {"method": "svm"}, "method is 'svm'"),
        ([("a", "b")], {"l2": 1.0}, "takes no 'l2'"),
        ([("a", "b")], {"positions": "generated"}, "selects no token"),
        ([("a", "b")], {"held_out": 1.0}, r"held_out is 1\.0"),
        ([("a", "b" * 600)], {}, r"pairs\[0\], negative: it has 601 tokens"),
    ],
)
def test_bad_input_leaves_a_clean_model(pairs: Any, options: dict[str, Any], message: str) -> None:
    model = tiny("llama")
    with pytest.raises(tk.ArgumentError, match=message):
        tk.extract(model, ToyTokenizer(), pairs, **options)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
