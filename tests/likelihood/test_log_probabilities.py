"""Log-probabilities with shared beginnings. Oracle: every row alone and whole, under the same decoder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.decoding.cases import ToyTokenizer
from tests.decoding.oracle import Look, Oracle, Seen, dola, icd, log_p, save_adapter
from tests.tiny import FAMILIES, tiny
from tests.tiny_vlm import tiny_vlm
from truthkit.hf.branches import takes_branches
from truthkit.hf.trees import takes_trees
from truthkit.likelihood.log_probabilities import (
    log_probabilities,
    log_probabilities_and_scores,
    log_probabilities_under,
)

WHOLE = {"gemma2", "gemma3_text", "mistral", "mpt"}
"""Their rows cannot be cut: sliding windows, and attention biased by a token's place in the cache."""

GENERATOR = torch.Generator().manual_seed(0)


def draw(count: int) -> list[int]:
    return torch.randint(33, 127, (count,), generator=GENERATOR).tolist()


PREFIX = [1, *draw(40)]
QUESTIONS = [draw(length) for length in (6, 1, 11, 6)]
ROWS = [[*PREFIX, *QUESTIONS[question], *draw(length)] for question, length in enumerate((5, 2, 9, 1))]
ROWS += [[*PREFIX, *QUESTIONS[question], *draw(length)] for question, length in ((0, 1), (2, 3), (0, 7), (3, 12))]
STARTS = [len(PREFIX) + len(QUESTIONS[question]) for question in (0, 1, 2, 3, 0, 2, 0, 3)]

DECODERS: dict[str, Callable[[Any, str], Any]] = {
    "none": lambda _model, _adapter: None,
    "icd-adapter": lambda model, adapter: tk.ICD(model, amateur=adapter, beta=0.0),
    "icd-prompt": lambda model, _adapter: tk.ICD(model, ToyTokenizer(), amateur_prompt="lie", beta=0.0),
    "icd-model": lambda model, _adapter: tk.ICD(model, amateur=tiny(model.config.model_type, seed=5), beta=0.0),
    "dola": lambda model, _adapter: tk.DoLa(model, layers=[1, 2], beta=0.0),
    "dola, constrained": lambda model, _adapter: tk.DoLa(model, layers=[1, 2], beta=1e-6),
    "lol": lambda model, adapter: tk.LOL(
        model, ToyTokenizer(), amateur=adapter, layers=[1, 2], refocus="be exact", beta=0.0
    ),
}


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    made: dict[str, str] = {}

    def adapter(family: str) -> str:
        if family not in made:
            made[family] = save_adapter(tiny(family), tmp_path_factory.mktemp(family))
        return made[family]

    return adapter


def alone(model: Any, row: list[int], start: int) -> float:
    with torch.no_grad():
        log_p = model(input_ids=torch.tensor([row])).logits[0].float().log_softmax(-1)
    return sum(float(log_p[i - 1, row[i]]) for i in range(start, len(row)))


def check(model: Any, decoder: Any = None, *, rows: Any = ROWS, starts: Any = STARTS, **options: Any) -> None:
    with decoder or nullcontext() as session:
        found = log_probabilities(model, rows, starts, session, **{"token_budget": 40} | options)
        assert found == pytest.approx([alone(model, *each) for each in zip(rows, starts, strict=True)], abs=2e-4)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom", "mistral"])
def test_equals_rows_alone(family: str, name: str, adapters: Callable[[str], str]) -> None:
    """Trees, but for Bloom, which has no position ids: branches; Mistral's sliding window cannot be shared."""
    model = tiny(family)
    for share in (True, False):
        check(model, DECODERS[name](model, adapters(family)), share_prefix=share)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str) -> None:
    model = tiny(family)
    assert takes_branches(model) == (family not in WHOLE)
    assert takes_trees(model) == (family not in WHOLE | {"bloom"})
    check(model)


def test_attention_with_a_mask_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eager attention takes trees, too; where it is another one, there are branches."""
    model = tiny("llama", attn_implementation="eager")
    assert takes_trees(model)
    check(model)
    monkeypatch.setattr(model.config, "_attn_implementation_internal", "flash_attention_2")
    assert not takes_trees(model)
    monkeypatch.undo()
    monkeypatch.setattr("truthkit.likelihood.log_probabilities.takes_trees", lambda _model: False)
    check(model)


@pytest.mark.parametrize("amateur", ["gpt2", "bloom", "mpt", "mistral"])
def test_an_amateur_of_another_kind(amateur: str) -> None:
    """What both models can do."""
    model = tiny("llama")
    check(model, tk.ICD(model, amateur=tiny(amateur, seed=5), beta=0.0))


@pytest.mark.parametrize("prompt", ["", "lie"])
def test_positions_on_several_axes(prompt: str) -> None:
    """Qwen2-VL's are counted along the row where a view has another prompt."""
    model = tiny_vlm("qwen2_vl").model
    decoder = tk.ICD(model, ToyTokenizer(), amateur_prompt=prompt, beta=0.0) if prompt else tk.APC(model, beta=0.0)
    with decoder as session:
        assert session.takes_trees == (not prompt)
    check(model, decoder)


@pytest.mark.parametrize("positions", ["all", "generated", "prompt", ("prompt", "answer"), "last"])
@pytest.mark.parametrize("family", ["llama", "bloom", "mistral"])
def test_steered(family: str, positions: Any) -> None:
    """Trees where a token's part of its text decides, but for Bloom and Mistral; the prompt ends before the start."""
    model, vectors = tiny(family), {1: torch.randn(48, generator=GENERATOR), 3: torch.randn(48, generator=GENERATOR)}
    ends = [start - 1 for start in STARTS]

    def steering(strength: float) -> tk.Steering:
        return tk.Steering(model, vectors, strength=strength, positions=positions)

    def check_under(found: list[float], strength: float) -> None:
        with steering(strength) as alike:
            for row, start, end, score in zip(ROWS, STARTS, ends, found, strict=True):
                alike.prompt_lengths = [end]
                assert score == pytest.approx(alone(model, row, start), abs=2e-4)

    with steering(4.0) as active:
        found = log_probabilities(model, ROWS, STARTS, token_budget=40, steerings=[active], prompt_lengths=ends)
        assert active.prompt_lengths is None
    check_under(found, 4.0)
    strengths = (4.0, 0.0, -2.0)
    sets = [[steering(strength)] for strength in strengths]
    done: list[int] = []
    options: dict[str, Any] = {"prompt_lengths": ends, "token_budget": 40, "on_rows": done.append}
    for strength, found in zip(strengths, log_probabilities_under(model, ROWS, STARTS, sets, **options), strict=True):
        check_under(found, strength)
    assert sum(done) == len(sets) * len(ROWS)
    assert log_probabilities_under(model, [], [], sets, prompt_lengths=[]) == [[], [], []]


def test_half_precision() -> None:
    model = tiny("llama", dtype=torch.bfloat16)
    found, whole = (log_probabilities(model, ROWS, STARTS, share_prefix=share) for share in (True, False))
    assert found == pytest.approx(whole, rel=0.05)


def read_by(model: Any, **options: Any) -> tuple[list[int], list[int]]:
    """How many tokens each forward had, and how many rows were done after each."""
    read: list[int] = []
    done: list[int] = []
    handle = model.base_model.register_forward_pre_hook(
        lambda _m, args, kwargs: read.append((args[0] if args else kwargs["input_ids"]).numel()), with_kwargs=True
    )
    with handle:
        log_probabilities(model, on_rows=done.append, **options)
    return read, done


def test_what_is_shared_is_read_once() -> None:
    rows = {"rows": ROWS, "starts": STARTS, "token_budget": 1000}
    beginnings = {tuple(row[:i]) for row in ROWS for i in range(len(PREFIX), len(row))}  # but for the last tokens
    assert read_by(tiny("llama"), **rows) == ([len(PREFIX) - 1, len(beginnings)], [len(ROWS)])
    assert read_by(tiny("bloom"), **rows) == ([len(PREFIX) - 1, len(QUESTIONS) * 11, len(ROWS) * 13], [len(ROWS)])


def test_what_is_half_shared_is_a_tree_by_itself() -> None:
    """Where a beginning is not worth a forward of its own."""
    rows = [[*PREFIX, 50, *draw(3)] for _ in range(3)]
    check(tiny("llama"), rows=rows, starts=[len(PREFIX) + 1] * 3, token_budget=1000)
    read, _ = read_by(tiny("llama"), rows=rows, starts=[len(PREFIX) + 1] * 3, token_budget=1000)
    assert read == [len(PREFIX) + 1 + 3 * 2]


def test_prompts_are_read_once_for_all_that_steers_answers() -> None:
    model, vector = tiny("llama"), {1: torch.ones(48)}
    sets = [[tk.Steering(model, vector, positions="generated")] for _ in range(4)]
    read: list[int] = []
    handle = model.base_model.register_forward_pre_hook(
        lambda _m, args, kwargs: read.append((args[0] if args else kwargs["input_ids"]).numel()), with_kwargs=True
    )
    with handle:
        log_probabilities_under(model, ROWS, STARTS, sets, prompt_lengths=STARTS, token_budget=1000)
    prompts = {tuple(row[:i]) for row, start in zip(ROWS, STARTS, strict=True) for i in range(len(PREFIX), start + 1)}
    answers = {(start, *row[:i]) for row, start in zip(ROWS, STARTS, strict=True) for i in range(start + 1, len(row))}
    assert read == [len(PREFIX) - 1, len(prompts), *[len(answers)] * 4]


def test_families_of_rows() -> None:
    """Each has a beginning of its own; a row without relatives is read whole, and so is what would save little."""
    first, second, short = draw(30), draw(50), draw(17)
    begins = (first, second, first, short, second, draw(20), second, short)
    rows = [[*begin, 40 + i, *draw(3)] for i, begin in enumerate(begins)]
    starts = [len(begin) + 1 for begin in begins]
    check(tiny("llama"), rows=rows, starts=starts)
    read, done = read_by(tiny("llama"), rows=rows, starts=starts, token_budget=100)
    assert read == [29, 1 + 2 * 3, 49, 1 + 3 * 3, 3 * 24]
    assert sum(done) == len(rows)


def test_rows_with_nothing_to_score() -> None:
    rows = [PREFIX, [*PREFIX, 40, 41], PREFIX, [*PREFIX, 40]]
    done: list[int] = []
    found = log_probabilities(tiny("llama"), rows, [len(PREFIX)] * 4, on_rows=done.append, token_budget=20)
    assert found[0] == found[2] == 0.0 > max(found[1], found[3])
    assert sum(done) == 4
    assert log_probabilities(tiny("llama"), rows[::2], [len(PREFIX)] * 2, token_budget=20) == [0.0, 0.0]


def test_rows_without_anything_in_common() -> None:
    model = tiny("llama")
    rows = [draw(6), draw(9)]
    assert len(log_probabilities(model, rows, [1, 2])) == 2
    assert log_probabilities(model, [], []) == []


def test_a_branch_of_something_else() -> None:
    model = tiny("llama")
    cache = tk.GrowingCache(config=model.config)
    with (
        tk.DoLa(model) as decoder,
        pytest.raises(tk.ArgumentError, match="has not read what is in this cache"),
        decoder.branched(cache, torch.zeros(2, dtype=torch.long)),
    ):
        pass


@pytest.mark.parametrize("inside", [True, False])
def test_a_passage_left_out(inside: bool) -> None:
    """By CAD, in what the rows share; or behind it, where rows must be read whole."""
    model, passage = tiny("llama"), draw(5)
    heads = [[*PREFIX, *passage, 40 + i] if inside else [*PREFIX, 40 + i, *passage] for i in range(4)]
    decoder = tk.CAD(model, ToyTokenizer(), context="".join(map(chr, passage)), beta=0.0)
    check(model, decoder, rows=[[*head, *draw(4)] for head in heads], starts=[len(heads[0])] * 4)


def _both(main: Seen, others: list[Seen]) -> torch.Tensor:
    return icd(beta=0.0)(main, others) + dola(beta=0.0)(main, []) - log_p(main.logits)


def _cad(main: Seen, others: list[Seen]) -> torch.Tensor:
    return 1.5 * log_p(main.logits) - 0.5 * log_p(others[0].logits)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_raw_scores_are_the_sums_of_the_formula(family: str) -> None:
    """Oracle: the formula over log-probabilities of plain forwards, token by token; nothing normalised."""
    model, other = tiny(family), tiny(family, seed=5)
    passage = PREFIX[5:30]

    def without(prompt: list[int]) -> list[int]:
        return [*prompt[:5], *prompt[30:]]

    icd_of_models, exits = tk.ICD(model, amateur=other, beta=0.0), tk.DoLa(model, layers=[1, 2], beta=0.0)
    context = ToyTokenizer().decode(passage)
    cases: list[tuple[Any, list[Look], Any, tuple[int, ...]]] = [
        (icd_of_models, [Look(other)], icd(beta=0.0), ()),
        (exits, [], dola(beta=0.0), (1, 2)),
        (icd_of_models + exits, [Look(other)], _both, (1, 2)),
        (tk.CAD(model, ToyTokenizer(), context=context), [Look(model, without)], _cad, ()),
    ]
    for decoder, looks, formula, layers in cases:
        oracle = Oracle(model, looks, formula, layers=layers)
        with decoder as session:
            assert session.contrasts
            normalised, raw = log_probabilities_and_scores(model, ROWS, STARTS, session, token_budget=40)
            assert normalised == pytest.approx(log_probabilities(model, ROWS, STARTS, session), abs=1e-4)
        for row, start, found in zip(ROWS, STARTS, raw, strict=True):
            scores = oracle.scores(row[:start], row[start:-1], len(row) - start)
            assert found == pytest.approx(sum(float(s[t]) for s, t in zip(scores, row[start:], strict=True)), abs=2e-4)
    with tk.APC(model, beta=0.0) as session:
        assert not session.contrasts
