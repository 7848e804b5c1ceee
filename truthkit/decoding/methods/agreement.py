"""Agreement: add a view that says the same, contrast with one that doesn't (as MoD, ONLY and DeGF combine theirs)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal

import torch

from truthkit.decoding.engine.arithmetic import check_at_least_zero, check_finite, jensen_shannon
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.options import Beta
from truthkit.decoding.engine.processor import DecoderLogitsProcessor
from truthkit.decoding.engine.registry import PROMPT_ONLY
from truthkit.decoding.engine.view import View, ViewLogits
from truthkit.decoding.methods.icd import ICD
from truthkit.decoding.methods.m3id import M3ID
from truthkit.decoding.methods.vcd import VCD
from truthkit.errors import ArgumentError

_VIEWS: dict[str, Callable[..., Decoder]] = {
    VCD.name: VCD,
    M3ID.name: M3ID,
    ICD.name: partial(ICD, amateur=PROMPT_ONLY),
}


class Agreement(Decoder):
    """Add the logits of a view that agrees with the model, and take away those of one that differs.

        s = l + agree · l'                    where D(p, p') < threshold
        s = (1 + differ) · l − differ · l'    elsewhere,   then the plausibility constraint

    Source: three papers combine a view of theirs in this way: MoD (arXiv 2505.17061; D = "js", threshold 0.05,
    agree 4), ONLY (arXiv 2507.00898; "l1", 0.2 or 0.25, agree 3), both with differ 1, and DeGF (arXiv 2502.06130; "js",
    0.1, from others' accounts). The defaults are those of MoD's released code. Here every row and position is gated for
    itself: MoD's code looks at the first row's first token, and keeps to that.

    Args:
        model: the model, plain or PEFT-wrapped.
        processor: its tokenizer or processor.
        view: what to compare with: a `View`, such as another decoder's, `tk.RITUAL(...).views[1]`; or "vcd", "m3id" or
            "icd" for the noisy image, no image or the prompt-only amateur of these decoders.
        divergence: "js", the Jensen–Shannon divergence in nats, or "l1", the sum of |p − p'|.
        threshold: of the divergence, 0 or more; with 0 the view is always taken away.
        agree: weight of a view that agrees.
        differ: weight of one that differs.
        beta: plausibility cut-off in (0, 1]; 0 turns it off.

    Raises:
        ArgumentError: an unknown view or divergence, or a number out of range.

    Example:
        >>> with tk.Agreement(model, processor, view="vcd", divergence="l1", threshold=0.25, agree=3.0):
        ...     model.generate(**inputs, max_new_tokens=64)
    """

    name: ClassVar[str] = "agreement"
    strengths: ClassVar[frozenset[str]] = frozenset({"threshold", "agree", "differ", "beta"})

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        view: View | Literal["vcd", "m3id", "icd"] = "vcd",
        divergence: Literal["js", "l1"] = "js",
        threshold: float = 0.05,
        agree: float = 4.0,
        differ: float = 1.0,
        beta: Beta = 0.1,
    ):
        if divergence not in ("js", "l1"):
            raise ArgumentError(f'divergence is {divergence!r}; expected "js" or "l1".')
        self.divergence, self.threshold = divergence, check_at_least_zero("threshold", threshold)
        self.agree, self.differ = check_finite("agree", agree), check_finite("differ", differ)
        if not isinstance(view, View):
            if view not in _VIEWS:
                raise ArgumentError(f"view is {view!r}; expected a View, or one of {', '.join(map(repr, _VIEWS))}.")
            (view,) = _VIEWS[view](model, processor).views[1:]
        super().__init__(model, [view], beta=beta)

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        (other,) = views
        if self.divergence == "js":
            distance = jensen_shannon(main.logits, other.logits[None])[0]
        else:
            distance = (main.logits.softmax(dim=-1) - other.logits.softmax(dim=-1)).abs().sum(dim=-1)
        same = distance[..., None] < self.threshold
        weight = torch.where(same, self.agree, -self.differ).to(main.logits.dtype)
        return torch.where(same, 1.0, 1.0 + self.differ) * main.logits + weight * other.logits

    @classmethod
    def cooler(cls, **options: Any) -> float:
        return 1.0 + max(float(options["agree"]), float(options["differ"]))


class AgreementLogitsProcessor(DecoderLogitsProcessor, decoder=Agreement):
    """`Agreement` as one entry of an existing `logits_processor=[...]` list; takes the arguments of `Agreement`."""
