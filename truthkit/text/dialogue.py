"""A prompt and its answer as tokens: one rule for generation, verdicts, training and reading.

What generation sees comes first, and the answer follows. Messages go through the chat template; without one they stand
below each other, with an empty line between them and after them (ours).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from truthkit.errors import ArgumentError, ModelError
from truthkit.text.template import around_answer, rendered, template_of
from truthkit.text.tokens import ChatOrText, begins_itself, common_start, text_ids, text_tokenizer


class Answered(NamedTuple):
    """The tokens of a prompt and its answer, and where the answer begins."""

    ids: list[int]
    start: int


def prompt_text(processor: Any, prompt: ChatOrText) -> str:
    """The prompt as text, up to where the answer begins.

    Raises:
        ArgumentError: it is empty, or the chat template does not take it.
    """
    if not prompt:
        raise ArgumentError("the prompt is empty; pass a text or chat messages.")
    if isinstance(prompt, str):
        return prompt
    if template_of(processor) is not None:
        return rendered(processor, prompt)
    return "".join(f"{message['content']}\n\n" for message in prompt)


def prompt_ids(processor: Any, prompt: ChatOrText) -> list[int]:
    """The prompt's tokens, up to where the answer begins.

    Raises:
        ArgumentError: it is empty, or the chat template does not take it.
    """
    return _ids(processor, prompt, prompt_text(processor, prompt))


def answered_ids(
    processor: Any, prompt: ChatOrText, answer: str, ending: Literal["open", "closed"] = "open"
) -> Answered:
    """The tokens of a prompt and an answer, broken off ("open"), or with what the template writes after it ("closed").

    If prompt and answer together are tokenised as the prompt is alone, theirs are taken, else each is tokenised apart,
    as generation sees them.

    Raises:
        ArgumentError: the prompt is empty, or the chat template does not take it.
        ModelError: the template writes a finished conversation otherwise than one that is to be answered.
    """
    text, rest = prompt_text(processor, prompt), _rest(processor, prompt, answer, ending)
    start, whole = _ids(processor, prompt, text), _ids(processor, prompt, text + rest)
    if whole[: len(start)] != start:
        whole = start + list(text_tokenizer(processor, "an answer")(rest, add_special_tokens=False).input_ids)
    return Answered(whole, len(start))


def read_ids(processor: Any, prompt: ChatOrText, answer: str | list[dict[str, Any]]) -> Answered:
    """The tokens of a conversation as it is written when it is over, broken off where the answer ends.

    The answer begins with the first token that holds a character of it, whatever the tokens are that generation would
    have begun with: a space at the end of the prompt that becomes part of the answer's first word, a block of thoughts.

    Args:
        processor: tokenizer or processor.
        prompt: a text, or chat messages for the chat template.
        answer: a text; or for messages a list of text parts, as image-text templates take them.

    Raises:
        ArgumentError: the prompt is empty, or the chat template does not take it.
    """
    if isinstance(prompt, str):
        text, at = f"{prompt}{answer}", len(prompt)
    else:
        text = rendered(processor, [*prompt, {"role": "assistant", "content": answer}], "open")
        before, _ = around_answer(processor, prompt, "open")
        said = answer if isinstance(answer, str) else "".join(part.get("text", "") for part in answer)
        at = len(before) if text.startswith(before) else max(text.rfind(said.strip()), 0)
    tokenizer = text_tokenizer(processor, "a prompt with its answer")
    if not getattr(tokenizer, "is_fast", False):
        ids = _ids(processor, prompt, text)
        return Answered(ids, common_start(_ids(processor, prompt, text[:at]), ids))
    special = isinstance(prompt, str) and not begins_itself(tokenizer, text)
    found = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
    start = next((i for i, (_, end) in enumerate(found.offset_mapping) if end > at), len(found.input_ids))
    return Answered(list(found.input_ids), start)


def _rest(processor: Any, prompt: ChatOrText, answer: str, ending: Literal["open", "closed"]) -> str:
    """What stands after the prompt, up to the end of the assistant's turn."""
    if isinstance(prompt, str) or not _templated(processor, prompt):
        return answer
    text = prompt_text(processor, prompt)
    whole = rendered(processor, [*prompt, {"role": "assistant", "content": answer}], ending)
    rest = whole[len(text) :]
    if not (whole.startswith(text) and answer.strip() in rest):
        asked = rendered(processor, prompt, "closed")
        before, after = around_answer(processor, prompt, ending)
        if not (asked and text.startswith(asked) and before.startswith(asked)):
            raise ModelError(
                "the chat template writes an answered conversation otherwise than one that waits for an answer, so "
                "which tokens are the answer is unknown. Give the tokenizer a template that only appends."
            )
        rest = answer + after  # only the header differs: a role by another name, thoughts that were opened
    return rest.rstrip() if ending == "closed" else rest


def _templated(processor: Any, prompt: ChatOrText) -> bool:
    return not isinstance(prompt, str) and template_of(processor) is not None


def _ids(processor: Any, prompt: ChatOrText, text: str) -> list[int]:
    tokenizer = text_tokenizer(processor, "a prompt")
    if _templated(processor, prompt):
        return list(tokenizer(text, add_special_tokens=False).input_ids)
    return text_ids(tokenizer, text)
