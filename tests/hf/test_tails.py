"""Early exits against the model itself with the blocks above replaced by the identity."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import truthkit as tk
from tests.hf.architectures import classes, small
from truthkit.decoding.engine.early_exits import EarlyExits
from truthkit.hf.sites import decoder_blocks
from truthkit.hf.tails import first_tensor
from truthkit.hf.wrapping import language_half

IDS = torch.randint(3, 100, (2, 9), generator=torch.Generator().manual_seed(0))
LAYER = 1


def exits(model: Any, keep: int = 0) -> torch.Tensor:
    """The exit behind `LAYER`, shape (2, positions, vocabulary)."""
    tap = EarlyExits(language_half(model), [LAYER])
    with torch.no_grad(), tap.reading([slice(0, 2)], keep):
        logits: torch.Tensor = model(
            input_ids=IDS, use_cache=False, **({"logits_to_keep": keep} if keep else {})
        ).logits
    return logits[2:]


def with_identity_above(model: Any) -> torch.Tensor:
    blocks, reached = decoder_blocks(language_half(model)), []

    def keep(_module: Any, _args: Any, output: Any) -> None:
        reached.append(first_tensor(output))

    def replaced(_module: Any, _args: Any, output: Any) -> Any:
        if isinstance(output, tuple | list):
            return type(output)([reached[0], *output[1:]])
        return reached[0]

    hooks = [blocks[LAYER].register_forward_hook(keep)]
    hooks += [block.register_forward_hook(replaced) for block in list(blocks)[LAYER + 1 :]]
    try:
        with torch.no_grad():
            logits: torch.Tensor = model(input_ids=IDS, use_cache=False).logits
    finally:
        for hook in hooks:
            hook.remove()
    return logits


def check(model: Any) -> None:
    expected = with_identity_above(model)
    torch.testing.assert_close(exits(model), expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-4)


UNUSUAL = {
    "lfm2": "its norm is called embedding_norm",
    "llama4_text": "its decoder has a head of its own",
    "modernbert-decoder": "its head is called decoder, and a module stands before it",
    "bert": "its blocks lie a level deeper, and a transform stands before the head",
    "minicpm": "what its norm returns is scaled before the head",
    "opt": "its decoder is in a decoder",
    "mamba": "its blocks are no attention",
    "xglm": "its norm is called layer_norm",
}


@pytest.mark.parametrize("model_type", [name for name in UNUSUAL if name in {one for one, _, _ in classes()}])
def test_exits_of_unusual_architectures(model_type: str) -> None:
    model = small(model_type)
    check(model)
    if model_type in ("lfm2", "opt"):
        torch.testing.assert_close(exits(model, keep=2), exits(model)[:, -2:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("dory", "runs block 1 several times in one forward"),
        ("cpmant", "does not turn its output into what its head reads"),
        ("mllama", "its last block did not run"),
    ],
)
def test_exits_that_are_refused(model_type: str, reason: str) -> None:
    if model_type not in {name for name, _, _ in classes()}:
        pytest.skip(f"this transformers has no {model_type}")
    model = small(model_type)
    hooks = {name: len(module._forward_hooks) for name, module in model.named_modules()}
    with pytest.raises(tk.ModelError, match=rf"early exits are not possible in \w+: .*{reason}"):
        exits(model)
    assert {name: len(module._forward_hooks) for name, module in model.named_modules()} == hooks


def test_a_scale_before_the_head_is_learnt_and_forgotten() -> None:
    model = small("llama")
    plain = exits(model)
    scale = model.lm_head.register_forward_pre_hook(lambda _module, args: (args[0] * 0.25,))
    torch.testing.assert_close(exits(model), 0.25 * plain, atol=1e-5, rtol=1e-5)
    scale.remove()
    assert torch.equal(exits(model), plain)


@pytest.mark.slow
def test_every_architecture() -> None:
    """Each class that becomes small and takes token ids alone gives right exits, or refuses with a reason."""
    right, refused, wrong = [], {}, {}
    for model_type, _, _ in classes():
        try:
            model = small(model_type)
            with torch.no_grad():
                assert model(input_ids=IDS, use_cache=False).logits.shape[:2] == IDS.shape
        except Exception:  # its sizes do not go together, or it wants more than text
            continue
        try:
            check(model)
            right.append(model_type)
        except tk.TruthkitError as error:
            refused[model_type] = str(error)
        except Exception as error:
            wrong[model_type] = f"{type(error).__name__}: {error}"
    print(f"{len(right)} right; refused: {refused}")
    assert wrong == {}
    assert len(right) >= 86
