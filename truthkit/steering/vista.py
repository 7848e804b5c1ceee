"""VISTA, visual information steering with token-logit augmentation (Li et al., arXiv 2502.03628)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from truthkit.activations.capture import Capture
from truthkit.activations.positions import Positions
from truthkit.decoding.engine.arithmetic import check_finite
from truthkit.decoding.engine.options import Layers
from truthkit.decoding.methods.exits_mean import ExitsMean
from truthkit.errors import ArgumentError
from truthkit.hf.sites import input_device
from truthkit.hf.wrapping import plain_model
from truthkit.steering.blocks import Blocks
from truthkit.steering.conditions import Conditions
from truthkit.steering.steer import Steering


class VISTA(Blocks):
    """Move what MLPs put out towards what an image adds to the prompt, and mix early exits into the logits.

        x ← ‖x‖ · norm(x/‖x‖ + strength · (1 + max(0, cos(x, −v))) · v̂)     after every MLP, at every token
        s = (1 − share) · l + share · mean of early exits

    Source: the authors' released code for the steering, our notes on the paper for the exits. A recipe over `Steering`
    with `mode="opposed", keep_norm=True, site="mlp"`, and `ExitsMean`.

    Args:
        model: an image-text model, or a text model with directions of one's own; PEFT wrappers are looked through.
        vectors: for each layer the direction (features,), or one per prompt (prompts, features), as `vista_vectors`
            finds them.
        strength: 0.17 was published for CHAIR, 0.01 for POPE.
        share: of the early exits' mean, in [0, 1]; 0 reads none.
        layers: early exits, as in `ExitsMean`.
        norm: pass early exits through the model's final norm.
        positions: which tokens; see `truthkit.activations.positions`.
        where: what a token, or its row, must meet to be steered; see `truthkit.steering.conditions`.
        processor: tokenizer or processor, for positions that look at characters.

    Raises:
        ArgumentError: vectors that do not fit, or an option out of range.
        ModelError: early exits cannot be read from this model.

    Example:
        >>> with tk.VISTA(model, tk.vista_vectors(model, inputs, without_images)):
        ...     model.generate(**inputs, max_new_tokens=64)
    """

    def __init__(
        self,
        model: Any,
        vectors: Mapping[int, torch.Tensor],
        *,
        strength: float = 0.17,
        share: float = 0.3,
        layers: Layers | None = None,
        norm: bool = True,
        positions: Positions = "all",
        where: Conditions = None,
        processor: Any = None,
    ):
        steering = Steering(
            model,
            vectors,
            strength=check_finite("strength", strength),
            mode="opposed",
            site="mlp",
            keep_norm=True,
            positions=positions,
            where=where,
            processor=processor,
        )
        mixing = ExitsMean(model, layers=layers, share=share, norm=norm)
        super().__init__([steering, mixing] if mixing.share else [steering])


def vista_vectors(
    model: Any, inputs: Mapping[str, Any], without: Mapping[str, Any], *, layers: Sequence[int] | None = None
) -> dict[int, torch.Tensor]:
    """For each layer and prompt, what its image adds to the state of its last token: h(with) − h(without).

    Source: the authors' released code, but for the principal component of one difference that it adds, which is an
    arbitrary direction of length 1.

    Args:
        model: an image-text model; PEFT wrappers are looked through.
        inputs: the prompts with their images, as for `generate`.
        without: the same prompts in the same order without images.
        layers: layer numbers; None is all.

    Returns:
        Directions (prompts, features) by layer, on the CPU.

    Raises:
        ArgumentError: the two have not as many prompts, or the image adds nothing to one.
    """
    plain, last = plain_model(model), list[Capture]()
    for given in (inputs, without):
        moved = {
            name: value.to(input_device(plain)) if isinstance(value, torch.Tensor) else value
            for name, value in given.items()
        }
        with Capture(model, layers, positions="last") as capture, torch.no_grad():
            plain.generate(**moved, max_new_tokens=1, do_sample=False)
        last.append(capture)
    if len(last[0].rows) != len(last[1].rows):
        raise ArgumentError(f"inputs has {len(last[0].rows)} prompts, but without has {len(last[1].rows)}.")
    found = {layer: (last[0][layer] - last[1][layer]).cpu() for layer in last[0].layers}
    if not all(bool(one.any(dim=-1).all()) for one in found.values()):
        raise ArgumentError("a prompt says the same with and without its image; give without= no images.")
    return found
