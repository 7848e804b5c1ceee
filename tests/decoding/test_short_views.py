"""Views with short prompts. Oracle: the same decoder with all prompts in one forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import truthkit as tk
from tests.decoding.cases import ToyTokenizer
from tests.tiny import padded_batch, tiny

LENGTHS = (150, 90, 140)


def passages(inputs: dict[str, torch.Tensor]) -> list[str]:
    """From each prompt what leaves few tokens of it."""
    rows = [ids[mask.bool()] for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)]
    return ["".join(map(chr, row[3 : len(row) - 12].tolist())) for row in rows]


def generate(model: Any, decoder: Any, inputs: dict[str, torch.Tensor], **options: Any) -> tuple[Any, list[torch.Size]]:
    shapes: list[torch.Size] = []
    handle = model.get_decoder().register_forward_pre_hook(
        lambda _m, args, kwargs: shapes.append((args[0] if args else kwargs["input_ids"]).shape), with_kwargs=True
    )
    options = {"max_new_tokens": 6, "do_sample": False, "return_dict_in_generate": True, **options}
    with handle, decoder:
        return model.generate(**inputs, **options), shapes


@pytest.mark.parametrize(
    ("family", "company"), [("llama", True), ("qwen3", False), ("gpt2", True), ("phi3", False)], ids=str
)
@pytest.mark.parametrize("mode", [{}, {"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}])
def test_same_as_in_one_forward(
    family: str, mode: dict[str, Any], company: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another view beside it, which reads in the middle, or alone."""
    model, inputs = tiny(family), padded_batch(*LENGTHS)

    def decoder() -> Any:
        cad = tk.CAD(model, ToyTokenizer(), context=passages(inputs), alpha=0.5)
        return cad + tk.ICD(model, ToyTokenizer(), amateur_prompt="lie", beta=0.0) if company else cad

    torch.manual_seed(0)
    apart, shapes = generate(model, decoder(), inputs, output_logits=True, output_hidden_states=True, **mode)
    monkeypatch.setattr("truthkit.decoding.engine.forward.read_short", lambda _group, wide, _cache, _run: (wide, None))
    torch.manual_seed(0)
    together, shapes_together = generate(
        model, decoder(), inputs, output_logits=True, output_hidden_states=True, **mode
    )
    assert apart.sequences.tolist() == together.sequences.tolist()
    for mine, theirs in zip(apart.logits, together.logits, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    assert [state[-1].shape for state in apart.hidden_states] == [state[-1].shape for state in together.hidden_states]
    short, long = shapes[:2]
    assert short[1] < 20
    assert long[0] + short[0] == shapes_together[0][0]
    assert shapes[2:] == shapes_together[1:]


@pytest.mark.parametrize("options", [{"cache_implementation": "static"}, {"use_cache": False}])
def test_other_caches_read_all_at_once(options: dict[str, Any]) -> None:
    model, inputs = tiny("llama"), padded_batch(*LENGTHS)
    expected, _ = generate(model, tk.CAD(model, ToyTokenizer(), context=passages(inputs)), inputs)
    output, shapes = generate(model, tk.CAD(model, ToyTokenizer(), context=passages(inputs)), inputs, **options)
    assert shapes[0][0] == 2 * len(LENGTHS)
    assert output.sequences.tolist() == expected.sequences.tolist()


def test_early_exits_and_adapters_read_all_at_once() -> None:
    model, inputs = tiny("llama"), padded_batch(*LENGTHS)
    cad = tk.CAD(model, ToyTokenizer(), context=passages(inputs))
    _, shapes = generate(model, cad + tk.DoLa(model), inputs)
    assert shapes[0][0] == 2 * len(LENGTHS)
