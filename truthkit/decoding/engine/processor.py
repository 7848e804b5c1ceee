"""The drop-in form: a decoder as one entry of an existing `logits_processor=[...]` list.

A processor first speaks after the model's own forward, so it runs its views in forwards of its own, all in one batch,
with a cache of its own. Two things make it right in every mode of `generate`: rows are matched to their cached parents
by their tokens, so beams, rejected assistant tokens and a new prompt need no notice; and it returns `log_softmax` of
the combination, which changes nothing for sampling and keeps beam scores normalised.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import torch
from transformers import LogitsProcessor

from truthkit.decoding.engine.arithmetic import plausible
from truthkit.decoding.engine.companion import Companion
from truthkit.decoding.engine.decoder import Decoder, Together
from truthkit.decoding.engine.pictures import Pictures
from truthkit.decoding.engine.prefix_match import PrefixMatch
from truthkit.decoding.engine.row_group import RowGroup
from truthkit.decoding.engine.source import Notes
from truthkit.decoding.engine.view import ViewLogits
from truthkit.decoding.engine.view_group import ViewGroup
from truthkit.errors import AttachError, ModelError
from truthkit.hf.spread import WAITING, refuse_fully_sharded
from truthkit.hf.wrapping import owner_of


class DecoderLogitsProcessor(LogitsProcessor):
    """Base of the `*LogitsProcessor` classes; a subclass names its decoder: `class X(DecoderLogitsProcessor,
    decoder=Y)`.

    The main view is what the processor receives, so entries of the list before it act on the main view alone. It costs
    a forward of its own views per token beside the model's, where the context manager costs a few more rows of the same
    forward. `benchmarks/overhead.py` measures both.

    Args:
        model, processor, **options: the arguments of the decoder.
        attention_mask: the prompt's 2-D mask. None takes leading pad tokens for padding, which is right unless a prompt
            really begins with the pad token.
        images: the prompts' images where the model is an image-text model, as in `Pictures`.
    """

    supports_continuous_batching = False
    decoder_class: type[Decoder]

    def __init_subclass__(cls, *, decoder: type[Decoder], **kwargs: Any):
        super().__init_subclass__(**kwargs)
        cls.decoder_class = decoder
        if "__init__" not in vars(cls):
            cls.__signature__ = _signature(decoder)  # type: ignore[attr-defined]

    def __init__(
        self, model: Any, processor: Any = None, *, attention_mask: torch.Tensor | None = None, **options: Any
    ):
        images = options.get("images")
        if "images" not in inspect.signature(self.decoder_class).parameters:
            options.pop("images", None)
        decoder = self.decoder_class(model, processor, **options)
        self.follow(decoder, attention_mask, Pictures(processor, images) if images is not None else None)

    def follow(self, decoder: Decoder, attention_mask: torch.Tensor | None, pictures: Pictures | None) -> None:
        """Set up the forwards of `decoder`'s views."""
        self.decoder = decoder
        if decoder.views[0].attention or decoder.steers:
            raise ModelError(
                f"{type(decoder).__name__} acts inside the forward that generate itself runs, which is over before a "
                "logits processor is called; use "
                f"`with tk.{type(decoder).__name__}(model, ...):` instead."
            )
        refuse_fully_sharded(decoder.front, WAITING.format(type(decoder).__name__))
        self._reads_exits = bool(decoder.layers or decoder.prompt_exits)
        own = [view for view in decoder.views[0 if self._reads_exits else 1 :] if view.model is None]
        exits: dict[str, Any] = {"norm": decoder.norm, "prompt_exits": decoder.prompt_exits}
        group = ViewGroup(decoder.model, own, decoder.layers, vision=decoder.front, **exits) if own else None
        self._own_rows = len(own)
        self._groups = [RowGroup(one) for one in (group, *decoder.groups[1:]) if one is not None]
        companions = [Companion(one) for one in self._groups]
        pad = decoder.model.generation_config.pad_token_id
        self._match = PrefixMatch(decoder.front, companions, attention_mask, pad, pictures)

    @property
    def notes(self) -> Notes:
        """What the method noted about the last prompt: RITUAL's `chosen`."""
        return self._groups[0].images.notes if self._groups else {}

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Combined and normalised scores; `input_ids` (batch, length), `scores` (batch, vocabulary)."""
        if (owner := owner_of(self.decoder.model)) is not None:
            raise AttachError(
                f"{type(self).__name__} runs forwards of its own, but the model is under `with {owner}(...)`, which "
                "would rewrite them; use one or the other."
            )
        for _, adapter in (pair for group in self._groups for pair in group.group.adapters):
            if adapter.active:
                raise ModelError(
                    f"adapter {adapter.name!r} is active in the model, so the scores given to {type(self).__name__} "
                    "are the amateur's already; switch it off (`with model.disable_adapter():`), or use the context "
                    "manager."
                )
        logits = [view for group in self._match.advance(input_ids) for view in group]
        own, separate = iter(logits[: self._own_rows]), iter(logits[self._own_rows :])
        received = scores[:, None]
        main = ViewLogits(received, step=logits[0].step if logits else 0)
        if self._reads_exits:
            seen = next(own)
            main = replace(seen, logits=_at_height(received, seen.logits))
        others = [next(own) if view.model is None else next(separate) for view in self.decoder.views[1:]]
        combined = self.decoder.combine(main, *others)
        return plausible(combined, main.logits, self.decoder.beta)[:, 0].log_softmax(dim=-1)  # type: ignore[return-value]


def _at_height(scores: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """`scores` as far up as the model's logits: beam search hands them on as log-probabilities, and some methods hold
    logits against those of early exits.
    """
    return scores + (logits.logsumexp(dim=-1, keepdim=True) - scores.logsumexp(dim=-1, keepdim=True))


class TogetherLogitsProcessor(DecoderLogitsProcessor, decoder=Together):
    """`Together` as one entry of an existing `logits_processor=[...]` list.

    Args:
        decoders, beta: as in `Together`.
        attention_mask: the prompt's 2-D mask; None takes leading pad tokens for padding.
        processor: the model's processor; needed for `images`.
        images: the prompts' images, for image-text models; by default those of the first decoder that has some.
    """

    def __init__(
        self,
        *decoders: Decoder,
        beta: float | None = None,
        attention_mask: torch.Tensor | None = None,
        processor: Any = None,
        images: Any = None,
    ):
        known = (getattr(decoder, "pictures", None) for decoder in decoders)
        pictures = next((some for some in known if some is not None), None)
        if images is not None:
            pictures = Pictures(processor, images)
        self.follow(Together(*decoders, beta=beta), attention_mask, pictures)


def _signature(decoder: type[Decoder]) -> inspect.Signature:
    """The decoder's own, with what the processor needs beside it."""
    signature = inspect.signature(decoder)
    extra = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None)
        for name in ("attention_mask", "images")
        if name not in signature.parameters
    ]
    return signature.replace(parameters=[*signature.parameters.values(), *extra])
