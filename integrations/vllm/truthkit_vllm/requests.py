"""Requests for `LLM.generate`: prompts with their views, and strengths of steering vectors."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from truthkit_vllm.asked import KEY, asked

if TYPE_CHECKING:
    from vllm import SamplingParams


def steered(params: SamplingParams, strengths: Mapping[str, float]) -> SamplingParams:
    """`params` with strengths of the engine's vectors, by name.

    Raises:
        ValueError: a strength is no number.
    """
    return _told(params, steer=dict(strengths))


def views(
    decoder: str, prompts: Iterable[tuple[Any, Any]], params: SamplingParams
) -> tuple[list[Any], list[SamplingParams]]:
    """Prompts and sampling parameters of all views, a prompt's behind each other: `llm.generate(...)[::2]` are answers.

    Args:
        decoder: "cad" or "icd", with options if any.
        prompts: of each its two views: with and without the context for CAD, the model's and the amateur's for ICD.
        params: of all.

    Raises:
        ValueError: another decoder, or parameters under which views would choose different tokens.
    """
    texts: list[Any] = []
    parameters: list[SamplingParams] = []
    for pair in prompts:
        group = uuid.uuid4().hex
        for view, prompt in enumerate(pair):
            texts.append(prompt)
            parameters.append(_told(params, decoder=decoder, group=group, view=view))
    return texts, parameters


def _told(params: SamplingParams, **more: Any) -> SamplingParams:
    told = params.clone()
    before = (told.extra_args or {}).get(KEY, {})
    told.extra_args = {**(told.extra_args or {}), KEY: {**before, **more}}
    asked(told)
    return told
