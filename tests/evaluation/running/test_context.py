"""Decoders that compare prompts with and without their context, handed every item's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.each import each
from tests.factcheck.cases import ChatTokenizer
from tests.tiny import tiny
from truthkit import cli
from truthkit.decoding.engine.prompt_views import passages_by_row, without_context
from truthkit.decoding.spec import parse_spec
from truthkit.evaluation.running.asking import Asking
from truthkit.evaluation.running.item import Item, check_context

CHOICES = (" So it is", " It is not", " So")
FACTS = ("A fox is a fish.", "A hen is a bird, as all know.", "A fox is a fish, and a hen a bird.", "It is so.")


def items(fact_first: bool = True) -> list[Item]:
    """Contexts in front and in the middle of prompts; the first begins the third."""
    ask = "Answer as the text says. " * (not fact_first)
    return [
        Item(str(n), f"{ask}{fact} What is it?", choices=CHOICES[: 2 + n % 2], raw=True, context=f"{fact} ")
        for n, fact in enumerate(FACTS)
    ]


def cad(logits: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return 2 * logits[0] - logits[1]


def adacad(logits: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    p, q = (one.softmax(-1) for one in logits)
    middle = ((p + q) / 2).log()
    strength = sum((one * (one.log() - middle)).sum(-1, keepdim=True) for one in (p, q)) / 2
    return logits[0] + strength * (logits[0] - logits[1])


@pytest.mark.parametrize(("family", "tolerance"), [("llama", 1e-5), ("gpt2", 1e-5), ("gemma2", 2e-3)])
def test_choices_equal_one_forward_after_the_other(family: str, tolerance: float) -> None:
    """Shared prompts or not, in all batch sizes. Oracle: two unpadded forwards for each choice, and the formula."""
    model, tokenizer = tiny(family, max_position_embeddings=256), ChatTokenizer()
    model = model if family == "gemma2" else model.double()  # whose eager attention is NaN at padding in float64
    asked = [*items(), *items(fact_first=False)]
    for name, formula in (("cad:alpha=1", cad), ("adacad", adacad)):
        expected = []
        for item in asked:
            for choice in item.choices:
                texts = (item.prompt + choice, item.prompt.replace(item.context, "") + choice)
                with torch.no_grad():
                    rows = [torch.tensor([tokenizer(text).input_ids]) for text in texts]
                    seen, bare = (model(input_ids=row).logits[0, -1 - len(choice) : -1] for row in rows)
                log_p = formula((seen, bare)).log_softmax(-1)
                expected.append(float(log_p.gather(1, torch.tensor([list(map(ord, choice))]).T).sum()))
        for size, shared in ((16, True), (1, True), (2, False)):
            asking = Asking(model, tokenizer, parse_spec(name), {}, batch_size=size, share_prefix=shared)
            found = [score for scores in asking.choose(asked) for score in scores]
            assert found == pytest.approx(expected, abs=tolerance)


def test_prompts_of_choices_are_read_once() -> None:
    """Under CAD two choices, and three, behind one prompt: less than two thirds of what whole rows are."""
    model, tokenizer = tiny("llama", max_position_embeddings=256), ChatTokenizer()

    def read(*, shared: bool) -> int:
        counts: list[int] = []
        handle = model.base_model.register_forward_pre_hook(
            lambda _m, _args, kwargs: counts.append(kwargs["input_ids"].numel()), with_kwargs=True
        )
        with handle:
            Asking(model, tokenizer, parse_spec("cad"), {}, share_prefix=shared).choose(items())
        return sum(counts)

    assert read(shared=True) < 2 / 3 * read(shared=False)


def test_written_answers_equal_one_after_the_other() -> None:
    """In chats, batched; the context is found in what the template made of the prompt."""
    model, tokenizer = tiny("llama", max_position_embeddings=256).double(), BatchTokenizer()
    asked = [Item(str(n), item.prompt, context=item.context) for n, item in enumerate(items())]
    found = Asking(model, tokenizer, parse_spec("cad:alpha=1"), {}, max_new_tokens=4).write(asked)
    for item, answer in zip(asked, found, strict=True):
        said = ""
        for _ in range(4):
            texts = (item.prompt, item.prompt.replace(item.context, ""))
            rows = [[1, *map(ord, f"u:{text}\x03a:{said}")] for text in texts]
            with torch.no_grad():
                seen, bare = (model(input_ids=torch.tensor([row])).logits[0, -1] for row in rows)
            said += chr(int((2 * seen - bare).argmax()))
        assert answer == "".join(letter for letter in said if letter not in "\x00\x01\x03").strip()


class BatchTokenizer(ChatTokenizer):
    """Batches too, padded on the left."""

    def __call__(self, text: Any, add_special_tokens: bool = True, **_options: Any) -> Any:
        if isinstance(text, str):
            return super().__call__(text, add_special_tokens)
        rows = [super(BatchTokenizer, self).__call__(one, add_special_tokens).input_ids for one in text]
        width = max(map(len, rows))
        return {
            "input_ids": torch.tensor([[0] * (width - len(row)) + row for row in rows]),
            "attention_mask": torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows]),
        }


def test_passages_by_row() -> None:
    find = passages_by_row([[1, 2, 3], [1, 2, 4], [1, 2], [5, 6]], ["x", "x", "y", "z"])
    assert list(find([[5, 6], [1, 2], [1, 2, 4], [5]])) == ["z", "y", "x", "z"]
    for row, count in (([1], 2), ([7], 0)):
        with pytest.raises(tk.ArgumentError, match=f"{count} contexts belong to prompts with this beginning"):
            find([row])
    with pytest.raises(tk.ArgumentError, match="asked twice with different contexts"):
        passages_by_row([[1, 2], [1, 2]], ["x", "y"])
    rewrite = without_context(ChatTokenizer(), lambda rows: ["b"] * len(rows))
    assert rewrite([[97, 98, 99], [98, 98]]) == [[97, 99], [98]]


@each(
    ("prompt", "context", "message"),
    [
        ("What?", "Else.", "item 7: the context 'Else.' is not in its prompt"),
        ("All of it.", "All of it.", "item 7: nothing is left of its prompt without the context"),
        ("All of it.\n ", "All of it.", "item 7: nothing is left of its prompt without the context"),
    ],
)
def test_items_refuse(prompt: str, context: str, message: str) -> None:
    with pytest.raises(tk.ArgumentError) as raised:
        Item("7", prompt, context=context)
    assert message in str(raised.value)


def test_the_key_knows_the_context() -> None:
    """So that no record is taken for that of another view; those of items without one are as they were."""
    plain, one, other = (Item("1", "a b c", context=context) for context in ("", "a ", "b "))
    assert len({plain.key, one.key, other.key}) == 3


def test_no_context_for_a_decoder_that_needs_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, and neither a model nor a folder."""
    data = tmp_path / "p.jsonl"
    data.write_text(json.dumps({"prompt": "One day"}) + "\n")
    for decoder in ("cad", "coiecd+dola", "adacad"):
        argv = ["eval", "open-ended", "--data", str(data), "--out", str(tmp_path / "run"), "--decoder", decoder]
        assert cli.main([*argv, "--scorer", "none"]) == 2
        error = capsys.readouterr().err
        assert f"decoder {decoder} compares prompts with and without their context, and item 1 has none" in error
        assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
    check_context([Item("1", "One day")], parse_spec("dola"))
