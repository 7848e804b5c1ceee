"""VTI, visual and textual intervention (Liu et al., arXiv 2410.15778)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Self

import torch

from truthkit.activations.positions import Positions
from truthkit.decoding.engine.arithmetic import check_finite
from truthkit.errors import ArgumentError, AttachError
from truthkit.steering.conditions import Conditions
from truthkit.steering.steer import Steering
from truthkit.steering.vector import SteeringVector
from truthkit.steering.vision import VisionSteering, VisionVector

STEP = 0.1
"""Of the released code, beside its alphas."""


class VTI:
    """Move what MLPs put out towards a direction, in the text decoder, in the vision tower, or in both.

        x ← ‖x‖ · norm(x/‖x‖ + 0.1 · alpha · v̂)     after every MLP, at every token

    Source: the authors' released code, whose 0.1 stands beside its alphas. A recipe over `Steering` with
    `mode="relative", keep_norm=True, site="mlp"`, and `VisionSteering`.

    Args:
        model: an image-text model, or a text model with `text` only; PEFT wrappers are looked through.
        text: directions of the text decoder: `tk.extract(..., method="mean_pca", positions="last")` on pairs of a right
            and a hallucinated description of one image. None leaves it as it is.
        vision: directions of the vision tower, from `vision_vector`. None leaves it as it is.
        alpha_text: strength in the text decoder.
        alpha_image: strength in the vision tower.
        layers: blocks of the text decoder to steer; None is all that `text` has.
        positions: which tokens; see `truthkit.activations.positions`.
        where: what a token, or its row, must meet to be steered; see `truthkit.steering.conditions`.
        processor: tokenizer or processor, for positions that look at characters.
        allow_other_model: steer another model than the one that the directions were made from.

    Raises:
        ArgumentError: nothing to steer by, or a vector that does not fit.
        ModelError: a vector is another model's, or there is no vision tower.

    Example:
        >>> with tk.VTI(model, text, vision):
        ...     model.generate(**inputs, max_new_tokens=64)
    """

    def __init__(
        self,
        model: Any,
        text: SteeringVector | Mapping[int, torch.Tensor] | None = None,
        vision: VisionVector | None = None,
        *,
        alpha_text: float = 0.9,
        alpha_image: float = 0.9,
        layers: Sequence[int] | None = None,
        positions: Positions = "all",
        where: Conditions = None,
        processor: Any = None,
        allow_other_model: bool = False,
    ):
        if text is None and vision is None:
            raise ArgumentError("VTI was given nothing to steer by; pass text=, vision=, or both.")
        self.alpha_text, self.alpha_image = (
            check_finite("alpha_text", alpha_text),
            check_finite("alpha_image", alpha_image),
        )
        parts: list[Steering | VisionSteering] = []
        if text is not None:
            directions = text if isinstance(text, Mapping) else text.directions
            if isinstance(text, SteeringVector):
                text.check_model(model, allow_other_model=allow_other_model)
                directions = (text if layers is None else text.at(layers)).directions
            elif layers is not None:
                raise ArgumentError("layers goes with a SteeringVector; give the directions of these layers alone.")
            steering = Steering(
                model,
                directions,
                strength=STEP * self.alpha_text,
                mode="relative",
                site="mlp",
                keep_norm=True,
                positions=positions,
                where=where,
                processor=processor,
            )
            parts.append(steering)
        if vision is not None:
            strength = STEP * self.alpha_image
            parts.append(VisionSteering(model, vision, strength=strength, allow_other_model=allow_other_model))
        self._parts = parts
        self._stack: ExitStack | None = None

    def __enter__(self) -> Self:
        if self._stack is not None:
            raise AttachError("this VTI is entered already; leave its block first, or make another one.")
        with ExitStack() as stack:
            for part in self._parts:
                stack.enter_context(part)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.__exit__(*exception)
