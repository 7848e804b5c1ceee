"""A decoder whose strengths are each row's own, for batches of prompts that want them otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from truthkit.decoding.engine.arithmetic import plausible
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.session import Session
from truthkit.decoding.engine.view import ViewLogits
from truthkit.errors import ArgumentError


class ByRow(Decoder):
    """Decoders that differ in their `strengths` alone, each for its own prompt of a batch.

    The views are those of the first, read once for all; every row's scores are then combined, and constrained, as its
    own decoder does it.

    Args:
        decoders: one for each prompt, of one class and for one model, built with the same other options; the same
            object may stand for many. A prompt may be several rows next to each other, as its beams are.

    Raises:
        ArgumentError: there are none, or they are not alike.
    """

    def __init__(self, decoders: Sequence[Decoder]):
        if not decoders:
            raise ArgumentError("decoders is empty; pass one for each prompt.")
        first = decoders[0]
        for one in decoders:
            if type(one) is not type(first) or one.front is not first.front or _others(one) != _others(first):
                raise ArgumentError(
                    f"decoders are {first!r} and {one!r}; expected one class, one model, and no difference but in "
                    f"{', '.join(sorted(first.strengths))}."
                )
        self.decoders = tuple(decoders)
        super().__init__(
            first.front,
            first.views[1:],
            layers=first.layers,
            norm=first.norm,
            attention=first.views[0].attention,
            prompt_exits=first.prompt_exits,
        )
        self.compiled, self.of_whole_prompt, self.steers = first.compiled, first.of_whole_prompt, first.steers

    def beside(self, session: Session) -> Sequence[AbstractContextManager[Any]]:
        return self.decoders[0].beside(session)

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        rows = len(main.logits)
        if rows % len(self.decoders):
            raise ArgumentError(
                f"there are {rows} rows for {len(self.decoders)} decoders; expected one for each prompt."
            )
        each, scores = rows // len(self.decoders), main.logits.clone()
        for decoder in dict.fromkeys(self.decoders):
            own = [row for row in range(rows) if self.decoders[row // each] is decoder]
            here, *others = (_rows(view, own) for view in (main, *views))
            scores[own] = plausible(decoder.combine(here, *others), here.logits, decoder.beta)
        return scores


def _others(decoder: Decoder) -> dict[str, Any]:
    return {key: value for key, value in decoder.options.items() if key not in decoder.strengths}


def _rows(view: ViewLogits, rows: list[int]) -> ViewLogits:
    exits, entropies = (None if some is None else some[:, rows] for some in (view.exits, view.prompt_entropies))
    return ViewLogits(view.logits[rows], exits, view.step, entropies)
