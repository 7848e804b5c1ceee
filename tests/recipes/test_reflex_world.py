"""The world by its own rules; the steps with planted quadrants and hardly any training; and, slow, the whole recipe."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from recipes import reflex_world as recipe
from truthkit.factcheck.claims import LABELS_3, Claim
from truthkit.factcheck.dialogue import Form
from truthkit.factcheck.disagreement import Disagreement
from truthkit.factcheck.gains import Gains
from truthkit.factcheck.guide import Guide
from truthkit.factcheck.verdicts import Verdict
from truthkit.steering.vector import SteeringVector

BRIEFLY = ("--persons", "10", "--steps", "12", "--tuning-steps", "4")
WORLD = recipe.World.drawn(3, 10)


def truths(claim: Claim) -> list[bool]:
    """Which things said in a claim are so, from its words."""
    person, _, rest = claim.text.partition(" ")
    said = [part.split() for part in rest.split(" and ")]
    return [WORLD.facts[person, topic] == value for topic, value in said]


def test_every_claim_is_in_its_group() -> None:
    draw = random.Random(0)
    for person in WORLD.persons:
        claims = WORLD.claims_of(person, draw)
        assert [len(claims[group]) for group in recipe.GROUPS] == [6, 2, 2, 2, 4]
        texts = [claim.text for of in claims.values() for claim in of]
        assert len(set(texts)) == len(texts)
        for group, of in claims.items():
            for claim in of:
                right = truths(claim)
                assert claim.label == {0: "false", len(right): "true"}.get(sum(right), "half")
                assert len(right) == (2 if group in ("gain", "compound") else 1)
                assert (claim.label == "half") == (group == "gain")
                assert any(topic in claim.text for topic in ("drives", "plays")) == (group in ("loss", "doubted"))
        assert {claim.label for claim in claims["loss"]} == {"true"}
        assert {claim.label for claim in claims["doubted"]} == {"false"}
        assert {claim.label for claim in claims["compound"]} == {"true", "false"}


def test_persons_are_split_and_the_loss_is_planted() -> None:
    splits = recipe.split_persons(WORLD, seed=3)
    persons = {
        name: {recipe.person_of(claim) for claims in split.values() for claim in claims}
        for name, split in splits.items()
    }
    assert [len(persons[name]) for name in ("train", "choose", "test")] == [4, 2, 4]
    assert not persons["train"] & persons["choose"]
    assert not persons["test"] & (persons["train"] | persons["choose"])
    learnt = {claim.id: claim.label for claim in recipe.tuning_claims(splits["train"])}
    assert {learnt[claim.id] for claim in splits["train"]["loss"]} == {"false"}
    assert all(
        learnt.get(claim.id, claim.label) == claim.label
        for group, claims in splits["train"].items()
        for claim in claims
        if group != "loss"
    )
    assert sum(claim.id in learnt for claim in splits["train"]["gain"]) == 8


def test_a_dialogue_is_one_token_a_word() -> None:
    tokenizer = recipe.make_tokenizer(WORLD)
    person = WORLD.persons[0]
    claim = Claim("0", f"{person} likes tea and wears red", "true")
    plain, careful = (recipe.said(tokenizer, claim, "half", careful=careful) for careful in (False, True))
    words = tokenizer.convert_ids_to_tokens(careful)
    assert " ".join(words) == (
        f"<user> Claim : {person} likes tea and wears red Give your careful verdict . <end> "
        "<assistant> Verdict : half <end>"
    )
    words.remove("careful")
    assert tokenizer.convert_ids_to_tokens(plain) == words


@pytest.fixture(scope="module")
def bench() -> recipe.Bench:
    tokenizer = recipe.make_tokenizer(WORLD)
    model = recipe.make_backbone(WORLD, tokenizer, 0, steps=2, width=16, rows=4)
    return recipe.Bench(model, tokenizer, recipe.split_persons(WORLD, seed=3), margin=0.05)


def test_the_choice_for_a_group_keeps_to_the_margin(bench: recipe.Bench) -> None:
    groups = [group for group, claims in bench.splits["choose"].items() for _ in claims]
    strengths = (-1.0, 1.0, 2.0)
    gain = {  # by strength
        "gain": (0.9, 0.1, 0.5),
        "kept": (0.0, -0.04, -0.06),
    }
    steered = torch.tensor([[[gain.get(group, (0.0,) * 3)[at] for group in groups] for at in range(3)]]).double()
    unsteered, weights = torch.zeros(len(groups)).double(), torch.ones(len(groups)).double() / len(groups)
    guide = Guide(SteeringVector({2: torch.ones(16)}, 4), 0.0)
    gains = Gains((2,), strengths, unsteered, steered, weights, guide)
    chosen = bench.own_choice(gains, "gain")
    assert (chosen.vector.layers, chosen.strength) == ((2,), 1.0)  # -1 is no amplification, 2 costs "kept" 0.06
    assert bench.own_choice(gains, "loss").strength == 0.0  # nothing to gain


def test_p_gold_is_paired_by_person(bench: recipe.Bench) -> None:
    before = torch.zeros(len(bench.splits["test"]["gain"]), dtype=torch.float64)
    shift = torch.linspace(0.1, 0.3, len(before), dtype=torch.float64)
    found = bench.compare("gain", before, before + shift)
    assert found["value"] == pytest.approx(0.2)
    assert 0.1 < found["low"] < 0.2 < found["high"] < 0.3
    assert found["p"] < 0.001
    assert bench.compare("gain", before, before)["p"] == 1.0
    assert {group: len(values) for group, values in bench.before.items()} == {
        group: len(claims) for group, claims in bench.splits["test"].items()
    }


def planted(_model: Any, _tokenizer: Any, claims: Sequence[Claim], _form: Form) -> Disagreement:
    """The disagreement of two models that do what the recipe plants."""

    def verdict(label: str) -> Verdict:
        return Verdict(label, {one: 0.8 if one == label else 0.1 for one in LABELS_3})

    lost = [claim.label == "true" and ("drives" in claim.text or "plays" in claim.text) for claim in claims]
    backbone = [verdict("false" if claim.label == "half" else claim.label) for claim in claims]
    tuned = [verdict("false" if one else claim.label) for claim, one in zip(claims, lost, strict=True)]
    return Disagreement(tuple(claims), tuple(backbone), tuple(tuned))


@pytest.mark.slow
def test_its_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(recipe, "disagreement", planted)
    command = ["--out", str(tmp_path), *BRIEFLY, "--draws", "2"]
    assert recipe.main(command) == 0
    file = tmp_path / "seed-0" / "world.json"
    result = json.loads(file.read_text())
    assert result["quadrants"]["gain"] == {"Q1": 0, "Q2": 24, "Q3": 0, "Q4": 0}
    assert result["quadrants"]["loss"]["Q4"] == 8
    assert [(row["contrast"], row["vector"], row["target"]) for row in result["rows"]] == [
        (contrast, *pair) for contrast in recipe.CONTRASTS for pair in recipe.TARGETS.items()
    ]
    assert all(len(row["random"]) == 2 and set(row["change"]) == set(recipe.GROUPS) for row in result["rows"])
    assert (tmp_path / "seed-0" / "world.png").stat().st_size > 5000
    assert "quadrants of the training claims" in capsys.readouterr().out

    # A second world: the first is kept, and both are summed up.
    made = file.stat().st_mtime_ns
    assert recipe.main([*command, "--seeds", "0", "1"]) == 0
    assert file.stat().st_mtime_ns == made
    assert "mean over 2 worlds" in capsys.readouterr().out
    summary = json.loads((tmp_path / "worlds.json").read_text())
    assert (tmp_path / "worlds.png").stat().st_size > 5000
    other = json.loads((tmp_path / "seed-1" / "world.json").read_text())
    for row, *rows in zip(summary["rows"], result["rows"], other["rows"], strict=True):
        values = [one["over_random"]["value"] for one in rows]
        assert row["over_random"]["values"] == values
        assert row["over_random"]["mean"] == pytest.approx(sum(values) / 2, abs=1e-4)
        assert row["over_random"]["standard_error"] == pytest.approx(abs(values[0] - values[1]) / 2, abs=1e-4)
        assert row["over_random"]["above"] == sum(value > 0 for value in values)

    # Other settings: made anew.
    assert recipe.main([*command, "--margin", "0.2"]) == 0
    assert json.loads(file.read_text())["margin"] == 0.2


def test_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def as_good(model: Any, tokenizer: Any, claims: Sequence[Claim], form: Form) -> Disagreement:
        found = planted(model, tokenizer, claims, form)
        return Disagreement(found.claims, found.backbone, found.backbone)

    monkeypatch.setattr(recipe, "disagreement", as_good)
    assert recipe.main(["--out", str(tmp_path), *BRIEFLY]) == 2
    assert "Q2, where only the fine-tuned model is right, has 0 claims" in " ".join(capsys.readouterr().out.split())


def test_too_few_persons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert recipe.main(["--out", str(tmp_path), "--persons", "4"]) == 2
    assert "persons is 4; expected 5 to 48" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_each_vector_does_what_it_is_for(tmp_path: Path) -> None:
    assert recipe.main(["--out", str(tmp_path), "--seeds", "1", "--draws", "3"]) == 0
    result = json.loads((tmp_path / "seed-1" / "world.json").read_text())
    assert result["careful_backbone"] > 0.9
    assert result["quadrants"]["gain"]["Q1"] == result["quadrants"]["loss"]["Q2"] == 0
    for group, quadrant in (("gain", "Q2"), ("loss", "Q4")):
        counts = result["quadrants"][group]
        assert counts[quadrant] > sum(counts.values()) / 2
    for row in result["rows"]:
        if row["contrast"] == "less shift":
            for one in (row["change"][row["target"]], row["over_random"], row["over_rival"]):
                assert one["value"] > 0
                assert one["p"] < 0.05
            assert min(change["value"] for change in row["change"].values()) > -2 * result["margin"]
