"""One model that answers for the page."""

from __future__ import annotations

import io
import random
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

import truthkit
from truthkit.app.events import Emit, Event, projections_event, token_event, transforms_event
from truthkit.app.request import MAX_BODY, MAX_CARDS, MAX_IMAGES, MAX_NEW_TOKENS, MAX_TEXT, Card, RunRequest
from truthkit.decoding.catalog import catalog
from truthkit.decoding.engine.registry import PROMPT_ONLY
from truthkit.decoding.spec import DecoderSpec
from truthkit.errors import ArgumentError, TruthkitError
from truthkit.generation.answers import Answer, answer, parts_at
from truthkit.generation.explain import Step
from truthkit.generation.pieces import Pieces
from truthkit.generation.settings import AnswerSettings
from truthkit.hf.sites import decoder_blocks
from truthkit.hf.wrapping import plain_model
from truthkit.images.reading import read_image
from truthkit.printable import printable
from truthkit.scenes.render import render
from truthkit.scenes.scene import sample_scene
from truthkit.serving.outbox import Gone
from truthkit.steering.projections import projections
from truthkit.steering.spec import SteerSpec, parse_layers
from truthkit.steering.steer import Steering
from truthkit.steering.vector import SteeringVector
from truthkit.steering.vision import VisionSteering, VisionVector
from truthkit.text.encode import encode_prompt, passage_in_front
from truthkit.text.tokens import text_tokenizer

_SCENES = "scene-vlm"
"""The test model that has seen nothing but drawn scenes."""

Stop = Callable[[], bool]
"""Asked after every token: whether to end the run there."""


class _Loaded(NamedTuple):
    spec: SteerSpec
    vector: SteeringVector | VisionVector


def _loaded(spec: SteerSpec, model: Any, processor: Any) -> _Loaded:
    """The vector of a file, checked against `model`, and its use with the layers that are steered by default."""
    vector = spec.load()
    steering = spec.on(vector, model, processor)
    if any(condition.kind == "entropy" for condition in spec.options.get("where", ())):
        raise ArgumentError(
            f"{spec.text!r} steers where the entropy was high or low, which the app cannot show: it reads an answer "
            "again to project it on the vector. Leave the condition out, or use truthkit generate."
        )
    if isinstance(vector, SteeringVector) and len(vector) > 1 and "layers" not in spec.options:
        spec = replace(spec, options={**spec.options, "layers": list(steering.layers)})
    return _Loaded(spec, vector)


def _written(layers: str | Sequence[int]) -> str:
    return layers if isinstance(layers, str) else "+".join(map(str, layers))


class Engine:
    """Runs what the page asks for.

    Args:
        model: as from `tk.load`.
        processor: its tokenizer or processor.
        name: what the page calls the model.
        amateurs: what ICD and LOL may contrast with, by name: an adapter's name or path, or what `tk.load` returns.
            The page can choose among these only.
        steers: vectors to steer by, and to project tokens on.

    Raises:
        ArgumentError, ModelError, NotAvailableError: a vector cannot be read or is not for this model.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        name: str,
        *,
        amateurs: Mapping[str, Any] | None = None,
        steers: Sequence[SteerSpec] = (),
    ):
        self.model, self.processor, self.name = model, processor, name
        self.amateurs = dict(amateurs or {})
        self._vectors = [_loaded(spec, model, processor) for spec in steers]

    @property
    def takes_images(self) -> bool:
        """Whether prompts may hold images."""
        return hasattr(self.processor, "image_processor")

    def about(self) -> dict[str, Any]:
        """What the page needs to know before it asks for anything."""
        plain = plain_model(self.model)
        return {
            "version": truthkit.__version__,
            "model": {
                "name": self.name,
                "class": type(plain).__name__,
                "dtype": str(plain.dtype).removeprefix("torch."),
                "device": str(plain.device),
                "parameters": plain.num_parameters(),
                "layers": len(decoder_blocks(plain)),
                "takes_images": self.takes_images,
                "draws_scenes": self.name == _SCENES,
            },
            "decoders": [asdict(decoder) for decoder in catalog() if self.takes_images or not decoder.needs_image],
            "amateurs": list(self.amateurs),
            "vectors": [
                {
                    "name": Path(spec.path).name,
                    "strength": spec.strength_of(vector),
                    "layers": _written(spec.options.get("layers", ())),
                    "all_layers": list(vector.directions),
                    "site": vector.site if isinstance(vector, SteeringVector) else "vision",
                }
                for spec, vector in self._vectors
            ],
            "limits": {
                "body": MAX_BODY,
                "cards": MAX_CARDS,
                "images": MAX_IMAGES,
                "new_tokens": MAX_NEW_TOKENS,
                "text": MAX_TEXT,
            },
        }

    def run(self, request: RunRequest, emit: Emit, stop: Stop = lambda: False) -> None:
        """Answer with one decoder after another; every token goes to `emit` as it comes.

        An error of one decoder goes to its card, and the others still answer. One thread at a time may run: the model
        is one.

        Raises:
            Gone: of `emit`; it ends the run.
        """
        started = time.perf_counter()
        images = [read_image(file) for file in request.images.read()]
        first: Answer | None = None
        for index, card in enumerate(request.cards):
            if stop():
                break
            emit({"event": "answering", "index": index})
            try:
                one = self._answer(index, card, request, images, first, emit, stop)
            except Gone:
                raise
            except Exception as error:
                emit(_error_event(index, error))
            else:
                first = one if index == 0 else first
        emit({"event": "end", "cancelled": stop(), "seconds": round(time.perf_counter() - started, 3)})

    def scene(self) -> bytes:
        """A drawn scene as a PNG file, another one every time."""
        stream = io.BytesIO()
        render(sample_scene(random.Random(), bias=0.0), size=256).save(stream, "PNG")
        return stream.getvalue()

    def _answer(
        self,
        index: int,
        card: Card,
        request: RunRequest,
        images: Sequence[Image.Image],
        first: Answer | None,
        emit: Emit,
        stop: Stop,
    ) -> Answer:
        spec = card.spec()
        passage = passage_in_front(request.context) if request.context and spec.takes("context") else ""
        decoder = self._decoder(spec, images, passage)
        inputs = encode_prompt(
            self.processor,
            passage + request.prompt,
            system=request.system or None,
            raw=request.raw,
            images=images,
        )
        settings = AnswerSettings(**request.settings | {"sample": spec.draws(request.settings["sample"])})
        pieces = Pieces(text_tokenizer(self.processor, "an answer"))

        def on_token(token: int, step: Step | None) -> None:
            assert step is not None
            emit(token_event(index, pieces(token), step))

        with ExitStack() as stack:
            for steering in (steerings := self._steerings(card)):
                stack.enter_context(steering)
            one = answer(
                self.model,
                self.processor,
                decoder,
                inputs,
                settings,
                explain=True,
                on_token=on_token,
                stop=stop,
            )
            emit(_answer_event(index, one, first))
            self._project(index, inputs, one, steerings, emit)
        if "chosen" in one.notes:
            sheets = transforms_event(index, one.notes, images, stop)
            if sheets is not None:
                emit(sheets)
        return one

    def _decoder(self, spec: DecoderSpec, images: Sequence[Image.Image], passage: str) -> Any:
        if spec.takes("context") and not passage:
            raise ArgumentError("cad amplifies what a passage says; write the passage in the field of that name.")
        if spec.needs_image and not images:
            raise ArgumentError(f"{spec.name} compares images; add one to the prompt.")
        chosen = [part.options["amateur"] for part in spec.every if "amateur" in part.options]
        for name in chosen:
            if name not in (*self.amateurs, PROMPT_ONLY):
                known = ", ".join(map(repr, self.amateurs)) or "none"
                raise ArgumentError(f"amateur is {name!r}; those given by --amateur when the app started are {known}.")
        amateur = self.amateurs.get(chosen[0], chosen[0]) if chosen else None
        return spec.build(self.model, self.processor, context=passage, images=[list(images)], amateur=amateur)

    def _steerings(self, card: Card) -> list[Steering | VisionSteering]:
        """A steering for each loaded vector that the card uses."""
        if card.steering and len(card.steering) != len(self._vectors):
            raise ArgumentError(
                f"steering has {len(card.steering)} entries; expected one for each vector, of which the app has "
                f"{len(self._vectors)}."
            )
        steerings = []
        for (spec, vector), use in zip(self._vectors, card.steering, strict=False):
            if use.strength:
                options = spec.options | ({"layers": parse_layers(use.layers)} if use.layers else {})
                used = replace(spec, strength=use.strength, options=options)
                steerings.append(used.on(vector, self.model, self.processor))
        return steerings

    def _project(
        self,
        index: int,
        inputs: Mapping[str, torch.Tensor],
        one: Answer,
        steerings: Sequence[Steering | VisionSteering],
        emit: Emit,
    ) -> None:
        """Tell how the answer's tokens lie along every loaded vector, under the steering that made them."""
        vectors = [(number, one.vector) for number, one in enumerate(self._vectors)]
        shown = [(number, vector) for number, vector in vectors if isinstance(vector, SteeringVector)]
        if not shown or not one.token_ids:
            return
        length = inputs["input_ids"].shape[1]
        tensors = {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}
        whole = {name: _continued(value, length, one.token_ids, name) for name, value in tensors.items()}
        for steering in steerings:
            if isinstance(steering, Steering):
                steering.prompt_lengths = [length]
        for number, vector in shown:
            along = projections(self.model, vector, whole)
            emit(projections_event(index, number, {layer: values[length:] for layer, values in along.items()}))


def _continued(value: torch.Tensor, length: int, answer: Sequence[int], name: str) -> torch.Tensor:
    """A model input for the prompt and its answer: new tokens are seen, and of text where token types are told."""
    if value.dim() != 2 or value.shape[1] != length:
        return value
    tail = list(answer) if name == "input_ids" else [int(name == "attention_mask")] * len(answer)
    return torch.cat([value, value.new_tensor([tail])], dim=1)


def _answer_event(index: int, one: Answer, first: Answer | None) -> Event:
    return {
        "event": "answer",
        "index": index,
        "text": printable(one.text),
        "finished": one.finished,
        "tokens": len(one.token_ids),
        "tokens_per_second": None if one.tokens_per_second is None else round(one.tokens_per_second, 2),
        "parts_at": None if first is None else parts_at(first.token_ids, one.token_ids),
    }


def _error_event(index: int, error: Exception) -> Event:
    """An error for a card: truthkit's own in its words, any other with its type, and whole on standard error."""
    known = isinstance(error, TruthkitError)
    if not known:
        traceback.print_exception(error)
    message = " ".join(str(error).split())
    return {"event": "error", "index": index, "message": message if known else f"{type(error).__name__}: {message}"}
