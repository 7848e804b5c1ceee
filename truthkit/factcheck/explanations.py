"""Answers under guidance, in batches: free ones, and ones whose beginning is settled, such as a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from truthkit.errors import ArgumentError
from truthkit.factcheck.dialogue import answer_head
from truthkit.factcheck.guide import Guide, guided
from truthkit.hf.room import check_room
from truthkit.hf.sites import input_device
from truthkit.hf.wrapping import plain_model
from truthkit.text.encode import encode_dialogue
from truthkit.text.tokens import ChatOrText, batches, padded, text_tokenizer


class _Beginning(LogitsProcessor):
    """Forces each row's first tokens, so that they count as generated, for steering too."""

    def __init__(self, width: int, heads: Sequence[Sequence[int]]):
        self._width, self._heads = width, heads

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        at = input_ids.shape[1] - self._width
        for row, head in enumerate(self._heads):
            if at < len(head):
                scores[row] = float("-inf")
                scores[row, head[at]] = 0.0
        return scores


def answers(
    model: Any,
    processor: Any,
    prompts: Sequence[ChatOrText],
    *,
    heads: Sequence[str] | None = None,
    guides: Sequence[Guide] = (),
    max_new_tokens: int = 160,
    token_budget: int = 2048,
) -> list[str]:
    """Greedy answers (temperature 0) to all prompts, in their order, special tokens left out.

    Args:
        model: the model, adapters as they are.
        processor: its tokenizer or processor.
        prompts: what is asked.
        heads: what each answer begins with; it is part of the result.
        guides: steering that is on.
        max_new_tokens: at most this many after the head.
        token_budget: how many tokens, padding and answers included, run in one batch.

    Raises:
        ArgumentError: no prompts, not as many heads, or a prompt that leaves no room for an answer.
    """
    if not prompts or (heads is not None and len(heads) != len(prompts)):
        raise ArgumentError(f"there are {len(heads or ())} heads for {len(prompts)} prompts; give one for each.")
    if max_new_tokens < 1:
        raise ArgumentError(f"max_new_tokens is {max_new_tokens}; expected at least 1.")
    plain, tokenizer = plain_model(model), text_tokenizer(processor, "answers")
    texts = [encode_dialogue(tokenizer, prompt) for prompt in prompts]
    begun = [
        encode_dialogue(tokenizer, prompt, head)[len(text) :] if head else []
        for prompt, head, text in zip(prompts, heads or [""] * len(prompts), texts, strict=True)
    ]
    lengths = [len(text) + len(head) + max_new_tokens for text, head in zip(texts, begun, strict=True)]
    number = lengths.index(max(lengths))
    check_room(plain, lengths[number], f"prompts[{number}] with its answer", "shorten it, or lower max_new_tokens")
    pad = next(
        (one for one in (plain.generation_config.pad_token_id, getattr(tokenizer, "pad_token_id", None)) if one), 0
    )
    found = [""] * len(prompts)
    for batch in batches(lengths, token_budget):
        ids, mask = padded([texts[i] for i in batch], pad=pad)
        width = ids.shape[1]
        forced = [begun[i] for i in batch]
        with guided(model, guides, processor), torch.no_grad():
            output = plain.generate(
                input_ids=ids.to(input_device(plain)),
                attention_mask=mask.to(input_device(plain)),
                max_new_tokens=max_new_tokens + max(map(len, forced)),
                do_sample=False,
                num_beams=1,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=pad,
                logits_processor=LogitsProcessorList([_Beginning(width, forced)]),
            )
        for i, row in zip(batch, output[:, width:].tolist(), strict=True):
            new = row[: len(begun[i]) + max_new_tokens]
            found[i] = tokenizer.decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()
    return found


def explanations(
    model: Any,
    processor: Any,
    prompts: Sequence[ChatOrText],
    labels: Sequence[str],
    *,
    guides: Sequence[Guide] = (),
    max_new_tokens: int = 160,
    token_budget: int = 2048,
) -> list[str]:
    """What is said after each verdict, when `labels` are the verdicts, one for every prompt.

    The other arguments are those of `answers`.
    """
    heads = [answer_head(label).rstrip() for label in labels]
    said = answers(
        model,
        processor,
        prompts,
        heads=heads,
        guides=guides,
        max_new_tokens=max_new_tokens,
        token_budget=token_budget,
    )
    return [text.removeprefix(head).strip() for text, head in zip(said, heads, strict=True)]
