"""COIECD, contextual information-entropy constraint decoding (Yuan et al., arXiv 2402.11893)."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch

from truthkit.decoding.engine.arithmetic import check_finite
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.options import Beta
from truthkit.decoding.engine.processor import DecoderLogitsProcessor
from truthkit.decoding.engine.prompt_views import Context, without_context
from truthkit.decoding.engine.view import View, ViewLogits
from truthkit.errors import ArgumentError

RATIO = 4.0
"""How far from the bounds a token's probability may be; the inverse of the paper's λ."""


class COIECD(Decoder):
    r"""CAD on top of the context for tokens in conflict with memory, and on top of memory for the others.

        s = (log p_c on K, log p_0 elsewhere) + alpha · (log p_c − log p_0)

    where p_c sees the context, p_0 doesn't, and K are the tokens whose information breaks the constraint:

        form="code":  K = C ∪ {v: p_c(v) < 4 · min p_c},   C = {v: p_c(v) > max p_c / 4}, empty if it has one member
        form="paper": K = {v: |−log p_c(v) − H(p_0)| > log 4}

    Source: the authors' released code. Their paper holds a token's information against the entropy H(p_0), but puts the
    difference through a softmax, under which an entropy, being the same for all tokens, drops out; so it has no effect
    in the code. `form="paper"` holds it against the entropy itself: our reading of what is meant.

    Args:
        model: the model, plain or PEFT-wrapped.
        processor: its tokenizer or processor.
        context: the passage to leave out in the second view, as it stands in the prompt; one for all prompts, one
            each, or a function from the rows of token ids to theirs.
        alpha: strength of the contrast (the paper's β).
        form: "code" or "paper".
        beta: plausibility cut-off in (0, 1]; 0, the default, turns it off.

    Raises:
        ArgumentError: another form.

    Example:
        >>> with tk.COIECD(model, tokenizer, context=passage):
        ...     model.generate(**tokenizer(f"{passage}\n\n{question}", return_tensors="pt"), max_new_tokens=64)
    """

    name: ClassVar[str] = "coiecd"
    strengths: ClassVar[frozenset[str]] = frozenset({"alpha", "beta"})

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        context: Context,
        alpha: float = 1.0,
        form: Literal["code", "paper"] = "code",
        beta: Beta = 0.0,
    ):
        if form not in ("code", "paper"):
            raise ArgumentError(f'form is {form!r}; expected "code" or "paper".')
        self.alpha, self.form = check_finite("alpha", alpha), form
        super().__init__(model, [View("without context", prompt=without_context(processor, context))], beta=beta)

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        with_it, without = main.logits.log_softmax(dim=-1), views[0].logits.log_softmax(dim=-1)
        breaks = _outside_bounds(with_it) if self.form == "code" else _far_from_entropy(with_it, without)
        return torch.where(breaks, with_it, without) + self.alpha * (with_it - without)

    @classmethod
    def cooler(cls, **options: Any) -> float:
        return 1.0 + float(options["alpha"])


def _outside_bounds(log_p: torch.Tensor) -> torch.Tensor:
    likely = log_p > log_p.amax(dim=-1, keepdim=True) - math.log(RATIO)
    several = likely.sum(dim=-1, keepdim=True) > 1
    lowest = log_p.masked_fill(log_p.isneginf(), torch.inf).amin(dim=-1, keepdim=True)
    return (likely & several) | (log_p < lowest + math.log(RATIO))


def _far_from_entropy(log_p: torch.Tensor, without: torch.Tensor) -> torch.Tensor:
    entropy = torch.special.entr(without.exp()).sum(dim=-1, keepdim=True)
    return (-log_p - entropy).abs() > math.log(RATIO)


class COIECDLogitsProcessor(DecoderLogitsProcessor, decoder=COIECD):
    """`COIECD` as one entry of an existing `logits_processor=[...]` list; takes the arguments of `COIECD`."""
