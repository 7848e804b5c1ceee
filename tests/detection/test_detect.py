"""Detectors on tiny models. Oracle: a plain forward of each prompt with its answer by itself, and numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import truthkit as tk
from tests.tiny import tiny
from tests.tiny_vlm import picture, tiny_vlm, toy_tokenizer
from truthkit.detection.asked import Asked
from truthkit.detection.eigenscore import eigenscore
from truthkit.detection.lookback import Lens, fit_lens
from truthkit.detection.methods import DETECTORS
from truthkit.detection.p_true import TEMPLATE
from truthkit.detection.reading import Reader

PROMPTS = ["Who wrote it?", "A passage, then: what?", "2+2"]
ANSWERS = [" Marlowe", " no one", " 4"]
TOKENS = ("mean_log_prob", "min_log_prob", "entropy")


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def text(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """A text model that shows its attention, and a tokenizer of characters."""
    return tiny(request.param, attn_implementation="eager"), toy_tokenizer()


def forward(model: Any, tokenizer: Any, prompt: str, answer: str, **more: Any) -> tuple[Any, int, list[int]]:
    """A plain forward of one text, where its answer begins, and its tokens."""
    ids = tokenizer(prompt + answer).input_ids
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False, **more), len(ids) - len(answer), ids


def likelihoods(logits: torch.Tensor, ids: Sequence[int], start: int) -> tuple[list[float], list[float]]:
    """The log-probability of each token from `start` on, and the entropy that it was chosen from."""
    log_probs = logits[0].double().log_softmax(dim=-1)
    own = [float(log_probs[at - 1, ids[at]]) for at in range(start, len(ids))]
    return own, [float(-(log_probs[at - 1].exp() * log_probs[at - 1]).sum()) for at in range(start, len(ids))]


def expected(name: str, own: list[float], entropies: list[float]) -> tuple[list[float], float]:
    if name == "entropy":
        return entropies, sum(entropies) / len(entropies)
    minus = [-one for one in own]
    return minus, max(minus) if name == "min_log_prob" else sum(minus) / len(minus)


@pytest.mark.parametrize("side", ["left", "right"])
def test_likelihoods_are_those_of_plain_forwards_whatever_is_beside_them(text: tuple[Any, Any], side: str) -> None:
    model, tokenizer = text
    tokenizer.padding_side = side
    for name in TOKENS:
        found = tk.detect(model, tokenizer, PROMPTS, ANSWERS, method=name, raw=True)
        for one, prompt, answer in zip(found, PROMPTS, ANSWERS, strict=True):
            out, start, ids = forward(model, tokenizer, prompt, answer)
            tokens, score = expected(name, *likelihoods(out.logits, ids, start))
            assert one.score == pytest.approx(score, abs=1e-4)
            assert [token.score for token in one.tokens] == pytest.approx(tokens, abs=1e-4)
            assert [answer[token.start : token.stop] for token in one.tokens] == list(answer)
    tokenizer.padding_side = "left"


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_answers_about_images(family: str) -> None:
    vlm = tiny_vlm(family)
    mark = "<|vision_start|><image><|vision_end|>" if family == "qwen2_vl" else "<image>"
    prompts, images = [f"{mark}What?", f"{mark}And here, what?"], [[picture(40, 30, 1)], [picture(30, 44, 2)]]
    found = tk.detect(vlm.model, vlm.processor, prompts, ["A cup", "No"], images=images, raw=True)
    for one, prompt, answer, row in zip(found, ["{}What?", "{}And here, what?"], ["A cup", "No"], images, strict=True):
        inputs = vlm.inputs([prompt + answer], [row])
        ids = inputs["input_ids"][0].tolist()
        with torch.no_grad():
            logits = vlm.model(**inputs).logits
        own, _ = likelihoods(logits, ids, len(ids) - len(answer))
        assert [token.score for token in one.tokens] == pytest.approx([-value for value in own], abs=2e-4)


def test_p_true_is_asked(text: tuple[Any, Any]) -> None:
    model, tokenizer = text
    found = tk.detect(model, tokenizer, PROMPTS, ANSWERS, method="p_true", raw=True)
    for one, prompt, answer in zip(found, PROMPTS, ANSWERS, strict=True):
        question = TEMPLATE.format(prompt=prompt, answer=answer)
        sums = []
        for choice in (" (A)", " (B)"):
            out, start, ids = forward(model, tokenizer, question, choice)
            sums.append(sum(likelihoods(out.logits, ids, start)[0]))
        assert one.score == pytest.approx(1 / (1 + math.exp(sums[0] - sums[1])), abs=1e-4)
        assert one.tokens == ()


def test_lookback_ratio_is_that_of_the_attention(text: tuple[Any, Any], tmp_path: Path) -> None:
    model, tokenizer = text
    found = tk.detect(model, tokenizer, PROMPTS, ANSWERS, method="lookback", raw=True)
    context = tk.detect(
        model, tokenizer, PROMPTS[1:2], ANSWERS[1:2], method="lookback", contexts=["passage"], raw=True
    )[0]
    for one, within, prompt, answer in zip(
        [*found, context], [None, None, None, "passage"], [*PROMPTS, PROMPTS[1]], [*ANSWERS, ANSWERS[1]], strict=True
    ):
        out, start, ids = forward(model, tokenizer, prompt, answer, output_attentions=True)
        weights = torch.stack(out.attentions)[:, 0].double()  # (layers, heads, queries, keys)
        first = 0 if within is None else 1 + prompt.index(within)
        last = start if within is None else first + len(within)
        ratios = []
        for at in range(start, len(ids)):
            looked = weights[:, :, at, first:last].mean(dim=-1)
            new = weights[:, :, at, start : at + 1].mean(dim=-1)
            ratios.append(looked / (looked + new))
        tokens = [1 - float(ratio.mean()) for ratio in ratios]
        assert [token.score for token in one.tokens] == pytest.approx(tokens, abs=1e-5)
        assert one.score == pytest.approx(sum(tokens) / len(tokens), abs=1e-5)
    assert model.config._attn_implementation == "eager"


def test_lens_reads_what_it_was_fitted_on(text: tuple[Any, Any], tmp_path: Path) -> None:
    model, tokenizer = text
    asked = [Asked(f"Say {n} of {n % 7}", f" it {n * word}") for n in range(1, 11) for word in (1, 37)]
    false = [bool(i % 2) for i in range(len(asked))]
    reader = Reader(model, tokenizer, raw=True)
    lens = fit_lens(reader, asked, false, [one.prompt for one in asked], l2=0.1)
    lens.save(tmp_path / "lens.safetensors")
    found = tk.detect(
        model,
        tokenizer,
        [one.prompt for one in asked],
        [one.answer for one in asked],
        method=f"lookback:lens={tmp_path / 'lens.safetensors'}",
        raw=True,
    )
    ratios = np.stack([read.lookback.mean(axis=0) for read in reader.read(asked, lookback=True)])  # type: ignore
    odds = np.array([one.score for one in found])
    assert odds == pytest.approx((ratios * lens.weights).sum(axis=(1, 2)) + lens.intercept, abs=1e-5)
    probabilities = 1 / (1 + np.exp(-odds))
    assert probabilities.mean() == pytest.approx(0.5, abs=1e-3)  # what an intercept without penalty does
    assert ((odds > 0) == false).mean() > 0.8
    with pytest.raises(tk.ArgumentError, match="fitted on 4 layers of 4 heads, and this model has 2 layers"):
        lens.log_odds(np.zeros((3, 2, 4)))
    with pytest.raises(tk.ArgumentError, match="all answers to fit on are false"):
        fit_lens(reader, asked[:4], [True] * 4, [1, 1, 2, 2], held_out=0)
    assert Lens.load(tmp_path / "lens.safetensors").provenance["answers"] == len(asked)


def test_probe_projects_states(text: tuple[Any, Any], tmp_path: Path) -> None:
    model, tokenizer = text
    direction = torch.arange(48.0) / 10 - 2
    path = tmp_path / "probe.safetensors"
    for positions in ("answer", "last"):
        tk.SteeringVector({2: direction}, 4, provenance={"positions": positions}).save(path)
        found = tk.detect(model, tokenizer, PROMPTS, ANSWERS, method="probe", vector=path, raw=True)
        for one, prompt, answer in zip(found, PROMPTS, ANSWERS, strict=True):
            out, start, _ = forward(model, tokenizer, prompt, answer, output_hidden_states=True)
            tokens = -(out.hidden_states[3][0, start:].double() @ direction.double())
            assert [token.score for token in one.tokens] == pytest.approx(tokens.tolist(), rel=1e-4, abs=1e-3)
            score = tokens[-1] if positions == "last" else tokens.mean()
            assert one.score == pytest.approx(float(score), rel=1e-4, abs=1e-3)
    tk.SteeringVector({2: direction[:40]}, 4).save(path)
    with pytest.raises(tk.ModelError, match="40"):
        tk.detect(model, tokenizer, PROMPTS, ANSWERS, method="probe", vector=path, raw=True)


def test_agreement_leaves_the_context_out(text: tuple[Any, Any]) -> None:
    model, tokenizer = text
    contexts = ["Who ", "A passage, ", "2+"]
    options: dict[str, Any] = {"method": "agreement", "contexts": contexts, "raw": True}
    ratios = tk.detect(model, tokenizer, PROMPTS, ANSWERS, **options)
    divergences = tk.detect(model, tokenizer, PROMPTS, ANSWERS, measure="js", **options)
    for one, other, prompt, answer, context in zip(ratios, divergences, PROMPTS, ANSWERS, contexts, strict=True):
        with_it, without = (forward(model, tokenizer, text, answer) for text in (prompt, prompt.replace(context, "")))
        own, others = (likelihoods(out.logits, ids, start)[0] for out, start, ids in (with_it, without))
        wanted = [b - a for a, b in zip(own, others, strict=True)]
        assert [token.score for token in one.tokens] == pytest.approx(wanted, abs=1e-3)
        for token, at in zip(other.tokens, range(len(answer)), strict=True):
            p, q = (out.logits[0, start - 1 + at].double().softmax(-1) for out, start, _ in (with_it, without))
            middle = (p + q) / 2
            js = float((p * (p / middle).log() + q * (q / middle).log()).sum() / 2)
            assert -token.score == pytest.approx(js, abs=1e-4)


def test_eigenscore_is_that_of_numpy(text: tuple[Any, Any]) -> None:
    model, tokenizer = text
    states = np.random.default_rng(0).normal(size=(5, 48))
    covariance = np.cov(states) + 1e-3 * np.eye(5)
    assert eigenscore(states) == pytest.approx(np.linalg.slogdet(covariance)[1] / 5)
    assert eigenscore(np.ones((3, 8))) == pytest.approx(math.log(1e-3))  # all the same: nothing is divided by zero

    options: dict[str, Any] = {"method": "eigenscore:samples=3", "raw": True, "max_new_tokens": 4}
    found = tk.detect(model, tokenizer, PROMPTS, ANSWERS, **options)
    again = [tk.detect(model, tokenizer, [prompt], **options)[0] for prompt in PROMPTS]
    assert [one.score for one in found] == pytest.approx([one.score for one in again], abs=1e-5)
    drawn = Reader(model, tokenizer, raw=True, max_new_tokens=4).write(
        [Asked(PROMPTS[0], "")], count=3, temperature=0.5, top_p=0.99
    )[0]
    ends = []
    for answer in drawn:
        out, _, _ = forward(model, tokenizer, PROMPTS[0], answer, output_hidden_states=True)
        ends.append(out.hidden_states[2][0, -1].double().numpy())
    assert found[0].score == pytest.approx(
        np.linalg.slogdet(np.cov(np.stack(ends)) + 1e-3 * np.eye(3))[1] / 3, abs=1e-4
    )


def test_what_the_model_writes_is_judged(text: tuple[Any, Any]) -> None:
    model, tokenizer = text
    (one,) = tk.detect(model, tokenizer, "2+2=", raw=True, max_new_tokens=5)
    ids = tokenizer("2+2=", return_tensors="pt")
    with torch.no_grad():
        said = model.generate(**ids, max_new_tokens=5, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert one.answer == tokenizer.decode(said, skip_special_tokens=True).strip()


def test_bad_input_is_one_line(text: tuple[Any, Any]) -> None:
    model, tokenizer = text
    cases: list[tuple[dict[str, Any], str]] = [
        ({"method": "entropi"}, r"method is 'entropi' \(did you mean 'entropy'\?\)"),
        ({"method": "eigenscore:sample=3"}, "method 'eigenscore' takes no 'sample'"),
        ({"method": "eigenscore:samples=x"}, "option 'samples' of method 'eigenscore' is 'x'; expected an integer"),
        ({"method": "eigenscore", "samples": 1}, "samples is 1; expected at least 2"),
        ({"method": "probe"}, "the probe has no vector; make one with"),
        ({"answers": [" a", "", " b"]}, r"answers\[1\] is empty"),
        ({"answers": [" a", "", " b"], "method": "p_true"}, r"answers\[1\] is empty"),
        ({"answers": [" a"]}, "answers has 1 entries for 3 prompts"),
        ({"method": "agreement"}, r"answers\[0\] has no context; pass contexts="),
        ({"method": "agreement:view=vcd"}, r"answers\[0\] has no image; pass images="),
        ({"method": "agreement:view=none"}, "view is 'none'; expected"),
        (
            {"method": "lookback", "contexts": ["Who", "elsewhere", "2"]},
            r"contexts\[1\] is 'elsewhere', which does not",
        ),
        ({"method": "lookback", "contexts": ["Who", "", "2"]}, r"contexts\[1\] is ''"),
        ({"token_budget": 0}, "token_budget is 0"),
    ]
    for options, message in cases:
        given = {"answers": ANSWERS, "raw": True, **options}
        with pytest.raises(tk.ArgumentError, match=message) as error:
            tk.detect(model, tokenizer, PROMPTS, given.pop("answers"), **given)
        assert "\n" not in str(error.value)
    assert not model._forward_hooks
    assert len(DETECTORS) == 8


def test_attention_that_cannot_be_read_is_said() -> None:
    with pytest.raises(tk.ModelError, match="cannot be read or edited"):
        tk.detect(tiny("mpt"), toy_tokenizer(), ["a"], [" b"], method="lookback", raw=True)
