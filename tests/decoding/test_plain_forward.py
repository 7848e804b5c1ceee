"""`model(...)` under a decoder, as scoring code calls it.

The oracle gives one position at a time; a forward must return its scores at every position that the views share.
"""

from __future__ import annotations

import inspect

import pytest
import torch

import truthkit as tk
from tests.decoding.cases import CASES, Bench, tiny_bench
from tests.decoding.test_decoders import decode

SOME = ("icd-adapter", "icd-prompt", "icd-model-prompt", "lol-adapter-refocus", "dola-list")
ANSWER = 6


@pytest.fixture(scope="module", params=["llama", "gemma3_text", "gpt2"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(request.param, tmp_path_factory.mktemp("adapter"), dtype=torch.float64)


def expected(bench: Bench, name: str, row: int, positions: int) -> torch.Tensor:
    """The oracle's scores after each of the last `positions` tokens of a prompt, shape (positions, vocabulary)."""
    prompt = bench.inputs["input_ids"][row][bench.inputs["attention_mask"][row].bool()].tolist()
    oracle = bench.oracle(CASES[name])
    return torch.stack(oracle.scores(prompt, [], positions))


def positions_of(mask: torch.Tensor) -> torch.Tensor:
    return (mask.cumsum(dim=1) - 1).clamp_min(0)


@pytest.mark.parametrize("name", SOME)
class TestForward:
    def test_all_positions(self, bench: Bench, name: str) -> None:
        with CASES[name].attached(bench, 1), torch.no_grad():
            logits = bench.model(bench.rows(1)["input_ids"]).logits
        assert logits.shape == (1, 9, 128)
        torch.testing.assert_close(logits[0, -4:], expected(bench, name, 0, 4), atol=1e-5, rtol=1e-5)

    def test_padded_batch(self, bench: Bench, name: str) -> None:
        inputs = bench.rows(4)
        inputs["position_ids"] = positions_of(inputs["attention_mask"])
        with CASES[name].attached(bench, 4), torch.no_grad():
            logits = bench.model(**inputs).logits
        for row in range(4):
            want = expected(bench, name, row, 2)
            torch.testing.assert_close(logits[row, -2:], want, atol=1e-5, rtol=1e-5)

    def test_logits_to_keep(self, bench: Bench, name: str) -> None:
        """As a number of positions or as their indices."""
        ids = bench.rows(1)["input_ids"]
        last = ids.shape[1]
        with CASES[name].attached(bench, 1), torch.no_grad():
            whole = bench.model(ids).logits
            for keep, kept in ((1, [-1]), (3, [-3, -2, -1]), (torch.tensor([last - 3, last - 1]), [-3, -1])):
                some = bench.model(ids, logits_to_keep=keep).logits
                torch.testing.assert_close(some, whole[:, kept], atol=1e-9, rtol=1e-9)

    def test_step_by_step_with_a_cache(self, bench: Bench, name: str) -> None:
        """A hand-written loop: prompt first, then one or two tokens at a time."""
        inputs = bench.rows(1)
        ids = decode(bench.oracle(CASES[name]), inputs).sequences
        want = torch.stack(decode(bench.oracle(CASES[name]), inputs).logits, dim=1)
        prompt = inputs["input_ids"].shape[1]
        with CASES[name].attached(bench, 1), torch.no_grad():
            out = bench.model(ids[:, :prompt], use_cache=True)
            steps = [out.logits[:, -1:]]
            for start, stop in ((prompt, prompt + 1), (prompt + 1, prompt + 3), (prompt + 3, prompt + 4)):
                out = bench.model(ids[:, start:stop], cache=out.cache)
                steps.append(out.logits)
            cache = out.cache
        torch.testing.assert_close(torch.cat(steps, dim=1), want.double(), atol=1e-5, rtol=1e-5)
        with torch.no_grad():  # and the cache is the model's own afterwards
            mine = bench.model(ids[:, prompt + 4 :], cache=cache).logits[:, -1]
            theirs = bench.model(ids).logits[:, -1]
        torch.testing.assert_close(mine, theirs, atol=1e-9, rtol=1e-9)

    def test_tuple_and_positional_arguments(self, bench: Bench, name: str) -> None:
        inputs = bench.rows(4)
        names = list(inputs)
        with CASES[name].attached(bench, 4), torch.no_grad():
            want = bench.model(**inputs).logits
            first, *_ = bench.model(**inputs, return_dict=False)
            order = list(inspect.signature(bench.model.forward).parameters)
            places = [inputs.get(argument) for argument in order[: max(map(order.index, names)) + 1]]
            placed = bench.model(*places).logits
        assert torch.equal(first, want)
        assert torch.equal(placed, want)


class TestRefused:
    def test_labels(self, bench: Bench) -> None:
        ids = bench.rows(1)["input_ids"]
        with (
            CASES["icd-adapter"].attached(bench, 1),
            pytest.raises(tk.ArgumentError, match="labels cannot be given under ICD"),
        ):
            bench.model(ids, labels=ids)

    def test_gradients_flow(self, bench: Bench) -> None:
        """Nothing is detached: the combined logits can be differentiated by the embeddings."""
        embeddings = bench.model.get_input_embeddings()(bench.rows(1)["input_ids"]).detach().requires_grad_()
        with CASES["lol-static"].attached(bench, 1):
            bench.model(inputs_embeds=embeddings).logits[0, -1].softmax(-1).square().sum().backward()
        assert embeddings.grad is not None
        assert embeddings.grad.abs().sum() > 0
