"""The circuit recipe. Oracle: whole forwards without a cache, an item and a head at a time, with plain hooks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import truthkit as tk
from recipes import circuit as recipe
from recipes import circuit_patching as patching
from recipes import circuit_prompts as prompts
from tests.tiny import tiny

PROJECTION = {"llama": "model.layers.{}.self_attn.o_proj", "gpt2": "transformer.h.{}.attn.c_proj"}
LAYERS, HEADS, SIZE = 4, 4, 12


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Of whole words."""
    texts = [*prompts.STORIES, prompts.SHOWN, prompts.NAMES, prompts.PLACES, prompts.THINGS]
    texts += [prompts.COLOURS, prompts.OBJECTS, prompts.SURFACES]
    words = sorted(set(re.findall(r"\w+|[^\w\s]+", " ".join(texts))))
    vocabulary = {word: number for number, word in enumerate(["<unk>", *words])}
    found = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    found.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=found, unk_token="<unk>")


def model_for(tokenizer: PreTrainedTokenizerFast, family: str, **options: Any) -> Any:
    return tiny(family, vocab_size=len(tokenizer), dtype=torch.float64, **options)


Edit = Callable[[int, torch.Tensor], torch.Tensor]


@contextmanager
def edited(model: Any, family: str, edit: Edit) -> Iterator[None]:
    """`edit(layer, what all heads give)` in the place of what all heads give."""
    handles = [
        model.get_submodule(PROJECTION[family].format(layer)).register_forward_pre_hook(
            lambda _module, args, layer=layer: (edit(layer, args[0]), *args[1:])
        )
        for layer in range(LAYERS)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def heads_and_lead(model: Any, family: str, ids: list[int], answers: list[int], edit: Edit) -> tuple[list[Any], float]:
    """What all heads would give, layer by layer, before the edit, and the lead after it."""
    seen: list[torch.Tensor] = []

    def note(layer: int, states: torch.Tensor) -> torch.Tensor:
        seen.append(states.clone())
        return edit(layer, states.clone())

    with edited(model, family, note):
        logits = model(torch.tensor([ids])).logits[0, -1]
    return seen, float(logits[answers[0]] - logits[answers[1:]].mean())


def put(layer: int, head: int, states: torch.Tensor, first: int) -> Edit:
    """A head that gives what it gives in `states`, from a token on."""

    def edit(at: int, own: torch.Tensor) -> torch.Tensor:
        if at == layer:
            own[:, first:, head * SIZE : (head + 1) * SIZE] = states[:, first:, head * SIZE : (head + 1) * SIZE]
        return own

    return edit


@pytest.mark.parametrize(("family", "task"), [("llama", "colours"), ("gpt2", "ioi")])
def test_three_ways_to_patch(tokenizer: PreTrainedTokenizerFast, family: str, task: str) -> None:
    model = model_for(tokenizer, family)
    items = prompts.make_items(task, tokenizer, 3, "a test")
    receivers = [(1, 2), (3, 0), (2, 3)]
    for batch in prompts.batches(items, tokenizer, 2):
        run = patching.Patching(model, batch)
        for row in range(len(batch.items)):
            ids, other, answers = (one[row].tolist() for one in (batch.ids, batch.other, batch.answers))
            own, lead = heads_and_lead(model, family, ids, answers, lambda _, states: states)
            others, _ = heads_and_lead(model, family, other, answers, lambda _, states: states)
            for layer, head in ((0, 1), (2, 0), (3, 3)):
                _, patched = heads_and_lead(model, family, ids, answers, put(layer, head, others[layer], 0))
                assert float(run.activations(layer)[row, head]) == pytest.approx(patched - lead, abs=1e-6)

                swap = put(layer, head, others[layer], len(ids) - 1)

                def frozen(at: int, _states: torch.Tensor, swap: Edit = swap, own: list[Any] = own) -> torch.Tensor:
                    return swap(at, own[at].clone())

                reached, direct = heads_and_lead(model, family, ids, answers, frozen)
                assert float(run.to_logits(layer)[row, head]) == pytest.approx(direct - lead, abs=1e-6)

                def through(
                    at: int, states: torch.Tensor, layer: int = layer, seen: list[Any] = reached
                ) -> torch.Tensor:
                    for to, number in receivers:
                        if at == to > layer:
                            states = put(to, number, seen[to], len(ids) - 1)(at, states)  # noqa: B023
                    return states

                _, indirect = heads_and_lead(model, family, ids, answers, through)
                assert float(run.to_heads(layer, receivers)[row, head]) == pytest.approx(indirect - lead, abs=1e-6)


def test_heads_that_attend_to_wrong_answers(tokenizer: PreTrainedTokenizerFast) -> None:
    """A head's output is then the mean of its values there."""
    model = model_for(tokenizer, "llama")
    (batch,) = prompts.batches(prompts.make_items("colours", tokenizer, 2, "a test"), tokenizer, 2)
    run = patching.Patching(model, batch)
    values: list[torch.Tensor] = []
    keep = model.model.layers[2].self_attn.v_proj.register_forward_hook(lambda _m, _a, output: values.append(output))
    with torch.no_grad():
        model(batch.ids)
    keep.remove()
    seen = tk.Capture(model, [2], site="heads")
    run.plain(patching.attending(model, [(2, 1), (2, 3)], batch.wrong_places), seen)
    got = seen[2].view(2, HEADS, SIZE)
    for row in range(2):
        places = [at for at, token in enumerate(batch.ids[row].tolist()) if token in batch.answers[row, 1:].tolist()]
        assert len(places) == 2
        for head, key_head in ((1, 0), (3, 1)):
            expected = values[0][row, places].view(2, 2, SIZE)[:, key_head].mean(dim=0)
            assert torch.allclose(got[row, head], expected, atol=1e-9)
        assert torch.allclose(got[row, 0], run.own[2, row, -1, :SIZE], atol=1e-9)


def test_items(tokenizer: PreTrainedTokenizerFast) -> None:
    for task, wrong in (("ioi", 1), ("colours", 2)):
        items = prompts.make_items(task, tokenizer, 24, "0")
        assert items == prompts.make_items(task, tokenizer, 24, "0") != prompts.make_items(task, tokenizer, 24, "1")
        for item in items:
            one, other = item.prompt.split(), item.other.split()
            assert len(item.wrong) == wrong
            assert item.right not in item.wrong
            assert sum(a != b for a, b in zip(one, other, strict=True)) == 1
    stories = prompts.make_items("ioi", tokenizer, 24, "0")
    assert sum(item.prompt.index(item.right) < item.prompt.index(item.wrong[0]) for item in stories) == 12
    tables = [item.prompt.rsplit("Q:", 1)[1] for item in prompts.make_items("colours", tokenizer, 24, "0")]
    asked = [re.search(r"is the (\w+)\?", table).group(1) for table in tables]
    places = [re.findall(r"a (\w+) (\w+)", table) for table in tables]
    assert [[thing for _, thing in there].index(one) for there, one in zip(places, asked, strict=True)] == [0, 1, 2] * 8


def test_overlap_and_chance() -> None:
    one, other = [(0, 0), (0, 1), (2, 3)], [(0, 1), (2, 3), (3, 0)]
    assert recipe.shared(one, other) == 0.5
    # Of all pairs of sets of two among four: 1 has both, 4 one, 1 none.
    assert recipe.hypergeometric(1, 2, 2, 4) == pytest.approx(5 / 6)
    values = np.array([[0.1, -3.0], [2.0, -0.5]])
    assert recipe.top(values, 2) == [(0, 1), (1, 0)]
    assert recipe.lowering(values, 2) == [(0, 1), (1, 1)]
    assert recipe.rank_correlation(values, -2 * values) == pytest.approx(1)


def test_the_whole_of_it_and_again(
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model_for(tokenizer, "llama").float().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    command = ["--out", str(tmp_path / "out"), "--model", str(tmp_path / "model"), "--quick", "--threads", "1"]
    command += ["--share", "0.2", "--change", "2"]
    assert recipe.main(command) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "PAPER: GPT2-Medium, about 78%" in shown
    assert "GPT2-Medium, coloured objects, 49.6 as it is and 93.7" in shown
    path = tmp_path / "out" / "summary.json"
    summary = json.loads(path.read_text())
    assert summary["model"] == {"layers": 4, "heads": 4, "a path adds": 3}
    assert all(1 <= layer < 3 for layer, _ in summary["changed"])
    rows = summary["changes"]["colours"]
    assert len(rows) == 7
    assert len(rows[2]["draws"]) == 3

    loaded, _ = tk.load(tmp_path / "model")
    items = prompts.make_items("colours", tokenizer, 12, "0 test")
    with torch.no_grad():
        logits = [loaded(torch.tensor([tokenizer(item.prompt).input_ids])).logits[0, -1] for item in items]
    ids = [tokenizer.convert_tokens_to_ids([item.right, *item.wrong]) for item in items]
    right = [int(one[answers].argmax()) == 0 for one, answers in zip(logits, ids, strict=True)]
    assert rows[0]["metrics"]["accuracy"] == pytest.approx(np.mean(right))
    # Killed in the middle: the stages that are whole are not run again, the others give the same.
    (tmp_path / "out" / "changes.json").unlink()
    kept = (tmp_path / "out" / "ioi-logits.json").stat().st_mtime_ns
    monkeypatch.setattr(recipe, "find_spec", lambda _name: None)
    assert recipe.main(command) == 0
    assert "no plots: they need matplotlib" in " ".join(capsys.readouterr().out.split())
    assert json.loads(path.read_text()) == summary
    assert (tmp_path / "out" / "ioi-logits.json").stat().st_mtime_ns == kept
    pytest.importorskip("matplotlib")
    for name in ("heads.png", "changes.png"):
        assert (tmp_path / "out" / name).stat().st_size > 5000


@pytest.mark.parametrize(
    ("more", "message"), [(["--share", "2"], "0 < --share < 1"), (["--model", "no/where"], "no/where")]
)
def test_bad_options(tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str) -> None:
    assert recipe.main(["--out", str(tmp_path / "out"), *more]) == 2
    assert message in " ".join(capsys.readouterr().out.split())


def test_a_tokenizer_without_the_words(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(tk.ArgumentError, match="has a token of its own for 0 of the words"):
        prompts.single_tokens(tokenizer, "Zebediah Xanthippe", 1)
