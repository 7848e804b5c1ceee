"""A gate: another decoder acts only in the rows and steps where a detector says that the model may be wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch

from truthkit.decoding.engine.arithmetic import check_at_least_zero, jensen_shannon, plausible
from truthkit.decoding.engine.controls import Control, model_alone
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.processor import DecoderLogitsProcessor
from truthkit.decoding.engine.session import Session
from truthkit.decoding.engine.view import ViewLogits
from truthkit.decoding.methods.dola import DoLa
from truthkit.errors import ArgumentError, ModelError
from truthkit.hf.wrapping import plain_model

_USUAL = "dola"

_LIKELIEST = 4
"""By so many tokens a step is told from others, for draws."""


class When(Decoder):
    """Let `decoder` act where a detector's score is above `threshold`, and leave the model's logits elsewhere.

        s = s_decoder, under its plausibility constraint   where score(l) > threshold
        s = l                                              elsewhere

    Each row and step is judged for itself. Ours; contrasts gated by uncertainty have been proposed often, and here any
    decoder can be. With `skip` the views do not run where no row fires: they catch up on the tokens that they have
    missed, in one forward, when they are next called for. For this they run apart from the model's own forward, which
    pays where the gate is nearly always shut only. Steering has conditions of its own: `where=tk.Entropy(...)`.

    Args:
        model: the model, plain or PEFT-wrapped.
        processor: not needed; here so that all decoders are built alike.
        decoder: what acts, built for the same model, as `tk.VCD(model, processor)`; by default DoLa. Written on a
            command line, any decoder with its options: `when:decoder="vcd:alpha=2,beta=0.1",threshold=1`.
        detector: "entropy" of the next token in nats; "max_prob", 1 − the largest probability; "agreement", from 0 to
            1, how much the decoder's first view says the same (1 − Jensen–Shannon divergence / ln 2), for which the
            views run at every step; or "random", a control that fires in a share 1 − threshold of the steps.
        threshold: of its score, 0 or more.
        skip: whether views wait where no row fires; else they run in the batch of the main view, as without a gate.
        seed: of the random control, which also goes by the step and the model's likeliest tokens, and by nothing else.

    Raises:
        ArgumentError: an unknown detector, a threshold out of range, or a decoder that is none or of another model.
        ModelError: the decoder changes how the main view itself reads, so that nothing of it can be left as it is.

    Example:
        >>> with tk.When(model, processor, decoder=tk.VCD(model, processor), detector="entropy", threshold=1.0) as gate:
        ...     model.generate(**inputs, max_new_tokens=64)
        >>> gate.share
    """

    name: ClassVar[str] = "when"
    gated: ClassVar[bool] = True

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        decoder: Decoder | str = _USUAL,
        detector: Literal["entropy", "max_prob", "agreement", "random"] = "entropy",
        threshold: float = 1.0,
        skip: bool = False,
        seed: int = 0,
    ):
        if decoder == _USUAL:
            decoder = DoLa(model)
        if not isinstance(decoder, Decoder) or decoder.front is not plain_model(model):
            found = f"{decoder!r}" if not isinstance(decoder, Decoder) else f"a {type(decoder).__name__} of another one"
            raise ArgumentError(f"decoder is {found}; expected one for this model, such as tk.VCD(model, processor).")
        if detector not in ("entropy", "max_prob", "agreement", "random"):
            raise ArgumentError(f"detector is {detector!r}; expected 'entropy', 'max_prob', 'agreement' or 'random'.")
        if detector == "agreement" and len(decoder.views) < 2:
            raise ArgumentError(f"detector='agreement' compares views, and {type(decoder).__name__} has none.")
        if decoder.views[0].attention or decoder.steers:
            raise ModelError(
                f"{type(decoder).__name__} changes how the main view itself reads, in steps where the gate is shut "
                "too; gate a decoder that compares views."
            )
        self.decoder, self.detector, self.seed = decoder, detector, seed
        self.threshold = check_at_least_zero("threshold", threshold)
        if detector != "entropy" and self.threshold > 1:
            raise ArgumentError(f"threshold is {threshold!r}; scores of {detector!r} are from 0 to 1.")
        views = decoder.views[1:]
        self.rests = skip and detector != "agreement"
        if self.rests:
            views = tuple(replace(one, model=decoder.front) if one.model is None else one for one in views)
        super().__init__(
            decoder.front, views, layers=decoder.layers, norm=decoder.norm, prompt_exits=decoder.prompt_exits
        )
        self.compiled, self.of_whole_prompt = decoder.compiled, decoder.of_whole_prompt

    def beside(self, session: Session) -> Sequence[AbstractContextManager[Any]]:
        """See `Decoder`."""
        return self.decoder.beside(session)

    def fires(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        """See `Decoder`."""
        if self.detector == "agreement":
            return 1.0 - jensen_shannon(main.logits, views[0].logits[None])[0] / math.log(2) > self.threshold
        if self.detector == "random":
            return self._drawn(main) > self.threshold
        probabilities = main.logits.softmax(dim=-1)
        if self.detector == "max_prob":
            return 1.0 - probabilities.amax(dim=-1) > self.threshold
        return torch.special.entr(probabilities).sum(dim=-1) > self.threshold

    def _drawn(self, main: ViewLogits) -> torch.Tensor:
        """Numbers in [0, 1) by seed, step and the model's likeliest tokens, whatever else is in the batch."""
        steps = torch.arange(main.logits.shape[1], device=main.logits.device) + main.step
        mixed = (steps + (self.seed + 1) * 0x9E3779B1).expand(main.logits.shape[:-1])
        for token in main.logits.topk(_LIKELIEST).indices.unbind(dim=-1):
            mixed = mixed * 0x85EBCA77 + token
            for shift in (16, 15, 16):
                mixed = ((mixed & 0xFFFFFFFF) ^ ((mixed & 0xFFFFFFFF) >> shift)) * 0x45D9F3B
        return (mixed & 0xFFFFFFFF).double() / 2**32

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        scores = plausible(self.decoder.combine(main, *views), main.logits, self.decoder.beta)
        return torch.where(self.fires(main, *views)[..., None], scores, main.logits)

    @property
    def options(self) -> dict[str, Any]:
        """See `DecodingMethod`; the decoder as text, where it has one."""
        written = {"decoder": self.decoder.spec} if "decoder" in (options := super().options) else {}
        return {key: value for key, value in (options | written).items() if (key, value) != ("decoder", _USUAL)}

    @classmethod
    def controls(cls, **options: Any) -> tuple[Control, ...]:
        """The model alone, and the decoder without a gate. "random" at the share that the gate had is another run."""
        decoder = options.get("decoder", _USUAL)
        return (*model_alone(), Control("ungated", decoder.spec if isinstance(decoder, Decoder) else decoder))


class WhenLogitsProcessor(DecoderLogitsProcessor, decoder=When):
    """`When` as one entry of an existing `logits_processor=[...]` list, where views run at every step; takes the
    arguments of `When`.
    """
