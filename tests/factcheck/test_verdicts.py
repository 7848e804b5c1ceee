"""Oracle: every prompt and label alone, one plain forward without batch, padding or cache; edits by a plain hook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.activations.oracle import WHERE, steered_tokens
from tests.factcheck.cases import ChatTokenizer, label_score, prompt_ids, prompt_of, toy_claims, tuned
from tests.tiny import tiny
from truthkit.factcheck.claims import LABELS_3, LABELS_6
from truthkit.factcheck.explanations import answers
from truthkit.factcheck.guide import Guide, as_guide
from truthkit.factcheck.verdicts import VerdictScorer, as_verdicts, label_bias, parse_verdict
from truthkit.likelihood.log_probabilities import log_probabilities_under
from truthkit.steering.vector import SteeringVector

CLAIMS = toy_claims(4)
PROMPTS = [prompt_of(claim) for claim in CLAIMS]


def by_hand(model: Any, edits: Any = (), labels: Sequence[str] = LABELS_3) -> torch.Tensor:
    rows = [[label_score(model, prompt_ids(claim), label, edits) for label in labels] for claim in CLAIMS]
    return torch.tensor(rows, dtype=torch.float64)


def scorer(model: Any, labels: Any = LABELS_3, **options: Any) -> VerdictScorer:
    return VerdictScorer(model, ChatTokenizer(), labels, **options)


def random_vector(layers: tuple[int, ...] = (1,), seed: int = 0, size: float = 3.0) -> SteeringVector:
    draw = torch.Generator().manual_seed(seed)
    return SteeringVector({layer: torch.randn(48, generator=draw) * size / 7 for layer in layers}, 4)


def add(vector: SteeringVector, strength: float, where: str) -> list[Any]:
    return [(layer, lambda h, layer=layer: h + strength * vector[layer], WHERE[where]) for layer in vector]


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gpt2", "opt", "bloom", "mpt", "mistral"])
def test_scores_are_those_of_separate_forwards(family: str) -> None:
    room = {"n_positions": 1024} if family == "gpt2" else {"max_seq_len": 1024} if family == "mpt" else {}
    room = room or ({} if family == "bloom" else {"max_position_embeddings": 1024})
    model = tiny(family, **room)
    expected = by_hand(model)
    for budget in (1, 700, 100_000):
        found = scorer(model, token_budget=budget).scores(PROMPTS)
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_the_real_model(smollm2: tuple[Any, Any]) -> None:
    """With labels of several tokens, and prompts read once for what steers the answer."""
    model, tokenizer = smollm2
    prompts = [prompt_of(replace(claim, text=f"{claim.text} is a city.")) for claim in toy_claims(2)]
    words = {label: label.replace("-", " ") for label in LABELS_6[1:4]}
    one = VerdictScorer(model, tokenizer, words)
    vector = SteeringVector({3: torch.randn(576, generator=torch.Generator().manual_seed(0)) / 2}, 30)
    edits = [(3, lambda h: h + 2.0 * vector[3], WHERE["generated"])]
    found = one.scores_under(prompts, [(), [Guide(vector, 2.0)]])
    for number, prompt in enumerate(prompts):
        ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
        for row, change in enumerate(((), edits)):
            expected = [
                label_score(model, ids, word, change, encode=lambda text: tokenizer(text).input_ids)
                for word in words.values()
            ]
            torch.testing.assert_close(found[row, number], torch.tensor(expected).double(), atol=2e-4, rtol=0)


def test_a_prompt_that_goes_on_as_an_answer_would() -> None:
    """No token is in the prompt of one row and in the answer of another: steering takes them apart."""
    model, vector = tiny("llama", max_position_embeddings=1024), random_vector()
    longest = [ord(letter) for letter in "Q: is it? Verdict: true, or not\n"]
    rows = [[*longest[:10], *longest[10:20], 40 + i] for i in range(3)] + [[*longest, 40 + i] for i in range(3)]
    starts, lengths = [18] * 3 + [len(longest)] * 3, [10] * 3 + [len(longest)] * 3
    sets = [[vector.steer(model, strength=s, positions="generated")] for s in (0.0, 3.0)]
    found = log_probabilities_under(model, rows, starts, sets, prompt_lengths=lengths)
    for strength, scores in zip((0.0, 3.0), found, strict=True):
        for row, start, length, score in zip(rows, starts, lengths, scores, strict=True):
            with vector.steer(model, strength=strength, positions="generated") as steering, torch.no_grad():
                steering.prompt_lengths = [length]
                log_p = model(input_ids=torch.tensor([row])).logits[0].log_softmax(-1)
            assert score == pytest.approx(sum(float(log_p[i - 1, row[i]]) for i in range(start, len(row))), abs=1e-4)


def test_six_labels_and_other_words_for_them() -> None:
    model = tiny("llama", max_position_embeddings=1024)
    words = {label: label.replace("-", " ") for label in LABELS_6}
    expected = by_hand(model, labels=list(words.values()))
    torch.testing.assert_close(scorer(model, words).scores(PROMPTS), expected, atol=1e-4, rtol=0)
    assert scorer(model, words).labels == LABELS_6


def test_the_adapter_counts_when_it_is_on() -> None:
    model = tuned()
    on, expected_on = scorer(model).scores(PROMPTS), by_hand(model)
    with model.disable_adapter():
        off, expected_off = scorer(model).scores(PROMPTS), by_hand(model)
    torch.testing.assert_close(on, expected_on, atol=1e-4, rtol=0)
    torch.testing.assert_close(off, expected_off, atol=1e-4, rtol=0)
    assert float((on - off).abs().max()) > 0.1


@pytest.mark.parametrize("positions", ["generated", "prompt", "all"])
def test_guided_scores(positions: str) -> None:
    model, vector = tiny("llama", max_position_embeddings=1024), random_vector((1, 2))
    guide = Guide(vector, -1.5, positions)
    expected = by_hand(model, add(vector, -1.5, positions))
    for budget in (1, 2000):
        found = scorer(model, token_budget=budget).scores(PROMPTS, guides=[guide])
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)
    plain = by_hand(model)
    assert float((found - plain).abs().max()) > 0.1
    several = scorer(model, token_budget=900).scores_under(PROMPTS, [(), [guide], [Guide(vector, 0.0)]])
    torch.testing.assert_close(several[1], expected, atol=2e-4, rtol=0)
    torch.testing.assert_close(several[[0, 2]], plain.expand(2, -1, -1), atol=2e-4, rtol=0)


def test_guides_act_in_turn_and_in_other_modes() -> None:
    model, first, second = tiny("llama", max_position_embeddings=1024), random_vector(), random_vector((1, 3), seed=1)
    unit = {layer: torch.nn.functional.normalize(second[layer], dim=0) for layer in second}
    edits = add(first, 2.0, "generated")
    edits += [(layer, lambda h, u=unit[layer]: h - 0.5 * (h @ u) * u, WHERE["all"]) for layer in second]
    guides = [Guide(first, 2.0), Guide(second, 0.5, "all", "project_out")]
    torch.testing.assert_close(scorer(model).scores(PROMPTS, guides=guides), by_hand(model, edits), atol=2e-4, rtol=0)
    edits = [(layer, change, WHERE["generated"]) for layer, change, _ in edits]
    guides = [Guide(first, 2.0), Guide(second, 0.5, "generated", "project_out")]
    torch.testing.assert_close(scorer(model).scores(PROMPTS, guides=guides), by_hand(model, edits), atol=2e-4, rtol=0)


@pytest.mark.parametrize("positions", ["generated", "all"])
def test_a_sweep_is_all_its_trials(positions: str) -> None:
    model, vector, other = tuned(), random_vector((0, 1, 2, 3)), random_vector((2,), seed=4)
    given = Guide(other, 1.0, positions)
    options: dict[str, Any] = {"layers": (3, 0), "strengths": (-2.0, 0.5, 4.0), "positions": positions}
    found = scorer(model, token_budget=1500).sweep(PROMPTS, vector, guides=[given], **options)
    assert found.shape == (2, 3, len(CLAIMS), 3)
    for row, layer in enumerate((3, 0)):
        for column, strength in enumerate((-2.0, 0.5, 4.0)):
            edits = add(other, 1.0, positions) + add(vector.at(layer), strength, positions)
            torch.testing.assert_close(found[row, column], by_hand(model, edits), atol=3e-4, rtol=0)


def test_the_model_is_left_as_it_was() -> None:
    model = tiny("llama", max_position_embeddings=1024)
    before = scorer(model).scores(PROMPTS)
    scorer(model).sweep(PROMPTS, random_vector(), layers=[1], strengths=[5.0])
    scorer(model).scores(PROMPTS, guides=[Guide(random_vector(), 3.0, "all")])
    assert torch.equal(scorer(model).scores(PROMPTS), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_verdicts_and_bias() -> None:
    scores = torch.tensor([[0.0, 1.0, 1.0], [2.0, 0.0, 0.0]]).double()
    first, second = as_verdicts(scores, "abc")
    assert (first.label, second.label) == ("b", "a")  # of equal ones the first
    assert sum(first.probabilities.values()) == pytest.approx(1)
    assert second.probability == pytest.approx(float(scores[1].softmax(0)[0]))
    assert [one.label for one in as_verdicts(scores, "abc", [0.0, 0.0, 5.0])] == ["c", "c"]


@pytest.mark.parametrize("prior", [None, (0.7, 0.2, 0.1)])
def test_the_bias_meets_the_prior(prior: Any) -> None:
    scores = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double() * 3 + torch.tensor([4.0, 0, -2])
    bias = label_bias(scores, prior)
    wanted = torch.tensor(prior or (1 / 3, 1 / 3, 1 / 3)).double()
    torch.testing.assert_close((scores + bias).softmax(-1).mean(0), wanted, atol=1e-6, rtol=0)
    assert float(bias.sum()) == pytest.approx(0)
    with pytest.raises(tk.ArgumentError, match="a positive share for each of the 3 labels"):
        label_bias(scores, (1.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Verdict: true", "true"),
        ("verdict: Half-True\nExplanation: false", "half-true"),
        ("  Verdict:   mostly true.", "mostly-true"),
        ("Verdict: **false**", "false"),
        ('"pants on fire"', None),
        ("Pants fire!", "pants-fire"),
        ("barely-true, because", "barely-true"),
        ("true", "true"),
        ("truely", None),
        ("true-ish", None),
        ("not true", None),
        ("Verdict: not true", None),
        ("I think it is true", None),
        ("Verdict:", None),
        ("", None),
        ("Verdict: Verdict: true", None),
        ("half", None),
    ],
)
def test_the_parser_is_strict(text: str, verdict: str | None) -> None:
    assert parse_verdict(text, LABELS_6) == verdict


def test_answers_with_a_settled_beginning() -> None:
    model, vector = tiny("llama", max_position_embeddings=1024), random_vector()
    heads = ["Verdict: true", "Verdict: half, or so", "", "V", "Verdict: false", "Verdict: true"]
    asked = toy_claims(len(heads))
    prompts = [prompt_of(claim) for claim in asked]
    found = answers(model, ChatTokenizer(), prompts, heads=heads, max_new_tokens=5, token_budget=600)
    for text, head, claim in zip(found, heads, asked, strict=True):
        prompt = [*prompt_ids(claim), *map(ord, head)]
        new = steered_tokens(model, prompt, {}, WHERE["all"], 5)
        assert text == (head + ChatTokenizer().decode(new, skip_special_tokens=True)).strip()
    # The settled beginning counts as generated: steering it changes what follows.
    found = answers(model, ChatTokenizer(), PROMPTS[:1], heads=heads[:1], guides=[Guide(vector, 2.0)], max_new_tokens=5)
    begun, start = [*prompt_ids(CLAIMS[0]), *map(ord, heads[0])], len(prompt_ids(CLAIMS[0]))
    new = steered_tokens(model, begun, {1: 2.0 * vector[1]}, lambda _p, length: range(start, length), 5)
    assert found[0] == (heads[0] + ChatTokenizer().decode(new, skip_special_tokens=True)).strip()


def test_bad_input() -> None:
    model = tiny("llama", max_position_embeddings=300)
    for labels in (["true"], ["true", "  "], []):
        with pytest.raises(tk.ArgumentError, match="two or more different label words"):
            scorer(model, labels)
    with pytest.raises(tk.ArgumentError, match=r"label 'true' begins label 'trueish'.*labels=\{label: words\}"):
        scorer(model, ["true", "trueish"]).scores(PROMPTS)
    with pytest.raises(tk.ArgumentError, match="lead is ' '"):
        scorer(model, lead=" ")
    with pytest.raises(tk.ArgumentError, match="prompts is empty"):
        scorer(model).scores([])
    with pytest.raises(tk.ArgumentError, match="the prompt is empty"):
        scorer(model).scores([[]])
    long = prompt_of(toy_claims(1)[0])
    long[1] = {"role": "user", "content": "x" * 300}
    with pytest.raises(tk.ArgumentError, match=r"prompts\[1\] with its verdict has \d+ tokens.*room for 300"):
        scorer(model).scores([PROMPTS[0], long])
    with pytest.raises(tk.ArgumentError, match=r"prompts\[0\] with its answer has \d+ tokens.*max_new_tokens"):
        answers(model, ChatTokenizer(), PROMPTS[:1], max_new_tokens=200)
    with pytest.raises(tk.ArgumentError, match="2 heads for 1 prompts"):
        answers(model, ChatTokenizer(), PROMPTS[:1], heads=["a", "b"])
    wrong = SteeringVector({0: torch.ones(7)}, 4)
    with pytest.raises(tk.ModelError, match="7 features"):
        scorer(model).scores(PROMPTS, guides=[Guide(wrong)])
    assert not any(module._forward_hooks for module in model.modules())


def test_a_guide_survives_its_file(tmp_path: Any) -> None:
    guide = Guide(random_vector((2,)), -3.5, ("prompt", "generated"), "project_out")
    guide.save(tmp_path / "v.safetensors")
    read = Guide.load(tmp_path / "v.safetensors")
    assert (read.strength, read.positions, read.mode) == (-3.5, ("prompt", "generated"), "project_out")
    assert torch.equal(read.vector[2], guide.vector[2])
    assert as_guide(random_vector((2,))).strength == 1.0
    with pytest.raises(tk.ArgumentError, match="does not say which layer"):
        as_guide(random_vector((1, 2)))
    with pytest.raises(tk.ArgumentError, match="holds a str"):
        as_guide("v.safetensors")
