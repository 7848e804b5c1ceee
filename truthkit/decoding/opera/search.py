"""OPERA through `generate`: beam search that distrusts what leans on single tokens, and goes back from them.

Huang et al., *OPERA: Alleviating Hallucination in Multi-Modal Large Language Models via Over-Trust Penalty and
Retrospection-Allocation* (arXiv 2311.17911), and its released code (shikiw/OPERA, `opera_beam_search`).
A step is one forward over all candidates of all beams (`reading`); those that win have been read with it.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from transformers.generation.utils import GenerateBeamDecoderOnlyOutput

from truthkit.decoding.engine.arithmetic import check_at_least_zero, check_count, check_finite
from truthkit.decoding.engine.search_method import SearchMethod
from truthkit.decoding.opera.beams import Attention, PromptBeams, Settings, padded
from truthkit.decoding.opera.lookup import look_up
from truthkit.decoding.opera.reading import Fed, Reader, every_row, is_repeated_evenly
from truthkit.errors import ArgumentError, ModelError
from truthkit.hf.compiled import is_compiled
from truthkit.hf.fast_linear import fast_linear
from truthkit.hf.room import check_room
from truthkit.hf.sites import image_token
from truthkit.hf.steps import uncompiled
from truthkit.hf.wrapping import sole_owner

__all__ = ["OPERA", "opera"]

_SCALE, _THRESHOLD, _CANDIDATES, _WEIGHT, _BEAMS = 50.0, 15, 5, 1.0, 5


def opera(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    scale_factor: float = _SCALE,
    threshold: int = _THRESHOLD,
    num_attn_candidates: int = _CANDIDATES,
    penalty_weights: float = _WEIGHT,
    **model_kwargs: Any,
) -> Any:
    """OPERA as a `custom_generate` callable.

        model.generate(**inputs, custom_generate=tk.opera, num_beams=5, do_sample=False, max_new_tokens=512)

    With A the last block's attention among the response's tokens, maximum over heads, each row divided by its sum over
    the whole context, and t the number of tokens so far:

        P_j  = Π over i from j to t of  scale_factor · A_ij        column products, with a candidate as token t
        φ(v) = 1e-7 · max_j P_j                                    the over-trust of candidate v
        s(v) = log-softmax over a beam's candidates of  l_v − penalty_weights · φ(v)

    and beams are chosen by the sum of s. The candidates are the `num_attn_candidates` most probable tokens of each
    beam. For the first ten tokens φ is minus the attention on the image instead, 0 without one.

    The column with the largest product is the step's *summary token*: the most frequent one of a beam's candidates, of
    the beams' the prompt's. If every beam has had this one in at least `threshold` steps, and it is none of the first
    ten, the prompt goes back to where its follower was chosen: the tokens that were tried there are ruled out, and the
    best others take their place, by the model alone and out of the whole vocabulary. That happens up to
    `num_attn_candidates` times at one place, then one token earlier, then not any more.

    The penalty, the overlap ("at least `threshold`", where the code asks for one more) and the step back by one are the
    paper's. The factor 1e-7, the first ten tokens, the log-softmax over the candidates and the choice out of
    the whole vocabulary after a roll-back are the released code's. Ours: each prompt of a batch has its own roll-backs;
    a beam's history moves with it; candidates are chosen after the logits processors; products are logarithms in
    float64; what runs where (`docs/methods/opera.md`).

    Everything else is `generate`'s own beam search: `num_beams`, `length_penalty`, `early_stopping`,
    `num_return_sequences`, logits processors, stopping criteria, left padding. `return_dict_in_generate` gives
    `sequences` and `sequences_scores`. transformers hands a callable no `stop_strings`; for these use `OPERA`.

    Args:
        model: given by `generate`, like the next four and `model_kwargs`; its attention runs "sdpa" or "eager".
        input_ids: shape (batch * num_beams, prompt length), as `generate` repeats them.
        logits_processor: applied to the float32 log-probabilities.
        stopping_criteria: asked for the continuations of each prompt in turn.
        generation_config: the call's options.
        scale_factor: what attention is multiplied by, above 0; where it is 1 / scale_factor a product stays as it is.
        threshold: in how many steps the same summary token makes a roll-back, at least 1.
        num_attn_candidates: how many tokens of each beam are looked at, at least 1; with 1 there is nothing to compare,
            so the penalty counts for nothing.
        penalty_weights: of the penalty, at least 0.
        **model_kwargs: the model's inputs.

    Returns:
        Token ids of shape (batch * num_return_sequences, length), or a `GenerateBeamDecoderOnlyOutput`.

    Raises:
        ArgumentError: a setting or generation option cannot work with OPERA.
        ModelError: the model cannot read several beams in one row, its attention cannot be seen, or its logits are NaN.
        AttachError: the model runs under a decoder's context manager.
    """
    search = _Search(check_settings(scale_factor, threshold, num_attn_candidates, penalty_weights))
    with sole_owner(model, "opera"):
        return search(model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs)


class OPERA(SearchMethod):
    r"""Beam search that distrusts what leans on single tokens of its own, and goes back from them.

    Every `generate` of `model` inside this block is OPERA, with five beams unless the call asks for several itself:

        with OPERA(model, processor):
            model.generate(**inputs, max_new_tokens=512)

    See `opera` for what it computes and what it accepts.

    Args:
        model: a causal or image-text model, whose attention runs "sdpa" or "eager"; PEFT wrappers are fine.
        processor: its tokenizer or processor, for `stop_strings`; `tokenizer=` in the call comes first.
        scale_factor: what attention is multiplied by, above 0; where it is 1 / scale_factor a product stays as it is.
        threshold: in how many steps the same summary token makes a roll-back, at least 1.
        num_attn_candidates: how many tokens of each beam are looked at, at least 1.
        penalty_weights: of the over-trust penalty, at least 0; 0 leaves roll-backs alone.
        num_beams: how many beams a call has that asks for no more than one, at least 1.

    Raises:
        ArgumentError: a setting cannot work; in the call, if there is a streamer, or sampling.
        AttachError: on entry, if another decoder is attached to the model.
    """

    name: ClassVar[str] = "opera"

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        scale_factor: float = _SCALE,
        threshold: int = _THRESHOLD,
        num_attn_candidates: int = _CANDIDATES,
        penalty_weights: float = _WEIGHT,
        num_beams: int = _BEAMS,
    ):
        super().__init__(model, processor)
        self.settings = check_settings(scale_factor, threshold, num_attn_candidates, penalty_weights)
        self.num_beams = check_count("num_beams", num_beams)

    def _search(self, call: dict[str, Any], options: dict[str, Any]) -> _Search:
        call.pop("synced_gpus", None)
        if call.pop("streamer", None) is not None:
            raise ArgumentError(
                "a streamer was passed, but beams are not known before the end, and OPERA goes back; leave it out."
            )
        config = call.get("generation_config") or self.model.generation_config
        if (options.get("num_beams") or config.num_beams or 1) == 1:
            options["num_beams"] = self.num_beams
        return _Search(self.settings)


def check_settings(scale: float, threshold: int, candidates: int, weight: float) -> Settings:
    """The settings, if they can work.

    Raises:
        ArgumentError: a number is out of range.
    """
    if check_finite("scale_factor", scale) <= 0:
        raise ArgumentError(f"scale_factor is {scale!r}; expected a number above 0, usually 50.")
    counts = check_count("threshold", threshold), check_count("num_attn_candidates", candidates)
    return Settings(float(scale), *counts, check_at_least_zero("penalty_weights", weight), beams=_BEAMS)


@dataclass(frozen=True)
class _Search:
    """The decoding loop, in the role and with the signature of transformers' `_beam_search`."""

    settings: Settings

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
        repeats = max(generation_config.num_beams or 1, generation_config.num_return_sequences or 1)
        prompts = input_ids[::repeats]
        if repeats > 1 and is_repeated_evenly(model, model_kwargs):
            every_row(model_kwargs, repeats)
            input_ids, repeats = prompts, 1
        end_ids = generation_config._eos_token_tensor
        settings = replace(
            self.settings,
            candidates=min(self.settings.candidates, model.config.get_text_config(decoder=True).vocab_size),
            beams=generation_config.num_beams or 1,
            ends=0 if end_ids is None else len(end_ids),
            room=generation_config.max_length - prompts.shape[1],
            length_penalty=1.0 if generation_config.length_penalty is None else generation_config.length_penalty,
            early_stopping=generation_config.early_stopping or False,
        )
        rows = [PromptBeams(settings, _stops(prompt, stopping_criteria)) for prompt in prompts]
        reader = Reader(model, model_kwargs, settings.beams * settings.candidates, settings.beams)
        token = image_token(model)
        images = torch.zeros_like(prompts, dtype=torch.bool) if token is None else torch.eq(prompts, token)
        with ExitStack() as stack:
            stack.enter_context(uncompiled(model, is_compiled(model, model)))
            stack.enter_context(model._optimize_model_for_decode())
            stack.enter_context(fast_linear(model))
            logits = reader.prefill(input_ids, generation_config, images, repeats)[:, None]
            reader.attach(stack)
            while True:
                look_up(rows, settings, prompts, logits, logits_processor)
                logits = reader.read(
                    [_fed(row) for row in rows],
                    lambda seen, slot: [_saw(row, one, slot) for row, one in zip(rows, seen, strict=True)],
                    lambda: max(row.end for row in rows if not row.done) if not _all_done(rows) else 0,
                )
                if _all_done(rows):
                    break
        return _output(rows, prompts, generation_config)


def _all_done(rows: list[PromptBeams]) -> bool:
    return all(row.done for row in rows)


def _fed(row: PromptBeams) -> Fed:
    if row.done:
        return Fed(torch.zeros(0, dtype=torch.long), torch.zeros(0, 0, dtype=torch.long))
    return Fed(*row.fed())


def _saw(row: PromptBeams, attention: Attention, slot: int) -> torch.Tensor:
    kept = torch.zeros(0, dtype=torch.long) if row.done else row.saw(attention, slot)
    return kept[:0] if row.done else kept


def _stops(prompt: torch.Tensor, criteria: Any) -> Any:
    def stops(responses: torch.Tensor) -> torch.Tensor:
        whole = torch.cat([prompt.expand(len(responses), -1), responses.to(prompt.device)], dim=1)
        ended: torch.Tensor = criteria(whole, None)
        return ended

    return stops


def _output(rows: list[PromptBeams], prompts: torch.Tensor, generation_config: Any) -> Any:
    count = generation_config.num_return_sequences or 1
    pad_token, end_ids = generation_config._pad_token_tensor, generation_config._eos_token_tensor
    fill = -1 if pad_token is None and end_ids is None else int(end_ids[0] if pad_token is None else pad_token)
    found = []
    for row in rows:
        best = row.hypotheses[:count]
        found += [*best, *best[-1:] * (count - len(best))]
    width = max(len(one.tokens) for one in found)
    responses = padded([one.tokens for one in found], width, fill).to(prompts.device)
    sequences = torch.cat([prompts.repeat_interleave(count, dim=0), responses], dim=1)
    if not generation_config.return_dict_in_generate:
        return sequences
    scores = torch.tensor([one.score for one in found], device=prompts.device)
    return GenerateBeamDecoderOnlyOutput(sequences=sequences, sequences_scores=scores)  # type: ignore[arg-type]


def _check_call(model: Any, input_ids: torch.Tensor, generation_config: Any, model_kwargs: dict[str, Any]) -> None:
    name = type(model).__name__
    if model.config.is_encoder_decoder:
        raise ModelError(f"{name} is an encoder-decoder; truthkit decodes decoder-only models.")
    if generation_config.do_sample:
        raise ArgumentError(
            "do_sample is True, in the call or in the model's generation_config, but OPERA is a beam search without "
            "sampling; pass do_sample=False."
        )
    beams, returned = generation_config.num_beams or 1, generation_config.num_return_sequences or 1
    if returned > beams:
        raise ArgumentError(
            f"num_return_sequences is {returned}, more than num_beams, which is {beams}; ask for fewer."
        )
    if generation_config.prompt_lookup_num_tokens:
        raise ArgumentError("prompt_lookup_num_tokens is set, but OPERA drafts no tokens; leave it out.")
    if generation_config.return_dict_in_generate:
        for option in ("output_scores", "output_logits", "output_attentions", "output_hidden_states"):
            if getattr(generation_config, option):
                raise ArgumentError(
                    f"{option} is not recorded by OPERA, whose steps may be taken back; leave it out (sequences_scores "
                    "are always there), and run the model on the returned sequences instead."
                )
    embeds = model_kwargs.get("inputs_embeds")
    length = (input_ids if embeds is None else embeds).shape[1]
    if length == 0:
        raise ArgumentError(
            f"the prompt is empty: input_ids has shape {tuple(input_ids.shape)}; pass at least a token."
        )
    check_room(model, length, "the prompt", "shorten it")
    if generation_config.max_length is None or math.isinf(generation_config.max_length):
        raise ArgumentError("there is no max_length; pass max_new_tokens.")
