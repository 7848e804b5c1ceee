"""Independent accounts of reading and steering: batch 1, no padding, no cache, plain hooks written out by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch

Where = Callable[[int, int], Iterable[int]]
"""Maps prompt length and present length of a text to the tokens that are meant."""

WHERE: dict[str, Where] = {
    "all": lambda _prompt, length: range(length),
    "prompt": lambda prompt, _length: range(prompt),
    "generated": lambda prompt, length: range(prompt, length),
    "last": lambda prompt, _length: [prompt - 1],
}


_BLOCKS = (
    "model.layers",
    "transformer.h",
    "gpt_neox.layers",
    "model.decoder.layers",
    "transformer.blocks",
    "model.language_model.layers",
    "model.text_model.layers",
    "language_model.model.layers",
)


def block_list(model: Any) -> Any:
    """The decoder blocks, by the name that each architecture gives them."""
    for path in _BLOCKS:
        found = model
        for name in path.split("."):
            found = getattr(found, name, None)
        if found is not None:
            return found
    raise AssertionError(type(model).__name__)


def unpadded(batch: dict[str, torch.Tensor]) -> list[list[int]]:
    """Each row's token ids."""
    return [ids[mask.bool()].tolist() for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]


def all_states(model: Any, ids: list[int]) -> list[torch.Tensor]:
    """The output of each block, (tokens, features)."""
    seen: list[torch.Tensor] = []

    def look(_module: Any, _args: Any, output: Any) -> None:
        seen.append((output[0] if isinstance(output, tuple) else output)[0])

    with ExitStack() as stack, torch.no_grad():
        for block in block_list(model):
            stack.callback(block.register_forward_hook(look).remove)
        model(input_ids=torch.tensor([ids]), use_cache=False)
    return seen


def states(model: Any, ids: list[int], layer: int) -> torch.Tensor:
    """The output of block `layer`, (tokens, features)."""
    return all_states(model, ids)[layer]


def steered_tokens(
    model: Any,
    prompt: list[int],
    vectors: dict[int, torch.Tensor],
    where: Where,
    count: int,
    change: Any = None,
    likely: Sequence[int] = (),
) -> list[int]:
    """Greedy tokens; `change(h, v)` is what happens to one state, by default h + v.

    One whole forward for each token, and one for all of the `likely` ones that come out: `where` must choose among the
    tokens before a text's end as it would without what follows them.
    """
    change = change or (lambda h, v: h + v)

    def edit(vector: torch.Tensor, length: int) -> Any:
        def hook(_module: Any, _args: Any, output: Any) -> Any:
            hidden = (output[0] if isinstance(output, tuple) else output).clone()
            for at in where(len(prompt), length):
                hidden[0, at] = change(hidden[0, at], vector)
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        return hook

    def choices(text: list[int]) -> list[int]:
        """After each token of a text from the prompt's last on."""
        with ExitStack() as stack, torch.no_grad():
            for layer, vector in vectors.items():
                handle = block_list(model)[layer].register_forward_hook(edit(vector.to(model.dtype), len(text)))
                stack.callback(handle.remove)
            logits = model(input_ids=torch.tensor([text]), use_cache=False).logits[0]
        return logits[len(prompt) - 1 :].argmax(-1).tolist()

    found: list[int] = []
    if likely:
        for chosen, guess in zip(choices([*prompt, *likely[: count - 1]]), likely, strict=True):
            found.append(chosen)
            if chosen != guess:
                break
    while len(found) < count:
        found.append(choices([*prompt, *found])[-1])
    return found


def right_padded(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same rows with the padding behind."""
    rows = unpadded(batch)
    width = batch["input_ids"].shape[1]
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows])}
