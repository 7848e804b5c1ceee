"""The states of the texts of pairs, each read from its side's model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from truthkit.activations.capture import read_texts
from truthkit.activations.positions import Positions
from truthkit.errors import ArgumentError
from truthkit.hf.sites import site_width
from truthkit.hf.wrapping import plain_model
from truthkit.steering.extraction.encoding import EncodedPairs
from truthkit.text.tokens import batches

Other = Any
"""The model of the negative sides: a model, "base" (adapters off), or the name of a loaded adapter."""


class Reading:
    """Reads the states of any texts of the encoded pairs, each from its side's model."""

    def __init__(
        self,
        model: Any,
        plain: Any,
        processor: Any,
        encoded: EncodedPairs,
        layers: tuple[int, ...],
        positions: Positions,
        site: str,
        against: Other,
    ):
        self.encoded, self.plain, self._model = encoded, plain, model
        self._options: dict[str, Any] = {"layers": layers, "positions": positions, "site": site, "processor": processor}
        self._against = against
        if isinstance(against, str) and not hasattr(model, "peft_config"):
            raise ArgumentError(f"against={against!r} names an adapter, but this model has none; pass a model.")
        if isinstance(against, str) and against != "base" and against not in model.peft_config:
            raise ArgumentError(
                f"against={against!r}; the model's adapters are {sorted(model.peft_config)}, or use 'base'."
            )

    def batches(self, texts: Sequence[int], budget: int, *, whole_pairs: bool) -> list[list[int]]:
        """Text numbers in batches of at most `budget` padded tokens, sorted by length; pairs kept together if asked."""
        length = self.encoded.ids.length
        units = [[text, text + 1] for text in texts[::2]] if whole_pairs else [[text] for text in texts]
        sizes = [len(unit) * max(map(length, unit)) for unit in units]
        return [[text for number in batch for text in units[number]] for batch in batches(sizes, budget)]

    def read(self, texts: list[int]) -> torch.Tensor:
        """(layers, texts, features)."""
        if self._against is None:
            return self._read(self.plain, texts)
        first = self._read(self.plain, [text for text in texts if text % 2 == 0])
        second = self._read_against([text for text in texts if text % 2])
        order = [text for text in texts if text % 2 == 0] + [text for text in texts if text % 2]
        back = torch.tensor([order.index(text) for text in texts])
        return torch.cat([first.cpu(), second.cpu()], dim=1)[:, back]

    def _read(self, model: Any, texts: list[int]) -> torch.Tensor:
        if not texts:
            return torch.zeros(len(self._options["layers"]), 0, site_width(model, self._options["site"]))
        text_config = model.config.get_text_config(decoder=True)
        if getattr(text_config, "use_bidirectional_attention", None):  # PaliGemma's texts would see their padding
            alone = texts
        else:
            alone = [text for text in texts if text in self.encoded.pictured]
        if not alone:
            return self._read_batch(model, texts)
        together = [text for text in texts if text not in alone]
        read = [self._read_batch(model, batch) for batch in [together, *([text] for text in alone)] if batch]
        return torch.cat(read, dim=1)[:, [[*together, *alone].index(text) for text in texts]]

    def _read_batch(self, model: Any, texts: list[int]) -> torch.Tensor:
        encoded = self.encoded
        inputs = encoded.inputs(texts[0], model) if texts[0] in encoded.pictured else None
        ids, prompts = [encoded.ids[text] for text in texts], [encoded.prompts[text] for text in texts]
        return read_texts(model, ids, prompts, inputs=inputs, **self._options)

    def _read_against(self, texts: list[int]) -> torch.Tensor:
        if not isinstance(self._against, str):
            return self._read(plain_model(self._against), texts)
        if self._against == "base":
            with self._model.disable_adapter():
                return self._read(self.plain, texts)
        active = (
            self._model.active_adapters if hasattr(self._model, "active_adapters") else [self._model.active_adapter]
        )
        self._model.set_adapter(self._against)
        try:
            return self._read(self.plain, texts)
        finally:
            self._model.base_model.set_adapter(list(active))
