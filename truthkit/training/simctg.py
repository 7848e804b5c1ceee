"""SimCTG's contrastive loss: states of different tokens of a text are pushed apart, so that they can be told apart.

Source: Y. Su and others, *A Contrastive Framework for Neural Text Generation*, arXiv 2202.06417, equation 2, and
`simctg/lossfunction.py` of their code, where the mean is over the pairs of a whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from truthkit.hf.sites import text_decoder
from truthkit.hf.wrapping import plain_model
from truthkit.training.chat import Encoded


def margin_loss(states: torch.Tensor, real: torch.Tensor, learned: torch.Tensor, margin: float) -> torch.Tensor:
    """The sum over pairs i ≠ j of each text of max(0, margin - s(h_i, h_i) + s(h_i, h_j)), s the cosine; a scalar.

    At least one token of a pair is one that is learned: what stands before an answer is compared with the answer, as
    contrastive search will do, but not with itself (ours; for a text that is learned whole it is the paper's loss).

    Args:
        states: after the final norm, as contrastive search compares them; (texts, width, features).
        real: which positions hold a token, (texts, width), bool.
        learned: which of them are part of an answer, (texts, width), bool.
        margin: the paper's ρ.
    """
    unit = torch.nn.functional.normalize(states.float(), dim=-1)
    cosines = unit @ unit.transpose(1, 2)
    own = cosines.diagonal(dim1=1, dim2=2)[..., None]
    pairs = real[:, :, None] & real[:, None, :] & (learned[:, :, None] | learned[:, None, :])
    pairs &= ~torch.eye(pairs.shape[1], dtype=torch.bool, device=pairs.device)
    return torch.where(pairs, (margin - own + cosines).relu(), 0.0).sum()


@contextmanager
def last_hidden_states(model: Any, into: list[torch.Tensor]) -> Iterator[None]:
    """Inside this block `into` gets what the text decoder hands to the output head."""
    decoder = text_decoder(plain_model(model))
    handle = decoder.register_forward_hook(lambda _module, _args, output: into.append(output.last_hidden_state))
    try:
        yield
    finally:
        handle.remove()


def pair_count(rows: Sequence[Encoded]) -> int:
    """How many pairs `margin_loss` sums over for these examples."""
    return sum(len(row.ids) * (len(row.ids) - 1) - row.start * (row.start - 1) for row in rows)
