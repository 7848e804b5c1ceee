"""A second account of steering: one row at a time, a whole forward for every token, no cache, plain hooks.

`Steered` is a language model whose next-token logits come from such forwards, so Hugging Face's own `generate` decodes
with it in any mode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
import torch

from tests.activations.oracle import unpadded
from tests.decoding.oracle import Oracle

Change = Callable[[torch.Tensor], torch.Tensor]
"""Makes a module's output, (tokens, features), into what takes its place."""

FAMILIES = ("llama", "gpt2", *(pytest.param(one, marks=pytest.mark.slow) for one in ("qwen2", "gemma2")))
"""For each method all of these; `make test` takes two."""

SHORT = {"max_new_tokens": 24, "return_dict_in_generate": True, "output_logits": True}
MODES: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True, "top_k": 0},
    "beams": {"do_sample": False, "num_beams": 3, "num_return_sequences": 2},
}


def logits_with(model: Any, ids: list[int], changes: Mapping[Any, Change], **inputs: Any) -> torch.Tensor:
    """All logits of one text, (tokens, vocabulary), with the outputs of modules changed."""

    def hook(change: Change) -> Any:
        def act(_module: Any, _args: Any, output: Any) -> Any:
            first = output[0] if isinstance(output, tuple) else output
            made = change(first.reshape(-1, first.shape[-1])).view_as(first)
            return (made, *output[1:]) if isinstance(output, tuple) else made

        return act

    with ExitStack() as stack, torch.no_grad():
        for module, change in changes.items():
            stack.callback(module.register_forward_hook(hook(change)).remove)
        return model(input_ids=torch.tensor([ids]), use_cache=False, **inputs).logits[0]


class Steered(Oracle):
    """`account(prompt, continuation)` gives the logits after each of a text's tokens, (tokens, vocabulary)."""

    def __init__(self, model: Any, account: Callable[[list[int], list[int]], torch.Tensor]):
        super().__init__(model)
        self.account = account

    def scores(self, prompt: list[int], continuation: list[int], last: int) -> list[torch.Tensor]:
        return list(self.account(prompt, continuation)[-last:])


def decode(model: Any, batch: Any, mode: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return model.generate(**batch, **SHORT, **MODES[mode], **options)


def same(found: Any, expected: Any) -> None:
    """The same tokens, and scores within 1e-4 of the largest."""
    assert found.sequences.tolist() == expected.sequences.tolist()
    for a, b in zip(found.logits, expected.logits, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))


def check(model: Any, block: Any, account: Any, batch: Any, mode: str, **options: Any) -> Any:
    """What the model says within `block` is what the oracle says; returned for more to be asked of it."""
    with block:
        found = decode(model, batch, mode, **options)
    oracle = Steered(model, account)
    oracle.prepare_likely(found.sequences, batch["attention_mask"])
    same(found, decode(oracle, batch, mode))
    return found


__all__ = ["MODES", "Steered", "check", "decode", "logits_with", "same", "unpadded"]
