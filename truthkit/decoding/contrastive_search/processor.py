"""Contrastive search as a logits processor, for code that already has a `logits_processor=[...]` list."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from transformers import LogitsProcessor

from truthkit.decoding.contrastive_search.lookahead import Layout, can_crop, prepare_cache
from truthkit.decoding.contrastive_search.ranking import (
    ContrastiveRanking,
    check_settings,
    refuse_broken,
    top_candidates,
)
from truthkit.errors import ArgumentError, ModelError
from truthkit.hf.fast_linear import FastLinear
from truthkit.hf.sites import text_decoder
from truthkit.hf.spread import WAITING, refuse_fully_sharded
from truthkit.hf.wrapping import plain_model

_MEDIA_TOKENS = ("image_token_id", "image_token_index", "video_token_id", "audio_token_id")


class ContrastiveSearchLogitsProcessor(LogitsProcessor):
    """Leaves each row only the token that contrastive search chooses: score 0 for it, -inf for all others.

        model.generate(**inputs, logits_processor=[ContrastiveSearchLogitsProcessor(model)], do_sample=False)

    `generate` runs its own greedy loop, so streamers and `stop_strings` need nothing special; sampling gives the same
    tokens. Put it last in the list: the probability in the formula (see `ContrastiveRanking`) is the softmax of the
    scores it is given.

    The price: it sees only token ids, so it runs the decoder a second time, with a cache of its own. A token costs
    greedy decoding plus a contrastive step without output head: about 2 times greedy with k = 4 on one CPU core, where
    `contrastive_search` costs 1.04 times (SmolLM2-135M, float32, 128 and 512 tokens of context). The
    prompt is read twice and the cache memory doubles. When rows of a batch end at different steps, each further step
    costs one more forward.

    One processor may serve many calls: what a call shares with the last one, from its first token on, is not run again.

    Args:
        model: the model that generates; PEFT and `torch.compile` wrappers are fine.
        processor: not needed; here so that all processors are built alike.
        penalty_alpha: weight of the degeneration penalty, in [0, 1]; 0 is greedy.
        top_k: how many candidates to look at, at least 1; 1 is greedy.
        attention_mask: the prompts' mask, shape (batch, prompt length). Without it, each row's leading pad tokens count
            as padding.
        pad_token_id: the pad token, default `model.generation_config.pad_token_id`; None there: no padding.

    Raises:
        ArgumentError: a setting cannot work; in the call, if `attention_mask` does not fit the rows.
        ModelError: in the call, if the prompt holds image, video or audio tokens, whose content no processor is given;
            if the model has no usable cache; or if the scores are NaN.
    """

    supports_continuous_batching = False

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        penalty_alpha: float = 0.6,
        top_k: int = 4,
        attention_mask: torch.Tensor | None = None,
        pad_token_id: int | None = None,
    ):
        self.model = plain_model(model)
        refuse_fully_sharded(self.model, WAITING.format("ContrastiveSearch"))
        self.penalty_alpha, self.top_k = check_settings(penalty_alpha, top_k)
        self.attention_mask = attention_mask
        self.pad_token_id = self.model.generation_config.pad_token_id if pad_token_id is None else pad_token_id
        self._takes_positions = "position_ids" in inspect.signature(self.model.forward).parameters
        self._padded = False
        self.reset()

    def reset(self) -> None:
        """Forget all tokens and free the cache; the next call starts from its whole prompt."""
        self._tokens: torch.Tensor | None = None
        self._mask: torch.Tensor | None = None
        self._mask_given: torch.Tensor | None = None
        self._cache: Any = None
        self._layout: Layout | None = None
        self._fast: FastLinear | None = None
        self._ranking = ContrastiveRanking(self.penalty_alpha)

    @torch.no_grad()
    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The winners as scores, for tokens so far of shape (batch, length) and scores of shape (batch, vocabulary)."""
        probabilities, candidates, broken = top_candidates(scores.float(), self.top_k if self.penalty_alpha else 1)
        failed, follows = self._looked_at(broken, input_ids)
        if failed:
            refuse_broken(broken)
        if candidates.shape[1] == 1:
            winners = candidates
        else:
            if not follows or self._mask is None:
                mask = self._padding(input_ids)
                self._padded = not bool(mask.all())
                self._catch_up(input_ids, mask)
            else:
                mask = self._mask
            winners = self._look_ahead(input_ids, mask, candidates, probabilities)
        return torch.full_like(scores, -math.inf).scatter_(1, winners, 0.0)

    def _looked_at(self, broken: torch.Tensor, input_ids: torch.Tensor) -> list[bool]:
        """Whether scores are broken, and whether the tokens are those chosen here: one wait for the device."""
        known, follows = self._tokens, torch.zeros_like(broken[0])
        if known is not None and known.shape == input_ids.shape and self.attention_mask is self._mask_given:
            follows = torch.eq(input_ids, known).all()
        return torch.stack([broken.any(), follows]).tolist()

    def _padding(self, input_ids: torch.Tensor) -> torch.Tensor:
        """The attention mask of all tokens so far, shape (batch, length), int64."""
        if self.attention_mask is None:
            if self.pad_token_id is None:
                return torch.ones_like(input_ids)
            return (input_ids != self.pad_token_id).long().cummax(dim=1).values
        rows, width = self.attention_mask.shape
        if rows != len(input_ids) or width > input_ids.shape[1]:
            raise ArgumentError(
                f"attention_mask has shape {(rows, width)}, but generation runs {len(input_ids)} rows of "
                f"{input_ids.shape[1]} tokens; pass the mask of this call's prompts, or leave it out and leading pad "
                "tokens count as padding."
            )
        mask = torch.ones_like(input_ids)
        mask[:, :width] = self.attention_mask
        return mask

    def _catch_up(self, input_ids: torch.Tensor, mask: torch.Tensor) -> None:
        """Bring cache and context to exactly `input_ids`: take back what differs, run what is missing."""
        kept = self._rewind(input_ids, mask)
        if kept == 0:
            self._check_media(input_ids)
            self.reset()
            kwargs: dict[str, Any] = {}
            self._layout = prepare_cache(self.model, kwargs)
            self._cache = kwargs["cache"]
        if kept < input_ids.shape[1]:
            missing = {"input_ids": input_ids[:, kept:], **self._inputs(mask)}
            if "position_ids" in missing:
                missing["position_ids"] = missing["position_ids"][:, kept:]
            self._ranking.observe(text_decoder(self.model)(**missing, return_dict=True).last_hidden_state)
        assert self._layout is not None
        self._layout.start(self._cache)

    def _rewind(self, input_ids: torch.Tensor, mask: torch.Tensor) -> int:
        """Match each row to the cached row with the longest common prefix, and cut the cache to what all rows share.

        Returns:
            How many tokens stay; 0 if the cache is of no use.
        """
        if self._tokens is None or self._mask is None or self._ranking.context is None:
            return 0
        width = min(input_ids.shape[1], self._tokens.shape[1])
        equal = (input_ids[:, None, :width] == self._tokens[None, :, :width]).cumprod(dim=-1).sum(dim=-1)
        lengths, parents = equal.max(dim=1)
        kept, surplus = int(lengths.min()), self._tokens.shape[1] - int(lengths.min())
        if not torch.equal(mask[:, :kept], self._mask[parents, :kept]) or (surplus and not can_crop(self._cache)):
            return 0
        if not torch.equal(parents, torch.arange(len(self._tokens), device=parents.device)):
            self._cache.reorder_cache(parents)
            self._ranking.context.select(parents)
        if surplus:
            self._cache.crop(-surplus)
            self._ranking.context.crop(surplus)
        return kept

    def _look_ahead(
        self, input_ids: torch.Tensor, mask: torch.Tensor, candidates: torch.Tensor, probabilities: torch.Tensor
    ) -> torch.Tensor:
        assert self._layout is not None
        wider = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        inputs = self._layout.inputs(self.model, candidates, self._inputs(wider))
        decoder = text_decoder(self.model)
        if self._fast is None:
            self._fast = FastLinear(decoder)
        with self._layout.running(decoder), self._fast.running():
            hidden = decoder(**inputs, return_dict=True).last_hidden_state
        padding = mask if self._padded else None
        winner = self._ranking.choose(hidden.reshape(*candidates.shape, -1), probabilities, padding)
        winner = winner.to(candidates.device)
        self._layout.keep(self._cache, winner, candidates.shape[1])
        winners = candidates.gather(1, winner[:, None])
        self._tokens, self._mask, self._mask_given = torch.cat([input_ids, winners], dim=1), wider, self.attention_mask
        return winners

    def _inputs(self, mask: torch.Tensor) -> dict[str, Any]:
        inputs = {"cache": self._cache, "use_cache": True, "attention_mask": mask if self._padded else None}
        if self._takes_positions:
            inputs["position_ids"] = (mask.cumsum(dim=1) - 1).clamp_min_(0)
        return inputs

    def _check_media(self, input_ids: torch.Tensor) -> None:
        for name in _MEDIA_TOKENS:
            token = getattr(self.model.config, name, None)
            if token is not None and (input_ids == token).any():
                raise ModelError(
                    f"the prompt holds {name} {token}, but a logits processor is given no images; use "
                    "ContrastiveSearch(model) or custom_generate=contrastive_search."
                )
