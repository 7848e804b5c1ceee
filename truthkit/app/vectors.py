"""The vectors that the page may steer by, and on which it projects tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from truthkit.app.events import Emit, projections_event
from truthkit.app.inputs import with_answer
from truthkit.app.problems import Problem
from truthkit.app.request import Card, Steer
from truthkit.errors import ArgumentError, TruthkitError
from truthkit.generation.answers import Answer
from truthkit.steering.projections import projections
from truthkit.steering.spec import SteerSpec, parse_layers
from truthkit.steering.steer import Steering
from truthkit.steering.vector import SteeringVector
from truthkit.steering.vision import VisionSteering, VisionVector


class _Loaded(NamedTuple):
    spec: SteerSpec
    vector: SteeringVector | VisionVector


class Vectors:
    """Those that the app was started with, read from their files and checked against the model.

    Raises:
        ArgumentError, ModelError, NotAvailableError: a vector cannot be read or is not for this model.
    """

    def __init__(self, model: Any, processor: Any, steers: Sequence[SteerSpec]):
        self._model, self._processor = model, processor
        self.loaded = [self._load(spec) for spec in steers]

    def _load(self, spec: SteerSpec) -> _Loaded:
        """The vector of a file, and its use with the layers that are steered by default."""
        vector = spec.load()
        steering = spec.on(vector, self._model, self._processor)
        if any(condition.kind == "entropy" for condition in spec.options.get("where", ())):
            raise ArgumentError(
                f"{spec.text!r} steers where the entropy was high or low, which the app cannot show: it reads an "
                "answer again to project it on the vector. Leave the condition out, or use truthkit generate."
            )
        if isinstance(vector, SteeringVector) and len(vector) > 1 and "layers" not in spec.options:
            spec = replace(spec, options={**spec.options, "layers": list(steering.layers)})
        return _Loaded(spec, vector)

    def about(self) -> list[dict[str, Any]]:
        """What the page shows of each."""
        return [
            {
                "name": Path(spec.path).name,
                "strength": spec.strength_of(vector),
                "layers": _written(spec.options.get("layers", ())),
                "all_layers": list(vector.directions),
                "site": vector.site if isinstance(vector, SteeringVector) else "vision",
            }
            for spec, vector in self.loaded
        ]

    def problems(self, index: int, card: Card) -> Iterator[Problem]:
        """What is wrong with the fields of card `index`."""
        if len(card.steering) not in (0, len(self.loaded)):
            return  # no field of the page; `steerings` tells of it
        for number, (loaded, use) in enumerate(zip(self.loaded, card.steering, strict=False)):
            try:
                self._steering(loaded, use)
            except TruthkitError as error:
                yield Problem(index, f"{'layers' if use.layers else 'strength'} {number}", str(error))

    def steerings(self, card: Card) -> list[Steering | VisionSteering]:
        """A steering for each loaded vector that the card uses."""
        if card.steering and len(card.steering) != len(self.loaded):
            raise ArgumentError(
                f"steering has {len(card.steering)} entries; expected one for each vector, of which the app has "
                f"{len(self.loaded)}."
            )
        made = [self._steering(loaded, use) for loaded, use in zip(self.loaded, card.steering, strict=False)]
        return [steering for steering in made if steering is not None]

    def _steering(self, loaded: _Loaded, use: Steer) -> Steering | VisionSteering | None:
        """None where the strength is 0."""
        if not use.strength:
            return None
        spec, vector = loaded
        options = spec.options | ({"layers": parse_layers(use.layers)} if use.layers else {})
        return replace(spec, strength=use.strength, options=options).on(vector, self._model, self._processor)

    def project(
        self,
        index: int,
        inputs: Mapping[str, torch.Tensor],
        one: Answer,
        steerings: Sequence[Steering | VisionSteering],
        emit: Emit,
    ) -> None:
        """Tell how the answer's tokens lie along every loaded vector, under the steering that made them."""
        vectors = [(number, one.vector) for number, one in enumerate(self.loaded)]
        shown = [(number, vector) for number, vector in vectors if isinstance(vector, SteeringVector)]
        if not shown or not one.token_ids:
            return
        length, whole = inputs["input_ids"].shape[1], with_answer(inputs, one.token_ids)
        for steering in steerings:
            if isinstance(steering, Steering):
                steering.prompt_lengths = [length]
        for number, vector in shown:
            along = projections(self._model, vector, whole)
            emit(projections_event(index, number, {layer: values[length:] for layer, values in along.items()}))


def _written(layers: str | Sequence[int]) -> str:
    return layers if isinstance(layers, str) else "+".join(map(str, layers))
