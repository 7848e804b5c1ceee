"""Oracle: every text alone with a plain hook, the adapter switched by hand, means in float64."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.activations.oracle import all_states
from tests.factcheck.cases import ChatTokenizer, base_of, label_score, prompt_ids, prompt_of, toy_claims, tuned
from tests.tiny import tiny
from truthkit.factcheck.claims import LABELS_3, Claim, read_claims, write_claims
from truthkit.factcheck.dialogue import Form
from truthkit.factcheck.disagreement import Disagreement, disagreement, refinement_claims
from truthkit.factcheck.reflex import ReflexVectors, along_vectors, horizontal_pairs, reflex_vectors, vertical_pairs
from truthkit.factcheck.verdicts import Verdict

CLAIMS = toy_claims(30)


def verdict(label: str) -> Verdict:
    shares = {one: 0.2 + 0.01 * i for i, one in enumerate(LABELS_3)}
    return Verdict(label, shares | {label: 0.6})


def found(rights: Sequence[tuple[bool, bool]]) -> Disagreement:
    """A disagreement with given rights and wrongs."""
    claims = CLAIMS[: len(rights)]

    def judged(claim: Claim, right: bool) -> Verdict:
        return verdict(claim.label if right else next(label for label in LABELS_3 if label != claim.label))

    backbone = tuple(judged(claim, right[0]) for claim, right in zip(claims, rights, strict=True))
    return Disagreement(tuple(claims), backbone, tuple(judged(c, r[1]) for c, r in zip(claims, rights, strict=True)))


MIXED = [(True, True), (False, True), (False, False), (True, False), (False, True), (True, False), (True, True)] * 3


def test_quadrants() -> None:
    two = found(MIXED)
    assert two.quadrants[:4] == ["Q1", "Q2", "Q3", "Q4"]
    assert two.counts() == {"Q1": 6, "Q2": 6, "Q3": 3, "Q4": 6}
    assert two.of("Q4") == [3, 5, 10, 12, 17, 19]
    assert [claim.id for claim in refinement_claims(two)][:4] == ["1", "3", "4", "5"]
    for number, (b, f) in enumerate(MIXED):
        label, wrong = two.claims[number].label, two.wrong(number)
        assert wrong != label
        if not f:
            assert wrong == two.tuned[number].label
        elif not b:
            assert wrong == two.backbone[number].label
        else:  # the runner-up
            assert wrong == max((one for one in LABELS_3 if one != label), key=two.tuned[number].probabilities.get)
    with pytest.raises(tk.ArgumentError, match="quadrant is 'Q5'"):
        two.of("Q5")


def test_disagreement_by_separate_forwards() -> None:
    model, claims = tuned(), CLAIMS[:12]

    def judge(claim: Claim) -> str:
        return max(LABELS_3, key=lambda label: label_score(model, prompt_ids(claim), label))

    two = disagreement(model, ChatTokenizer(), claims)
    assert [one.label for one in two.tuned] == [judge(claim) for claim in claims]
    with model.disable_adapter():
        assert [one.label for one in two.backbone] == [judge(claim) for claim in claims]
    assert two.backbone != two.tuned
    other = disagreement(model, ChatTokenizer(), claims, against=base_of(tuned(seed=3)))
    assert other.tuned == two.tuned
    shifted = disagreement(model, ChatTokenizer(), claims, bias=([0, 0, 1000.0], None))
    assert {one.label for one in shifted.backbone} == {"false"}
    assert shifted.tuned == two.tuned


def last_states(model: Any, claim: Claim, answer: str) -> torch.Tensor:
    """Of each layer, shape (layers, features)."""
    ids = [*prompt_ids(claim), *map(ord, answer)]
    return torch.stack([states[-1] for states in all_states(base_of(model), ids)]).double()


def test_vertical_vectors_by_hand() -> None:
    model, two = tuned(), found(MIXED)
    vectors = reflex_vectors(model, ChatTokenizer(), two, token_budget=500)
    assert vectors.style.layers == (0, 1, 2, 3)

    on = [last_states(model, claim, "Verdict:") for claim in two.claims]
    with model.disable_adapter():
        off = [last_states(model, claim, "Verdict:") for claim in two.claims]

    def mean(quadrants: str, sign: float, layer: int) -> torch.Tensor:
        chosen = [i for i, name in enumerate(two.quadrants) if name in quadrants]
        return sign * torch.stack([on[i][layer] - off[i][layer] for i in chosen]).mean(0)

    assert vectors.shift is not None
    for layer in range(4):
        for vector, expected in (
            (vectors.style, mean("Q2", 1.0, layer)),
            (vectors.substance, mean("Q4", -1.0, layer)),
            (vectors.shift, mean("Q1Q3", 1.0, layer)),
        ):
            torch.testing.assert_close(vector[layer].double(), expected, atol=1e-4, rtol=1e-4)
        cosine = torch.nn.functional.cosine_similarity(mean("Q2", 1.0, layer), mean("Q4", -1.0, layer), dim=0)
        assert vectors.leakage()[layer] == pytest.approx(float(cosine), abs=1e-4)
    assert "auc" in vectors.style.scores[0]


def test_horizontal_vectors_by_hand() -> None:
    model, two = tuned(), found(MIXED)
    vectors = reflex_vectors(model, ChatTokenizer(), two, contrast="horizontal", through="explanation", method="mean")
    assert vectors.shift is None
    expected = torch.zeros(48, dtype=torch.float64)
    for i in two.of("Q4"):
        claim = two.claims[i]
        right, wrong = (
            last_states(model, claim, f"Verdict: {label}\nExplanation: {claim.explanation}")[2]
            for label in (claim.label, two.wrong(i))
        )
        expected += (right - wrong) / len(two.of("Q4"))
    torch.testing.assert_close(vectors.substance[2].double(), expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(tk.ArgumentError, match="there is no shift vector"):
        vectors.without_shift()


def test_orthogonal_forms() -> None:
    model, two = tuned(), found(MIXED)
    vectors = reflex_vectors(model, ChatTokenizer(), two, held_out=0, method="logistic", most=4)
    assert max(map(abs, vectors.leakage().values())) > 1e-3
    for keep, other in (("style", "substance"), ("substance", "style")):
        apart = vectors.orthogonalised(keep=keep)
        assert max(map(abs, apart.leakage().values())) < 1e-5
        assert torch.equal(getattr(apart, keep)[1], getattr(vectors, keep)[1])
        assert not torch.equal(getattr(apart, other)[1], getattr(vectors, other)[1])
    less, shift = vectors.without_shift(), vectors.shift
    assert shift is not None
    for layer in shift:
        torch.testing.assert_close(less.style[layer] + shift[layer], vectors.style[layer])
        torch.testing.assert_close(less.substance[layer] - shift[layer], vectors.substance[layer])
    with pytest.raises(tk.ArgumentError, match="keep is 'both'"):
        vectors.orthogonalised(keep="both")


def test_texts_along_vectors_by_hand() -> None:
    model, vectors = tuned(), ReflexVectors(*(tk.SteeringVector({2: torch.randn(48)}, 4) for _ in range(2)))
    prompts = [prompt_of(claim) for claim in CLAIMS[:5]]
    found = along_vectors(
        model, ChatTokenizer(), prompts, [vectors.style, vectors.substance], layer=2, token_budget=600
    )
    for row, claim in enumerate(CLAIMS[:5]):
        for column, vector in enumerate((vectors.style, vectors.substance)):
            along = last_states(model, claim, "Verdict:")[2] @ vector[2].double() / vector[2].double().norm()
            assert float(found[row, column]) == pytest.approx(float(along), abs=1e-3)


def test_the_refinement_file_is_read_back(tmp_path: Path) -> None:
    chosen = refinement_claims(found(MIXED))
    write_claims(chosen, tmp_path / "refine.jsonl")
    assert read_claims(tmp_path / "refine.jsonl", labels=LABELS_3) == chosen
    assert [path.name for path in tmp_path.iterdir()] == ["refine.jsonl"]
    write_claims([Claim("x", "Ä claim.", "half")], tmp_path / "refine.jsonl")
    assert read_claims(tmp_path / "refine.jsonl") == [Claim("x", "Ä claim.", "half")]
    with pytest.raises(tk.ArgumentError, match="nothing to write"):
        write_claims([], tmp_path / "refine.jsonl")


@pytest.mark.parametrize(("kept", "missing"), [((True, False), "Q2"), ((False, True), "Q4")])
def test_a_quadrant_without_claims(kept: tuple[bool, bool], missing: str) -> None:
    two = found([kept, (True, True), kept])
    with pytest.raises(tk.ArgumentError, match=rf"{missing}, where only .* has 0 claims.*Q1: 1.*more training claims"):
        reflex_vectors(tuned(), ChatTokenizer(), two)


def test_bad_input() -> None:
    model, two = tuned(), found(MIXED)
    with pytest.raises(tk.ArgumentError, match=r"Q2.*has 6 claims, but at least 9"):
        reflex_vectors(model, ChatTokenizer(), two, least=9)
    with pytest.raises(tk.ArgumentError, match="contrast is 'diagonal'"):
        reflex_vectors(model, ChatTokenizer(), two, contrast="diagonal")
    with pytest.raises(tk.ArgumentError, match=r"claims\[1\] has the label 'mostly-true'.*read_claims"):
        disagreement(model, ChatTokenizer(), [CLAIMS[0], Claim("1", "a", "mostly-true")])
    with pytest.raises(tk.ArgumentError, match="claims is empty"):
        disagreement(model, ChatTokenizer(), [])
    with pytest.raises(tk.ArgumentError, match=r"against='base'.*PEFT model"):
        disagreement(tiny("llama"), ChatTokenizer(), CLAIMS)
    bare = Claim("0", "a claim", "true")
    with pytest.raises(tk.ArgumentError, match="claim '0' has no evidence"):
        disagreement(model, ChatTokenizer(), [bare], Form(evidence=True))
    bare_two = Disagreement((Claim("7", "a claim", "true"),), (verdict("half"),), (verdict("true"),))
    with pytest.raises(tk.ArgumentError, match="claim '7' has no explanation; use through='verdict'"):
        horizontal_pairs(bare_two, [0], through="explanation")
    with pytest.raises(tk.ArgumentError, match="both sides are the same"):
        horizontal_pairs(bare_two, [0], through="lead")
    with pytest.raises(tk.ArgumentError, match="through is 'end'"):
        vertical_pairs(bare_two, [0], through="end")
    with pytest.raises(tk.ArgumentError, match="1 and 0 verdicts for 1 claims"):
        Disagreement((CLAIMS[0],), (verdict("true"),), ())
