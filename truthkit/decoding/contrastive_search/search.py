"""Contrastive search through `generate`: the next token is probable, and unlike everything said so far.

Su et al., *Contrastive Search Is What You Need For Neural Text Generation* (arXiv 2210.14140).
Each step looks one token ahead at k candidates, in one forward of k positions a row (`candidates.Tree`) that shares the
past instead of repeating it; the output head then runs for the winner only.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from transformers.generation.utils import GenerateDecoderOnlyOutput

from truthkit.decoding.contrastive_search.lookahead import Layout, check_filled, prepare_cache
from truthkit.decoding.contrastive_search.processor import ContrastiveSearchLogitsProcessor
from truthkit.decoding.contrastive_search.ranking import (
    ContrastiveRanking,
    check_settings,
    refuse_broken,
    top_candidates,
)
from truthkit.decoding.engine.search_method import SearchMethod
from truthkit.errors import ArgumentError, ModelError
from truthkit.hf.compiled import is_compiled
from truthkit.hf.fast_linear import fast_linear
from truthkit.hf.head_input import head_reads
from truthkit.hf.room import check_room
from truthkit.hf.sites import text_decoder
from truthkit.hf.spread import is_fully_sharded
from truthkit.hf.steps import uncompiled
from truthkit.hf.wrapping import sole_owner

__all__ = ["ContrastiveSearch", "ContrastiveSearchLogitsProcessor", "contrastive_search"]

_ALPHA, _TOP_K = 0.6, 4


def contrastive_search(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    penalty_alpha: float | None = None,
    top_k: int | None = None,
    token_streamer: Any = None,
    **model_kwargs: Any,
) -> Any:
    """Contrastive search as a `custom_generate` callable.

        model.generate(**inputs, custom_generate=contrastive_search, penalty_alpha=0.6, top_k=4)

    Everything else is `generate`'s own: logits processors, stopping criteria, lengths, `eos_token_id`, left padding,
    `return_dict_in_generate` with `output_scores` and `output_logits`. The probability in the formula (see
    `ContrastiveRanking`) is the softmax of the logits after the logits processors. `penalty_alpha=0` and `top_k=1`
    are greedy decoding, and run as such.

    transformers hands a callable neither `streamer` nor `stop_strings`, nor `synced_gpus`. Pass a streamer as
    `token_streamer` instead; for all under their own names use `ContrastiveSearch`. With weights sharded by FSDP2
    (`fully_shard`) every process runs on until all have ended, as under `synced_gpus=True`.

    It always uses a cache, also with `use_cache=False`. Models whose positions cannot be alternatives of each other
    (ALiBi, recurrent state, chunked or flash attention) repeat that cache k times at every step, as transformers 4 did
    for all, and a warning says so. A returned cache ends one token before the sequences, as after greedy decoding,
    unless its sliding windows are full or it holds recurrent state: then it holds the last token too.

    Args:
        model: given by `generate`, like the next four and `model_kwargs`.
        input_ids: shape (batch, prompt length).
        logits_processor: applied to the float32 logits.
        stopping_criteria: asked after every token.
        generation_config: the call's options.
        penalty_alpha: weight of the degeneration penalty, in [0, 1]; default `generation_config.penalty_alpha`, else
            0.6.
        top_k: how many candidates to look at; default 4, or `generation_config.top_k` if its `penalty_alpha` counts.
        token_streamer: gets the prompt, every new token, and the end, like `streamer` in `generate`.
        **model_kwargs: the model's inputs.

    Returns:
        Token ids of shape (batch, length), or a `GenerateDecoderOnlyOutput`.

    Raises:
        ArgumentError: a setting or generation option cannot work with contrastive search.
        ModelError: the model is not a decoder with a cache, or its logits are NaN.
        AttachError: the model runs under a decoder's context manager.
    """
    from_config = generation_config.penalty_alpha is not None and penalty_alpha is None
    if penalty_alpha is None:
        penalty_alpha = generation_config.penalty_alpha if from_config else _ALPHA
    if top_k is None:
        top_k = generation_config.top_k if from_config else _TOP_K
    search = _Search(*check_settings(penalty_alpha, top_k), token_streamer)
    with sole_owner(model, "contrastive_search"):
        return search(model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs)


class ContrastiveSearch(SearchMethod):
    r"""Look one token ahead, and take what is probable and unlike everything said so far.

    Every `generate` of `model` inside this block is contrastive search, `streamer` and `stop_strings` included:

        with ContrastiveSearch(model, tokenizer, penalty_alpha=0.6, top_k=4):
            model.generate(**inputs, streamer=streamer, stop_strings=["\n"])

    See `contrastive_search` for what it computes and what it accepts.

    Args:
        model: a causal or image-text model; PEFT and `torch.compile` wrappers are fine.
        processor: its tokenizer or processor, for `stop_strings`; `tokenizer=` in the call comes first.
        penalty_alpha: weight of the degeneration penalty, in [0, 1].
        top_k: how many candidates to look at, at least 1.

    Raises:
        ArgumentError: `penalty_alpha` or `top_k` cannot work.
        AttachError: on entry, if another decoder is attached to the model.
    """

    name: ClassVar[str] = "contrastive_search"

    def __init__(self, model: Any, processor: Any = None, *, penalty_alpha: float = _ALPHA, top_k: int = _TOP_K):
        super().__init__(model, processor)
        self.penalty_alpha, self.top_k = check_settings(penalty_alpha, top_k)

    def _search(self, call: dict[str, Any], options: dict[str, Any]) -> _Search:
        synced = call.pop("synced_gpus", None)
        return _Search(self.penalty_alpha, self.top_k, call.pop("streamer", None), synced)


@dataclass(frozen=True)
class _Search:
    """The decoding loop, in the role and with the signature of transformers' `_sample`."""

    alpha: float
    k: int
    streamer: Any
    synced: bool | None = None
    """Whether to run on until every process has ended; None: where it must, because FSDP2 shards the weights."""

    def __call__(
        self,
        model: Any,
        input_ids: torch.Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **model_kwargs: Any,
    ) -> Any:
        _check_call(model, input_ids, generation_config, model_kwargs)
        streamer = self.streamer
        if streamer is not None:
            streamer.put(input_ids.cpu())
        synced = is_fully_sharded(model) if self.synced is None else self.synced
        if self.alpha == 0 or self.k == 1:
            return model._sample(
                input_ids,
                logits_processor,
                stopping_criteria,
                generation_config,
                synced_gpus=synced,
                streamer=streamer,
                **model_kwargs,
            )
        layout = prepare_cache(model, model_kwargs)
        ranking = ContrastiveRanking(self.alpha)
        as_dict = generation_config.return_dict_in_generate
        all_scores: tuple[torch.Tensor, ...] | None = () if as_dict and generation_config.output_scores else None
        all_logits: tuple[torch.Tensor, ...] | None = () if as_dict and generation_config.output_logits else None
        has_eos = any(hasattr(criterion, "eos_token_id") for criterion in stopping_criteria)
        pad_token = generation_config._pad_token_tensor
        unfinished = torch.ones(len(input_ids), dtype=torch.long, device=input_ids.device)

        with ExitStack() as stack:
            stack.enter_context(uncompiled(model, is_compiled(model, model)))
            stack.enter_context(model._optimize_model_for_decode())
            stack.enter_context(fast_linear(model))
            outputs = _prefill(model, input_ids, generation_config, model_kwargs, ranking)
            check_filled(model, model_kwargs["cache"])
            layout.start(model_kwargs["cache"])
            stack.enter_context(layout.running(text_decoder(model)))
            going = True
            while model._has_unfinished_sequences(not going, synced, device=input_ids.device):
                if not going:
                    model(input_ids=input_ids[:1, -1:], use_cache=False)
                    continue
                model_kwargs = model._update_model_kwargs_for_generation(outputs, model_kwargs)
                logits = outputs.logits[:, -1].to(copy=True, dtype=torch.float32, device=input_ids.device)
                scores = logits_processor(input_ids, logits)
                all_scores = None if all_scores is None else (*all_scores, scores)
                all_logits = None if all_logits is None else (*all_logits, logits)
                probabilities, candidates, broken = top_candidates(scores, self.k)
                outputs, winner = _look_ahead(model, candidates, probabilities, model_kwargs, ranking, layout)
                tokens = candidates.gather(1, winner[:, None]).squeeze(1)
                if has_eos:
                    tokens = tokens * unfinished + pad_token.to(tokens.device) * (1 - unfinished)
                input_ids = torch.cat([input_ids, tokens[:, None]], dim=-1)
                unfinished = unfinished & ~stopping_criteria(input_ids, all_scores)
                going, failed = torch.stack([unfinished.any(), broken.any().to(unfinished.device)]).tolist()
                if failed:
                    refuse_broken(broken)
                if streamer is not None:
                    streamer.put(tokens.cpu())
        layout.finish(model_kwargs["cache"])
        if streamer is not None:
            streamer.end()
        if not as_dict:
            return input_ids
        return GenerateDecoderOnlyOutput(
            sequences=input_ids,  # type: ignore[arg-type]
            scores=all_scores,  # type: ignore[arg-type]
            logits=all_logits,  # type: ignore[arg-type]
            cache=model_kwargs["cache"],
        )


def _prefill(
    model: Any,
    input_ids: torch.Tensor,
    generation_config: Any,
    model_kwargs: dict[str, Any],
    ranking: ContrastiveRanking,
) -> Any:
    def observe(hidden: torch.Tensor) -> torch.Tensor:
        ranking.observe(hidden)
        return hidden

    with head_reads(model, "contrastive_search", observe):
        outputs = model._prefill(input_ids, generation_config, model_kwargs)
    if ranking.context is None:
        raise ModelError(
            f"{type(model).__name__} never calls the decoder that its get_decoder() names, "
            f"{type(text_decoder(model)).__name__}: the hidden states that contrastive search compares cannot be read."
        )
    return outputs


def _look_ahead(
    model: Any,
    candidates: torch.Tensor,
    probabilities: torch.Tensor,
    model_kwargs: dict[str, Any],
    ranking: ContrastiveRanking,
    layout: Layout,
) -> tuple[Any, torch.Tensor]:
    """One forward over the candidates: the model's outputs for the winners alone, and the winners, shape (batch,)."""
    winner = torch.empty(0)

    def choose(hidden: torch.Tensor) -> torch.Tensor:
        nonlocal winner
        hidden = hidden.reshape(*candidates.shape, -1)
        winner = ranking.choose(hidden, probabilities, model_kwargs.get("attention_mask"))
        return hidden[torch.arange(len(winner), device=winner.device), winner][:, None]

    inputs = layout.inputs(model, candidates, model_kwargs)
    with head_reads(model, "contrastive_search", choose):
        outputs = model(**inputs, return_dict=True)
    winner = winner.to(candidates.device)
    layout.keep(model_kwargs["cache"], winner, candidates.shape[1])
    return outputs, winner


def _check_call(model: Any, input_ids: torch.Tensor, generation_config: Any, model_kwargs: dict[str, Any]) -> None:
    name = type(model).__name__
    if model.config.is_encoder_decoder:
        raise ModelError(f"{name} is an encoder-decoder; truthkit decodes decoder-only models.")
    if generation_config.do_sample:
        raise ArgumentError(
            "do_sample is True, in the call or in the model's generation_config, but contrastive search is "
            "deterministic; pass do_sample=False."
        )
    if (beams := generation_config.num_beams or 1) > 1:
        raise ArgumentError(f"num_beams is {beams}, but contrastive search follows one sequence a prompt; pass 1.")
    if generation_config.prompt_lookup_num_tokens:
        raise ArgumentError("prompt_lookup_num_tokens is set, but contrastive search drafts no tokens; leave it out.")
    if generation_config.return_dict_in_generate:
        for option in ("output_attentions", "output_hidden_states"):
            if getattr(generation_config, option):
                raise ArgumentError(
                    f"{option} is not recorded by contrastive search; run the model on the returned sequences instead."
                )
    embeds = model_kwargs.get("inputs_embeds")
    length = (input_ids if embeds is None else embeds).shape[1]
    if length == 0:
        raise ArgumentError(
            f"the prompt is empty: input_ids has shape {tuple(input_ids.shape)}; pass at least a token."
        )
    check_room(model, length, "the prompt", "shorten it")
