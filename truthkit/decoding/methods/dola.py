"""DoLa, decoding by contrasting layers (Chuang et al., arXiv 2309.03883)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from truthkit.decoding.engine.arithmetic import most_divergent, take_layer
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.early_exits import named_layers
from truthkit.decoding.engine.options import Beta, Layers
from truthkit.decoding.engine.processor import DecoderLogitsProcessor
from truthkit.decoding.engine.view import ViewLogits
from truthkit.hf.wrapping import plain_model


class DoLa(Decoder):
    """Contrast the final layer with the earlier one that differs most from it, chosen anew for every row and token.

        s = log p_N − log p_M,   M = argmax_j JSD(p_N, p_j) over `layers`,   then the plausibility constraint

    Source: the paper, section 2, and the authors' released code (beta 0.1 for generation, 0 for TruthfulQA multiple
    choice). The published runs generate with `repetition_penalty=1.2`, which is an argument of `generate`.

    Args:
        model: the model, plain or PEFT-wrapped.
        processor: not used; there so that all decoders are called alike.
        layers: candidate layer numbers, or "low" or "high" for every second block of the lower or upper half: the
            blocks of transformers 4's `dola_layers`, which counted the embeddings as layer 0, and so named each one
            higher. The embeddings themselves, which it had among "low" where the head is not tied to them, are no block
            and left out.
        beta: plausibility cut-off in (0, 1]; 0 turns it off.
        norm: pass early exits through the model's final norm. False is what transformers 4 and the released code did.

    Raises:
        ArgumentError: a layer is out of range.
        ModelError: early exits cannot be read from this model.

    Example:
        >>> with tk.DoLa(model, layers="high"):
        ...     model.generate(**inputs, max_new_tokens=64, repetition_penalty=1.2)
    """

    name: ClassVar[str] = "dola"

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        layers: Layers = "high",
        beta: Beta = 0.1,
        norm: bool = True,
    ):
        super().__init__(model, layers=named_layers(plain_model(model), layers), beta=beta, norm=norm)

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        assert main.exits is not None
        premature = take_layer(main.exits, most_divergent(main.logits, main.exits))
        return main.logits.log_softmax(dim=-1) - premature.log_softmax(dim=-1)


class DoLaLogitsProcessor(DecoderLogitsProcessor, decoder=DoLa):
    """`DoLa` as one entry of an existing `logits_processor=[...]` list; takes the arguments of `DoLa`."""
