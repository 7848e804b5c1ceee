"""A tiny model with a chat template, and questions to learn by heart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.models.folders import byte_tokenizer
from tests.tiny import tiny
from truthkit.training.chat import Example

TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }}: {{ message['content'] }}</s> {% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)
"""With one space after each turn, which belongs to no answer."""


def chat_tokenizer(template: str | None = TEMPLATE) -> Any:
    """One token per character, `<s>` and `</s>`."""
    tokenizer = byte_tokenizer(eos_token="</s>", bos_token="<s>", pad_token="<pad>")
    tokenizer.chat_template = template
    return tokenizer


def chat_folder(folder: Path, family: str = "llama") -> Path:
    """A model folder as the hub would serve it."""
    tiny(family, eos_token_id=2).save_pretrained(folder)
    chat_tokenizer().save_pretrained(folder)
    return folder


def toy_examples(count: int = 12) -> list[Example]:
    return [
        Example([{"role": "user", "content": f"What is {n}?"}], f"It is {n * n}.", name=f"example {n}")
        for n in range(count)
    ]


def halueval(path: Path, count: int = 12) -> Path:
    """A file in HaluEval's form."""
    records = [
        {
            "knowledge": f"The square of {n} is {n * n}.",
            "question": f"What is the square of {n}?",
            "right_answer": str(n * n),
            "hallucinated_answer": f"It is {n * n + 7}, of course.",
        }
        for n in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, records)))
    return path
