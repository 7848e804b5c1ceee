"""The amateur that ICD and LOL contrast with: an adapter, a prompt, or another model."""

from __future__ import annotations

from typing import Any

from truthkit.decoding.engine.prompt_views import with_instruction
from truthkit.decoding.engine.registry import PROMPT_ONLY
from truthkit.decoding.engine.view import View
from truthkit.errors import ArgumentError, ModelError
from truthkit.hf.wrapping import plain_model
from truthkit.models.shipped_amateur import shipped_amateur
from truthkit.text.tokens import text_tokenizer

DISHONEST_PROMPT = (
    "You are an assistant who always answers with something false. Be confident, sound convincing, "
    "and never give the correct answer."
)
"""The instruction of the prompt-only amateur; the wording is ours."""


def amateur_view(model: Any, processor: Any, amateur: Any, amateur_prompt: str | None, *, exits: bool = False) -> View:
    """The amateur as a view.

    Args:
        model: the expert.
        processor: the expert's tokenizer or processor; needed for a prompt-only amateur.
        amateur: a LoRA adapter that makes the model hallucinate (a name loaded in the model, a PEFT folder, a hub id),
            or another model with the same tokenizer, alone or as the pair that `tk.load` returns. "prompt": the model
            itself under `amateur_prompt`. None: the adapter that comes along where `model` is the bundled model
            (`truthkit.models.shipped_amateur`) and there is no `amateur_prompt`, else "prompt".
        amateur_prompt: a system instruction for the amateur; None is `DISHONEST_PROMPT` for the prompt-only amateur,
            and no instruction otherwise.
        exits: whether early exits are read in the amateur.

    Raises:
        ArgumentError: `amateur` is nothing of these.
        ModelError: the other model's tokenizer differs.
    """
    if amateur is None and amateur_prompt is None:
        amateur = shipped_amateur(model)
    if amateur is None or (isinstance(amateur, str) and amateur == PROMPT_ONLY):
        amateur, amateur_prompt = None, DISHONEST_PROMPT if amateur_prompt is None else amateur_prompt
    prompt = with_instruction(processor, amateur_prompt) if amateur_prompt is not None else None
    if amateur is None or isinstance(amateur, str):
        return View("amateur", prompt=prompt, adapter=amateur, exits=exits)
    other, other_processor = amateur if isinstance(amateur, tuple) and len(amateur) == 2 else (amateur, None)
    if not hasattr(other, "generate"):
        raise ArgumentError(
            f"amateur is a {type(amateur).__name__}; expected an adapter's name or path, a model, or the pair from "
            "tk.load."
        )
    if plain_model(other) is plain_model(model):
        raise ArgumentError(
            "amateur is the model itself, so there is nothing to contrast with; pass an adapter, another model, or "
            "amateur_prompt."
        )
    if other_processor is not None and processor is not None:
        mine, theirs = (text_tokenizer(p, "amateur").get_vocab() for p in (processor, other_processor))
        if mine != theirs:
            raise ModelError(
                f"the amateur's tokenizer differs from the model's ({len(theirs)} and {len(mine)} tokens): their "
                "logits cannot be compared. Use an amateur with the same tokenizer."
            )
    return View("amateur", prompt=prompt, model=other, exits=exits)
