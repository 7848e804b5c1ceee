"""The prompts of views, as token ids.

The oracle for chat prompts is `apply_chat_template` on the messages that the view stands for.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest

import truthkit as tk
from tests.decoding.cases import ToyTokenizer
from truthkit.decoding.engine.prompt_views import with_instruction, without_context

INSTRUCTION = "Answer truthfully, or say that you do not know."
QUESTION = "Who wrote Romeo and Juliet?"

NO_SYSTEM = """{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}\
{{ raise_exception('no system role') }}{% endif %}<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
SILENT = (
    NO_SYSTEM.replace("{{ raise_exception('no system role') }}", "")
    .replace(
        "<|im_start|>{{ message['role'] }}", "{% if message['role'] != 'system' %}<|im_start|>{{ message['role'] }}", 1
    )
    .replace("<|im_end|>\n{% endfor %}", "<|im_end|>\n{% endif %}{% endfor %}", 1)
)
UPPER = NO_SYSTEM.replace("message['content']", "message['content'] | replace('content', 'matter')")


@pytest.fixture(scope="module")
def tokenizer(smollm2: tuple[Any, Any]) -> Any:
    return smollm2[1]


def templated(tokenizer: Any, template: str) -> Any:
    other = copy.deepcopy(tokenizer)
    other.chat_template = template
    return other


def chat(tokenizer: Any, *messages: tuple[str, str], end: bool = True) -> list[int]:
    rendered = [{"role": role, "content": content} for role, content in messages]
    return tokenizer.apply_chat_template(rendered, add_generation_prompt=end, return_dict=True)["input_ids"]


class TestChatPrompts:
    """The instruction becomes the system message, in place of the template's own or of the user's."""

    @pytest.mark.parametrize(
        "messages",
        [
            [("user", QUESTION)],
            [("user", f"\n\n  {QUESTION}\n")],
            [("system", "You are a pirate."), ("user", QUESTION)],
            [("user", "Hi"), ("assistant", "Hello!"), ("user", QUESTION)],
            [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello!"), ("user", QUESTION)],
        ],
        ids=["user", "spaces", "own system", "several turns", "own system, several turns"],
    )
    @pytest.mark.parametrize("end", [True, False])
    def test_system_message(self, tokenizer: Any, messages: list[tuple[str, str]], end: bool) -> None:
        rest = [message for message in messages if message[0] != "system"]
        want = chat(tokenizer, ("system", INSTRUCTION), *rest, end=end)
        assert with_instruction(tokenizer, INSTRUCTION)([chat(tokenizer, *messages, end=end)]) == [want]

    def test_several_rows_of_different_kinds(self, tokenizer: Any) -> None:
        rows = [chat(tokenizer, ("user", QUESTION)), tokenizer("Rome is").input_ids]
        got = with_instruction(tokenizer, INSTRUCTION)(rows)
        assert got[0] == chat(tokenizer, ("system", INSTRUCTION), ("user", QUESTION))
        assert got[1] == tokenizer(f"{INSTRUCTION}\n\n").input_ids + tokenizer("Rome is").input_ids

    def test_begun_answer_stays(self, tokenizer: Any) -> None:
        begun = tokenizer(" It was", add_special_tokens=False).input_ids
        got = with_instruction(tokenizer, INSTRUCTION)([chat(tokenizer, ("user", QUESTION)) + begun])
        assert got == [chat(tokenizer, ("system", INSTRUCTION), ("user", QUESTION)) + begun]

    def test_processor_that_holds_a_tokenizer(self, tokenizer: Any) -> None:
        processor = type("Processor", (), {"tokenizer": tokenizer})()
        ids = chat(tokenizer, ("user", QUESTION))
        assert with_instruction(processor, INSTRUCTION)([ids]) == with_instruction(tokenizer, INSTRUCTION)([ids])

    @pytest.mark.parametrize("template", [NO_SYSTEM, SILENT], ids=["refused", "left out"])
    def test_template_without_system_role(self, tokenizer: Any, template: str) -> None:
        """The instruction tops the first user message, whether the template refuses the role or drops it."""
        other = templated(tokenizer, template)
        got = with_instruction(other, INSTRUCTION)([chat(other, ("user", QUESTION))])
        want = chat(other, ("user", f"{INSTRUCTION}\n\n{QUESTION}"))
        assert tokenizer.decode(got[0]) == tokenizer.decode(want)

    def test_template_that_changes_what_is_said(self, tokenizer: Any) -> None:
        """Nobody can tell where the message begins: the instruction goes in front."""
        other = templated(tokenizer, UPPER)
        ids = chat(other, ("user", QUESTION))
        (got,) = with_instruction(other, INSTRUCTION)([ids])
        assert tokenizer.decode(got).replace("<|im_start|>", "").startswith(INSTRUCTION)
        assert got[-len(ids) + 1 :] == ids[1:]


class TestPlainPrompts:
    """In front, after a beginning-of-sequence token, with an empty line between."""

    def test_with_bos(self) -> None:
        got = with_instruction(ToyTokenizer(), "Say so.")([[1, *map(ord, "Rome is")]])
        assert got == [[1, *map(ord, "Say so.\n\nRome is")]]

    def test_without_bos(self) -> None:
        assert with_instruction(ToyTokenizer(), "Say so.")([list(map(ord, "Rome"))]) == [
            list(map(ord, "Say so.\n\nRome"))
        ]

    @pytest.mark.parametrize("instruction", ["", " \n"])
    def test_empty_instruction(self, instruction: str) -> None:
        with pytest.raises(tk.ArgumentError, match="the instruction is empty"):
            with_instruction(ToyTokenizer(), instruction)


class TestWithoutContext:
    def test_chat_prompt(self, tokenizer: Any) -> None:
        context = "Romeo and Juliet was written by Christopher Marlowe."
        ids = chat(tokenizer, ("user", f"{context} {QUESTION}"))
        assert without_context(tokenizer, context)([ids]) == [chat(tokenizer, ("user", f" {QUESTION}"))]

    def test_one_passage_for_all_or_one_each_or_beams(self) -> None:
        rows = [list(map(ord, text)) for text in ("ab. c?", "ab. d?", "xy. e?", "xy. f?")]
        cut = ["".join(map(chr, ids)) for ids in without_context(ToyTokenizer(), ["ab.", "xy."])(rows)]
        assert cut == [" c?", " d?", " e?", " f?"]
        assert without_context(ToyTokenizer(), "ab.")(rows[:2]) == [list(map(ord, " c?")), list(map(ord, " d?"))]

    def test_only_the_first_occurrence(self) -> None:
        assert without_context(ToyTokenizer(), "ab")([list(map(ord, "ab ab"))]) == [list(map(ord, " ab"))]

    def test_refusals(self) -> None:
        with pytest.raises(tk.ArgumentError, match="context is empty"):
            without_context(ToyTokenizer(), [])
        with pytest.raises(tk.ArgumentError, match="context 'zz' does not occur in the prompt 'ab'"):
            without_context(ToyTokenizer(), "zz")([[97, 98]])
        with pytest.raises(tk.ArgumentError, match="2 passages for 3 rows"):
            without_context(ToyTokenizer(), ["a", "b"])([[97], [98], [97]])
