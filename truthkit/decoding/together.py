"""Several decoders at once: the views of all of them in one forward, their differences added up."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.pictures import Pictures
from truthkit.decoding.engine.processor import DecoderLogitsProcessor
from truthkit.decoding.engine.row_group import ViewLogits
from truthkit.errors import ArgumentError


class Together(Decoder):
    """Combine decoders of one model, as in `tk.RITUAL(...) + tk.VCD(...)`.

        s = l + Σ_m (s_m − l),   then the strictest of the decoders' plausibility constraints

    Each decoder adds what it changes in the model's own logits, so a term such as RITUAL's `alpha · l(T(V))` or VCD's
    `alpha · (l(V) − l(V_noisy))` comes out as it stands in its formula. RITUAL with VCD or M3ID was reported, but the
    released code can't do it: the form is ours.

    Args:
        decoders: two or more for the same model, none of them attached.
        beta: plausibility cut-off in (0, 1], 0 for none; by default the largest of theirs.

    Raises:
        ArgumentError: fewer than two, or for different models.
    """

    def __init__(self, *decoders: Decoder, beta: float | None = None):
        if len(decoders) < 2 or any(decoder.front is not decoders[0].front for decoder in decoders):
            raise ArgumentError("Together takes two or more decoders that were built for the same model.")
        self.decoders = decoders
        first = decoders[0]
        if any(decoder.norm != first.norm for decoder in decoders if decoder.layers):
            raise ArgumentError("decoders that read early exits with and without the final norm cannot be combined.")
        super().__init__(
            first.front,
            [view for decoder in decoders for view in decoder.views[1:]],
            layers=sorted({layer for decoder in decoders for layer in decoder.layers}),
            beta=max(decoder.beta for decoder in decoders) if beta is None else beta,
            norm=next((decoder.norm for decoder in decoders if decoder.layers), True),
        )

        for decoder in decoders:
            decoder.host = self

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        rest, scores = iter(views), main.logits
        for decoder in self.decoders:
            own = [self._as_seen_by(decoder, next(rest)) for _ in decoder.views[1:]]
            scores = scores + (decoder.combine(self._as_seen_by(decoder, main), *own) - main.logits)
        return scores

    def _as_seen_by(self, decoder: Decoder, view: ViewLogits) -> ViewLogits:
        """The view with the early exits that `decoder` asked for."""
        if view.exits is None or decoder.layers == self.layers:
            return view
        exits = view.exits[_places(decoder.layers, self.layers)] if decoder.layers else None
        return ViewLogits(view.logits, exits, view.step)


class TogetherLogitsProcessor(DecoderLogitsProcessor, decoder=Together):
    """`Together` as one entry of an existing `logits_processor=[...]` list.

    Args:
        decoders, beta: as in `Together`.
        attention_mask: the prompt's 2-D mask; None takes leading pad tokens for padding.
        pictures: the prompts' images, for image-text models; by default those of the first decoder that has some.
    """

    def __init__(
        self,
        *decoders: Decoder,
        beta: float | None = None,
        attention_mask: torch.Tensor | None = None,
        pictures: Pictures | None = None,
    ):
        known = (getattr(decoder, "pictures", None) for decoder in decoders)
        pictures = next((some for some in known if some is not None), None) if pictures is None else pictures
        self.follow(Together(*decoders, beta=beta), attention_mask, pictures)


def _places(some: Sequence[int], among: Sequence[int]) -> list[int]:
    return [among.index(layer) for layer in some]
