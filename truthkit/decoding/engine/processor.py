"""The drop-in form: a decoder as one entry of an existing `logits_processor=[...]` list.

A processor first speaks after the model's own forward, so it runs its views in forwards of its own, all in one batch,
with a cache of its own. Two things make it right in every mode of `generate`: rows are matched to their cached parents
by their tokens, so beams, rejected assistant tokens and a new prompt need no notice; and it returns `log_softmax` of
the combination, which changes nothing for sampling and keeps beam scores normalised.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import LogitsProcessor

from truthkit.decoding.engine.arithmetic import plausible
from truthkit.decoding.engine.companion import Companion
from truthkit.decoding.engine.decoder import Decoder, Together
from truthkit.decoding.engine.image_rows import placeholders
from truthkit.decoding.engine.pictures import Pictures
from truthkit.decoding.engine.row_group import RowGroup
from truthkit.decoding.engine.view import ViewLogits
from truthkit.errors import ArgumentError, AttachError, ModelError
from truthkit.hf.wrapping import owner_of


class PrefixMatch:
    """Follows the rows of a generation loop by their tokens alone.

    Args:
        model: the model of the loop.
        companions: groups whose caches are reordered and cut so that they hold the longest known prefix of every row.
        attention_mask: 2-D mask of the prompt. None takes leading `pad_token_id` tokens for padding.
        pad_token_id: that token; None for no padding.
        images: the prompts' images, for an image-text model.
    """

    def __init__(
        self,
        model: Any,
        companions: list[Companion],
        attention_mask: torch.Tensor | None,
        pad_token_id: int | None,
        images: Pictures | None = None,
    ):
        self._model, self._companions, self._images = model, companions, images
        self._prompt_mask, self._pad = attention_mask, pad_token_id
        self._ids: torch.Tensor | None = None
        self._length = 0

    def advance(self, ids: torch.Tensor) -> list[list[ViewLogits]]:
        """Every companion's views at the last position of `ids`, shape (batch, length)."""
        past, parents = self._known(ids)
        if past == 0 or not all(companion.can_go_back_to(past) for companion in self._companions):
            past = 0
            self._length = ids.shape[1]
            mask = self._mask(ids)
            for companion in self._companions:
                companion.reset()
                self._show_images(companion.group, ids, mask)
                companion.group.begin(ids, mask, gaps=True)
        else:
            mask = self._mask(ids)
            if not torch.equal(parents, torch.arange(len(parents), device=parents.device)):
                for companion in self._companions:
                    companion.reorder(parents)
        self._ids = ids.clone()
        positions = (mask.cumsum(dim=1) - 1).clamp_min_(0)[:, past:] if mask is not None else None
        return [c.forward(ids[:, past:], mask, positions, past=past, keep=1) for c in self._companions]

    def _known(self, ids: torch.Tensor) -> tuple[int, torch.Tensor]:
        """How many tokens of every row are cached, and in which cached row; fewer than the prompt's start anew."""
        nothing = 0, torch.arange(len(ids), device=ids.device)
        if self._ids is None or len(self._ids) != len(ids):
            return nothing
        shared = min(self._ids.shape[1], ids.shape[1] - 1)
        if shared < self._length:
            return nothing
        same = (ids[:, None, :shared] == self._ids[None, :, :shared]).long().cumprod(dim=-1).sum(dim=-1)
        # the row's own place wins a tie, so that rows which never part keep their order
        own = torch.eye(len(ids), dtype=same.dtype, device=ids.device)
        parents = (2 * same + own).argmax(dim=1)
        known = int(same.gather(1, parents[:, None]).min())
        return (known, parents) if known >= self._length else nothing

    def _show_images(self, group: RowGroup, ids: torch.Tensor, mask: torch.Tensor | None) -> None:
        if self._images is None and not group.images.changed and bool(placeholders(self._model, ids).any()):
            raise ArgumentError(
                "the prompt holds images, which a logits processor does not see; pass them to it as images=..."
            )
        copies = len(ids) // len(self._images) if self._images and len(ids) % len(self._images) == 0 else 1
        inputs = self._images.inputs(ids.device) if self._images else {}
        group.images.encode(inputs, ids[::copies], None if mask is None else mask[::copies])

    def _mask(self, ids: torch.Tensor) -> torch.Tensor | None:
        if self._prompt_mask is not None:
            given = self._prompt_mask.to(ids.device).long()
            if len(ids) % len(given) or given.shape[1] != self._length:
                raise ArgumentError(
                    f"attention_mask has shape {tuple(given.shape)}, but the prompt has {len(ids)} rows of "
                    f"{self._length} "
                    "tokens; pass the mask that goes with generate's input_ids."
                )
            given = given.repeat_interleave(len(ids) // len(given), dim=0)
            mask = torch.cat([given, given.new_ones(len(ids), ids.shape[1] - self._length)], dim=1)
        elif self._pad is None:
            return None
        else:
            of_image = placeholders(self._model, ids)  # padding can stand behind it
            mask = (of_image | (((ids != self._pad) & ~of_image).cumsum(dim=1) > 0)).long()
            mask[:, self._length - 1 :] = 1
        return None if bool(mask.all()) else mask


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
        signature = inspect.signature(decoder.__init__)
        extra = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None)
            for name in ("attention_mask", "images")
            if name not in signature.parameters
        ]
        cls.__signature__ = signature.replace(parameters=[*list(signature.parameters.values())[1:], *extra])  # type: ignore[attr-defined]

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
        own = [view for view in decoder.views[0 if decoder.layers else 1 :] if view.model is None]
        groups = [RowGroup(decoder.model, own, decoder.layers, norm=decoder.norm, vision=decoder.front)] if own else []
        self._own_rows = len(own)
        self._companions = [Companion(group) for group in groups] + decoder.separate_models()
        config = decoder.model.generation_config
        self._match = PrefixMatch(decoder.front, self._companions, attention_mask, config.pad_token_id, pictures)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Combined and normalised scores; `input_ids` (batch, length), `scores` (batch, vocabulary)."""
        if (owner := owner_of(self.decoder.model)) is not None:
            raise AttachError(
                f"{type(self).__name__} runs forwards of its own, but the model is under `with {owner}(...)`, which "
                "would "
                "rewrite them; use one or the other."
            )
        for _, adapter in (pair for companion in self._companions for pair in companion.group.adapters):
            if adapter.active:
                raise ModelError(
                    f"adapter {adapter.name!r} is active in the model, so the scores given to {type(self).__name__} "
                    "are the "
                    "amateur's already; switch it off (`with model.disable_adapter():`), or use the context manager."
                )
        logits = [view for group in self._match.advance(input_ids) for view in group]
        own, separate = iter(logits[: self._own_rows]), iter(logits[self._own_rows :])
        exits = next(own).exits if self.decoder.layers else None
        step = logits[0].step if logits else 0
        main = ViewLogits(scores[:, None], exits, step)
        others = [next(own) if view.model is None else next(separate) for view in self.decoder.views[1:]]
        combined = self.decoder.combine(main, *others)
        return plausible(combined, main.logits, self.decoder.beta)[:, 0].log_softmax(dim=-1)  # type: ignore[return-value]


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
