"""Honesty of a study's statistics, on made-up outcomes: what is nothing is called nothing, what is there is found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from truthkit.evaluation.benchmark import Metric
from truthkit.statistics.intervals import (
    FloatArray,
    benjamini_hochberg,
    cluster_totals,
    holm,
    mcnemar,
    paired_bootstrap,
    ratio,
    resampled,
)
from truthkit.study.comparing import Change, Outcome, changes, drawn, equivalence, interval, randomisation
from truthkit.study.results import correct
from truthkit.study.verdicts import of_row, sentence, verdict

ACCURACY = Metric("accuracy")


def measure(totals: FloatArray) -> Mapping[str, FloatArray]:
    return {"accuracy": ratio(totals[..., 1], totals[..., 0])}


def outcome(right: Sequence[Any], clusters: Sequence[Any] | None = None) -> Outcome:
    """Right and wrong answers, one a cluster."""
    values = np.asarray(right, float)
    return Outcome(((cluster_totals(np.stack([np.ones(len(values)), values], 1), clusters), measure),), "accuracy")


def compared(rows: Sequence[Outcome], greedy: Outcome, *, margin: float = 0.02, flips: int = 10_000) -> list[Any]:
    """Every row against greedy, judged in one family; without bootstrap intervals, which no verdict needs."""
    nothing = np.zeros(2)
    found = changes(
        [(row, greedy) for row in rows], [(nothing, nothing)] * len(rows), margin=margin, share=True, flips=flips
    )
    family = [as_json(change) for change in found]
    correct(family)
    for one in family:
        one["verdict"] = verdict(one, 1, 0.05)
    return family


def as_json(change: Change, label: str = "greedy") -> dict[str, Any]:
    about = {"label": label, "difference": change.value, "smallest_detectable": change.detectable(0.05)}
    names = ("low", "high", "p", "equivalence_p")
    return about | {name: getattr(change, name) for name in names}


def flipped(right: FloatArray, share: float, rng: np.random.Generator) -> FloatArray:
    """The same answers, but for a share that is turned round whichever way: as much is gained as lost."""
    turned = rng.random(len(right)) < share
    return np.where(turned, rng.random(len(right)) < 0.5, right).astype(float)


def test_noise_gives_no_verdict_in_93_of_100_studies() -> None:
    """Two sets of seven methods that change few or many answers for nothing; one finding spoils a study.

    Why these are not the bootstrap's own p-values: see `test_the_bootstrap_finds_too_much_where_little_changes`.
    """
    spoiled = 0
    for seed in range(100):
        rng, family = np.random.default_rng(seed), []
        for items in (80, 200):
            greedy = (rng.random(items) < 0.5).astype(float)
            rows = [flipped(greedy, share, rng) for share in (0.03, 0.06, 0.1, 0.2, 0.4, 0.7, 1.0)]
            family += compared([outcome(row) for row in rows], outcome(greedy), flips=4000)
        correct(family)
        spoiled += any(verdict(one, 1, 0.05) in ("better", "worse") for one in family)
    assert spoiled <= 7, spoiled


def test_the_bootstrap_finds_too_much_where_little_changes() -> None:
    """Six of six changed answers in one direction: exactly 1 in 32, by flips too; the bootstrap says 1 in 200."""
    before, after = np.zeros(300), np.zeros(300)
    after[:6] = 1
    (own,) = compared([outcome(after)], outcome(before), flips=40_000)
    assert own["p"] == pytest.approx(2 / 2**6, abs=0.003)
    counts = [np.stack([np.ones(300), one], 1) for one in (before, after)]
    assert paired_bootstrap(*counts, measure)["accuracy"].p < 0.01


def test_flips_are_mcnemars_exact_test() -> None:
    rng = np.random.default_rng(1)
    for items, share in ((60, 0.2), (200, 0.5), (40, 1.0)):
        before = (rng.random(items) < 0.6).astype(float)
        after = np.where(rng.random(items) < 0.15, 1.0, flipped(before, share, rng))
        (own,) = compared([outcome(after)], outcome(before), flips=40_000)
        assert own["p"] == pytest.approx(mcnemar(before, after).p, abs=0.01)


def test_a_cluster_of_two_breaks_no_ties() -> None:
    clusters = [0, 0, *range(1, 299)]
    before, after = np.zeros(300), np.zeros(300)
    after[[10, 20, 30, 40]], before[50] = 1, 1
    (own,) = compared([outcome(after, clusters)], outcome(before, clusters))
    assert own["p"] == pytest.approx(mcnemar(before, after).p, abs=0.02)


def test_a_real_effect_is_found_at_the_stated_power() -> None:
    """What is called the smallest detectable difference is found in four of five samples."""
    items, gained, lost = 400, 0.12, 0.05
    found, told = 0, []
    for seed in range(300):
        draw = np.random.default_rng(seed).random(items)
        before = ((draw < 0.3) | ((draw >= 0.3) & (draw < 0.3 + lost))).astype(float)
        after = ((draw < 0.3) | (draw > 1 - gained)).astype(float)
        (own,) = compared([outcome(after)], outcome(before), flips=2000)
        found += own["verdict"] == "better"
        told.append(own["smallest_detectable"])
    z = (gained - lost) / np.sqrt((gained + lost - (gained - lost) ** 2) / items) - 1.959964
    power = 0.5 * (1 + math.erf(z / math.sqrt(2)))
    assert found / 300 == pytest.approx(power, abs=0.05)
    least = float(np.mean(told))
    assert least == pytest.approx((1.959964 + 0.841621) * math.sqrt((0.17 - 0.07**2) / items), rel=0.05)


def test_a_method_that_changes_nothing_is_equivalent() -> None:
    right = (np.random.default_rng(0).random(400) < 0.5).astype(float)
    (own,) = compared([outcome(right)], outcome(right))
    assert (own["p"], own["difference"], own["verdict"]) == (1.0, 0.0, "equivalent")
    assert own["smallest_detectable"] is None
    said = sentence("equivalent", own | {"low": 0.0, "high": 0.0}, None, ACCURACY, 0.02, 1)
    assert said.startswith("Equivalent to greedy: within 2.0 points of it (+0.0 [+0.0, +0.0] points;")


def test_few_answers_prove_no_equivalence() -> None:
    """Rule of three: 20 answers that are the same leave room for a difference in 14 %."""
    right = np.ones(20)
    (own,) = compared([outcome(right)], outcome(right))
    assert own["verdict"] == "no evidence"
    assert own["equivalence_p"] == pytest.approx(0.98**20)
    assert (
        equivalence(0.0, 0.0, 20, margin=0.14, share=True) < 0.05 < equivalence(0.0, 0.0, 19, margin=0.14, share=True)
    )


def test_equivalence_within_the_margin_only() -> None:
    """Two one-sided tests, by hand."""
    assert equivalence(0.005, 0.005, 5000, margin=0.02, share=True) == pytest.approx(0.5 * math.erfc(3 / math.sqrt(2)))
    assert equivalence(-0.02, 0.005, 5000, margin=0.02, share=True) == pytest.approx(0.5)
    assert equivalence(0.0, 0.0, 5000, margin=0.0, share=True) == 1.0
    assert equivalence(math.nan, 0.1, 5000, margin=0.02, share=True) == 1.0


def test_planted_ties_are_no_finding() -> None:
    """As many gained as lost, whatever their number: p is 1."""
    before, after = np.zeros(200), np.zeros(200)
    before[:20], after[20:40] = 1, 1
    (own,) = compared([outcome(after)], outcome(before))
    assert own["p"] == 1.0
    assert own["verdict"] == "no evidence"


def test_one_row_again_by_hand() -> None:
    """Interval, p-value and correction of a clustered ratio, with nothing of ours but its inputs."""
    rng = np.random.default_rng(3)
    clusters = rng.integers(0, 40, 150)
    asked = rng.integers(1, 5, 150)
    before, after = rng.binomial(asked, 0.5), rng.binomial(asked, 0.65)
    tables = []
    for right in (before, after):
        order = list(dict.fromkeys(clusters.tolist()))
        tables.append(np.array([[asked[clusters == c].sum(), right[clusters == c].sum()] for c in order], float))
    rows = [Outcome(((table, measure),), "accuracy") for table in tables]
    draws = drawn(rows, resamples=10_000)
    (own,) = changes([(rows[1], rows[0])], [(draws[1], draws[0])], margin=0.02, share=True, flips=10_000)

    n = len(tables[0])
    value = tables[1][:, 1].sum() / tables[1][:, 0].sum() - tables[0][:, 1].sum() / tables[0][:, 0].sum()
    assert own.value == pytest.approx(value)
    generator, differences = np.random.default_rng(99), []
    for _ in range(10_000):
        picked = generator.integers(0, n, n)
        first, second = (table[picked].sum(0) for table in tables)
        differences.append(second[1] / second[0] - first[1] / first[0])
    assert [own.low, own.high] == pytest.approx(np.quantile(differences, [0.025, 0.975]), abs=0.006)

    def share(table: FloatArray) -> float:
        return float(table[:, 1].sum() / table[:, 0].sum())

    kept = [np.delete(np.arange(n), i) for i in range(n)]
    pseudo = [[n * share(table) - (n - 1) * share(table[k]) for k in kept] for table in tables]
    d = np.subtract(pseudo[1], pseudo[0])
    flips = [abs((d * generator.choice([-1, 1], n)).sum()) >= abs(d.sum()) - 1e-9 for _ in range(10_000)]
    assert own.p == pytest.approx((1 + sum(flips)) / 10_001, abs=0.01)
    assert own.standard_error == pytest.approx(d.std(ddof=1) / n**0.5)
    assert own.standard_error == pytest.approx(np.std(differences), rel=0.1)
    h = 2 * math.asin(share(tables[1]) ** 0.5) - 2 * math.asin(share(tables[0]) ** 0.5)
    assert (own.effect, own.effect_name) == (pytest.approx(h), "h")

    counts = [np.stack([asked, right], 1) for right in (before, after)]
    ours = paired_bootstrap(*counts, measure, clusters.tolist())["accuracy"]
    assert (own.low, own.high) == pytest.approx((ours.low, ours.high))  # the study's intervals are those of `compare`


def test_corrections_by_hand() -> None:
    """Five p-values of Benjamini and Hochberg's and of Holm's kind, ties and order included."""
    p = [0.01, 0.04, 0.03, 0.005, 0.04]
    assert benjamini_hochberg(p) == pytest.approx([0.025, 0.04, 0.04, 0.025, 0.04])
    assert holm(p) == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.09])
    assert benjamini_hochberg([]) == []
    assert benjamini_hochberg([0.9, 1.0]) == [1.0, 1.0]


def test_seeds_are_averaged() -> None:
    rng = np.random.default_rng(5)
    runs = [(rng.random(50) < 0.5).astype(float) for _ in range(3)]
    several = Outcome(tuple(outcome(run).tables[0] for run in runs), "accuracy")
    assert several.value == pytest.approx(np.mean(runs))
    assert several.contributions == pytest.approx(np.mean(runs, axis=0))
    draws = drawn([several], resamples=50)[0]
    one_by_one = [resampled([outcome(run).tables[0]], resamples=50)[0]["accuracy"] for run in runs]
    assert draws == pytest.approx(np.mean(one_by_one, axis=0))


def test_what_cannot_be_known_is_said() -> None:
    """One cluster, and a metric with nothing to rest on."""
    alone = outcome([1, 1], ["a", "a"])
    assert np.isnan(interval(alone, drawn([alone], resamples=100)[0], level=0.95, share=True)).all()

    def nothing(totals: FloatArray) -> Mapping[str, FloatArray]:
        return {"accuracy": np.full(totals.shape[:-1], np.nan)}

    empty = Outcome(((np.ones((5, 1)), nothing),), "accuracy")
    (own,) = compared([empty], empty)
    assert (own["p"], own["verdict"]) == (1.0, "no evidence")
    assert randomisation(np.array([[np.nan, 1.0]])) == [1.0]
    certain = outcome(np.ones(30))
    assert interval(certain, np.ones(10), level=0.95, share=True).low == pytest.approx(0.886, abs=0.001)  # Wilson's


def test_verdicts_and_their_sentences() -> None:
    won = {"label": "greedy", "difference": 0.1, "low": 0.05, "high": 0.15, "p_holm": 0.001}
    won |= {"equivalence_p_holm": 1.0, "smallest_detectable": 0.07}
    assert verdict(won, 1, 0.05) == "better"
    assert verdict(won, -1, 0.05) == "worse"
    won["verdict"] = "better"
    tied = won | {"label": "sampling", "difference": 0.01, "p_holm": 0.5, "verdict": "no evidence"}
    assert (of_row(won, None), of_row(won, won), of_row(won, tied)) == ("better", "better", "no evidence")
    assert "but not shown to be better than its strongest control, sampling" in sentence(
        "no evidence", won, tied, ACCURACY, 0.02, 1
    )
    second = sentence("better", won, None, ACCURACY, 0.02, 2)
    assert second.startswith("Better than greedy (+10.0 [+5.0, +15.0] points, corrected p = 0.001)")
    assert second.endswith("The row was added after the test part had been read: this is look 2.")
    lost = won | {"p_holm": 0.4, "verdict": "no evidence"}
    assert "7.0 points would have been found four times in five" in sentence(
        "no evidence", lost, None, ACCURACY, 0.02, 1
    )
