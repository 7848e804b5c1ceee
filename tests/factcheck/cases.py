"""What the tests of verdicts and REFLEX share: a chat tokenizer of one token per character, claims, a tuned model."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import torch

from tests.activations.oracle import block_list
from tests.decoding.cases import ToyTokenizer
from tests.tiny import tiny
from truthkit.factcheck.claims import LABELS_3, Claim
from truthkit.factcheck.dialogue import dialogue

END = "\x03"


class ChatTokenizer(ToyTokenizer):
    """Messages as `role-initial ":" content END`, an answer begins with `a:`."""

    chat_template = "role: content"
    pad_token_id = 0

    def apply_chat_template(
        self,
        messages: list[dict[str, str]],
        *,
        tokenize: bool = True,
        return_dict: bool = False,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        chat_template: str | None = None,
    ) -> Any:
        assert not return_dict
        text = "".join(f"{one['role'][0]}:{one['content']}{END}" for one in messages)
        text = text.removesuffix(END) if continue_final_message else text + "a:" * add_generation_prompt
        return [1, *map(ord, text)] if tokenize else chr(1) + text

    def decode(self, ids: Any, skip_special_tokens: bool = False, **_options: Any) -> str:
        return "".join(chr(i) for i in ids if not (skip_special_tokens and i in (0, 1, 3)))


def toy_claims(count: int = 12, seed: int = 0, labels: tuple[str, ...] = LABELS_3) -> list[Claim]:
    draw = random.Random(seed)

    def words(most: int) -> str:
        return "".join(chr(draw.randint(97, 122)) for _ in range(draw.randint(2, most)))

    return [
        Claim(str(i), words(24), draw.choice(labels), explanation=f"{words(9)} {words(9)}.", evidence=words(20))
        for i in range(count)
    ]


def tuned(family: str = "llama", seed: int = 0, scale: float = 1.0) -> Any:
    """A tiny model with a random adapter that changes its verdicts."""
    import peft

    config = peft.LoraConfig(target_modules=["q_proj", "v_proj", "down_proj"], r=4, lora_alpha=8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wrapped = peft.get_peft_model(tiny(family, max_position_embeddings=1024), config)
        for name, weight in wrapped.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(weight, std=0.2 * scale)
    return wrapped.eval()


def prompt_of(claim: Claim, explain: bool = True) -> list[dict[str, str]]:
    return dialogue(claim, explain=explain, evidence=False, labels=LABELS_3, answer=False)


def prompt_ids(claim: Claim, explain: bool = True) -> list[int]:
    """The oracle's own account of a prompt."""
    text = "".join(f"{one['role'][0]}:{one['content']}{END}" for one in prompt_of(claim, explain))
    return [1, *map(ord, text + "a:")]


Change = Callable[[torch.Tensor], torch.Tensor]
Edits = Iterable[tuple[int, Change, Callable[[int, int], Iterable[int]]]]
"""Layer, what happens to one state there, and at which tokens, by prompt length and present length."""


def letters(text: str) -> list[int]:
    """`ChatTokenizer`'s tokens."""
    return list(map(ord, text))


def label_score(
    model: Any,
    prompt: list[int],
    label: str,
    edits: Edits = (),
    lead: str = "Verdict:",
    encode: Callable[[str], list[int]] = letters,
) -> float:
    """Log-probability of " label" after prompt and lead: one forward, without batch, padding or cache."""
    begun = [*prompt, *encode(lead)]
    ids = [*begun, *encode(" " + label)]
    with ExitStack() as stack, torch.no_grad():
        for layer, change, where in edits:

            def edit(
                _module: Any, _args: Any, output: Any, change: Change = change, where: Any = where
            ) -> torch.Tensor | tuple[Any, ...]:
                hidden = (output[0] if isinstance(output, tuple) else output).clone()
                for at in where(len(prompt), len(ids)):
                    hidden[0, at] = change(hidden[0, at])
                return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

            stack.callback(block_list(base_of(model))[layer].register_forward_hook(edit).remove)
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double().log_softmax(-1)
    return float(sum(logits[i - 1, ids[i]] for i in range(len(begun), len(ids))))


def base_of(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "peft_config") else model
