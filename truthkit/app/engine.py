"""One model that answers for the page."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any

import torch
from PIL import Image

import truthkit
from truthkit.app.events import (
    Emit,
    Event,
    cosines_event,
    noised_event,
    token_event,
    transforms_event,
)
from truthkit.app.examples import examples_for
from truthkit.app.inputs import with_answer
from truthkit.app.patches import patch_cosines
from truthkit.app.problems import DECODER, FieldError, Problem, card_problems, settings_problems
from truthkit.app.request import (
    MAX_BODY,
    MAX_CARDS,
    MAX_IMAGES,
    MAX_MESSAGES,
    MAX_NEW_TOKENS,
    MAX_TEXT,
    Card,
    MapRequest,
    RunRequest,
)
from truthkit.app.scenes import Named, known_scene, scene_file
from truthkit.app.vectors import Vectors
from truthkit.decoding.catalog import catalog
from truthkit.decoding.engine.registry import PROMPT_ONLY
from truthkit.decoding.methods.vcd import VCD
from truthkit.decoding.opera.search import OPERA
from truthkit.decoding.spec import DecoderSpec
from truthkit.errors import ArgumentError, TruthkitError
from truthkit.generation.answers import Answer, answer, parts_at
from truthkit.generation.explain import Step
from truthkit.generation.pieces import Pieces
from truthkit.generation.settings import AnswerSettings
from truthkit.hf.room import check_room
from truthkit.hf.sites import decoder_blocks
from truthkit.hf.wrapping import plain_model
from truthkit.images.pixels import pictured
from truthkit.images.reading import read_image
from truthkit.printable import printable
from truthkit.scenes.questions import mentions
from truthkit.scenes.scene import Scene
from truthkit.serving.outbox import Gone
from truthkit.steering.spec import SteerSpec
from truthkit.steering.steer import Steering
from truthkit.text.encode import encode_prompt, has_template, passage_in_front
from truthkit.text.tokens import text_tokenizer

_SCENES = "scene-vlm"
"""The test model that has seen nothing but drawn scenes."""

_BLANK = Image.new("RGB", (8, 8))
"""Stands for an image where a decoder is made to see whether it can be."""

Stop = Callable[[], bool]
"""Asked after every token: whether to end the run there."""


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
        self._vectors = Vectors(model, processor, steers)

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
                "chats": has_template(self.processor),
            },
            "decoders": [asdict(decoder) for decoder in catalog() if self.takes_images or not decoder.needs_image],
            "examples": [asdict(example) for example in examples_for(scenes=self.name == _SCENES)],
            "amateurs": list(self.amateurs),
            "vectors": self._vectors.about(),
            "limits": {
                "body": MAX_BODY,
                "cards": MAX_CARDS,
                "images": MAX_IMAGES,
                "messages": MAX_MESSAGES,
                "new_tokens": MAX_NEW_TOKENS,
                "text": MAX_TEXT,
            },
        }

    def problems(self, request: RunRequest, *, whole: bool = True) -> list[Problem]:
        """What is wrong with a request, as far as that is seen before the model runs.

        Decoders are made for it and thrown away, which reads the model and changes nothing: any thread may ask.

        Args:
            request: what the page asks for.
            whole: look at prompt and settings, too; else at the cards alone, as if passage and image were there.
        """
        pictures = [_BLANK] * (len(request.images) if whole else 1)
        context = request.context or ("" if whole else "-")
        passage = passage_in_front(context) if context else ""
        found = list(self._prompt_problems(request)) if whole else []
        for index, card in enumerate(request.cards):
            found += card_problems(index, card, lambda one: self._decoder(one.spec(), pictures, passage))
            found += self._vectors.problems(index, card)
        return list(dict.fromkeys(found))

    def _prompt_problems(self, request: RunRequest) -> Iterator[Problem]:
        yield from settings_problems(request.settings)
        try:
            inputs = self._encoded(request, request.prompt, ())
        except ArgumentError as error:
            alone = replace(request, system="")
            field = "system" if request.system and request.prompt.strip() and self._encodes(alone) else "prompt"
            yield Problem(None, field, str(error))
            return
        length, new_tokens = inputs["input_ids"].shape[1], request.settings["max_new_tokens"]
        what = f"the prompt, {length} tokens, with up to {new_tokens} new ones"
        try:
            check_room(self.model, length + new_tokens, what, "shorten the prompt or ask for fewer")
        except ArgumentError as error:
            yield Problem(None, "prompt", str(error))

    def _encodes(self, request: RunRequest) -> bool:
        try:
            self._encoded(request, request.prompt, ())
        except ArgumentError:
            return False
        return True

    def _encoded(self, request: RunRequest, prompt: str, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        return encode_prompt(
            self.processor,
            prompt,
            system=request.system or None,
            raw=request.raw,
            images=images,
            earlier=request.messages,
        )

    def run(self, request: RunRequest, emit: Emit, stop: Stop = lambda: False) -> None:
        """Answer with one decoder after another; every token goes to `emit` as it comes.

        An error of one decoder goes to its card, and the others still answer. One thread at a time may run: the model
        is one.

        Raises:
            Gone: of `emit`; it ends the run.
        """
        started = time.perf_counter()
        files = request.images.read()
        images = [read_image(file) for file in files]
        scene = known_scene(files[0]) if len(files) == 1 else None
        del files
        first: Answer | None = None
        for index, card in enumerate(request.cards):
            if stop():
                break
            emit({"event": "answering", "index": index})
            try:
                one = self._answer(index, card, request, images, scene, first, emit, stop)
            except Gone:
                raise
            except Exception as error:
                emit(_error_event(index, error))
            else:
                first = one if index == 0 else first
        emit({"event": "end", "cancelled": stop(), "seconds": round(time.perf_counter() - started, 3)})

    def scene(self, seed: int | None = None) -> bytes:
        """A drawn scene as a PNG file; without a seed another one every time."""
        return scene_file(seed)

    def _answer(
        self,
        index: int,
        card: Card,
        request: RunRequest,
        images: Sequence[Image.Image],
        scene: Scene | None,
        first: Answer | None,
        emit: Emit,
        stop: Stop,
    ) -> Answer:
        spec = card.spec()
        passage = _passage(request, spec)
        decoder = self._decoder(spec, images, passage)
        inputs = self._encoded(request, passage + request.prompt, images)
        settings = AnswerSettings(**request.settings | {"sample": spec.draws(request.settings["sample"])})
        pieces = Pieces(text_tokenizer(self.processor, "an answer"))

        def on_token(token: int, step: Step | None) -> None:
            assert step is not None
            emit(token_event(index, pieces(token), step))

        with ExitStack() as stack:
            for steering in (steerings := self._vectors.steerings(card)):
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
            emit(_answer_event(index, one, first, scene))
            self._vectors.project(index, inputs, one, steerings, emit)
        if "chosen" in one.notes:
            sheets = transforms_event(index, one.notes, images, stop)
            if sheets is not None:
                emit(sheets)
        for part in spec.every if images else ():
            if part.name == "vcd":
                emit(self._noised(index, part, inputs))
        return one

    def _noised(self, index: int, part: DecoderSpec, inputs: Mapping[str, torch.Tensor]) -> Event:
        """What the noise of a VCD leaves of the first image."""
        vcd = part.build(self.model, self.processor)
        assert isinstance(vcd, VCD)
        pixels = inputs.get("pixel_values")
        if pixels is None or "image_grid_thw" in inputs:
            return noised_event(index, vcd.noise_step, None, None)
        shown = (pictured(one, self.processor.image_processor) for one in (pixels[0], vcd.drowned(pixels[0])))
        return noised_event(index, vcd.noise_step, *shown)

    def map(self, request: MapRequest, emit: Emit, _stop: Stop = lambda: False) -> None:
        """Compare the tokens of an answer with the patches of the image, under the steering that made it.

        Raises:
            Gone: of `emit`.
        """
        try:
            emit(self._map(request))
        except Gone:
            raise
        except Exception as error:
            emit(_error_event(0, error))
        emit({"event": "end", "cancelled": False, "seconds": 0.0})

    def _map(self, request: MapRequest) -> Event:
        asked, (card,) = request.asked, request.asked.cards
        images = [read_image(file) for file in asked.images.read()]
        if len(images) != 1:
            raise ArgumentError(f"the prompt has {len(images)} images; a map is for prompts with one.")
        if max(request.answer) >= len(text_tokenizer(self.processor, "an answer")):
            raise ArgumentError("answer holds a token that the model does not have.")
        inputs = self._encoded(asked, _passage(asked, card.spec()) + asked.prompt, images)
        length, whole = inputs["input_ids"].shape[1], with_answer(inputs, request.answer)
        check_room(self.model, length + len(request.answer), "prompt and answer", "ask for a shorter answer")
        with ExitStack() as stack:
            for steering in self._vectors.steerings(card):
                stack.enter_context(steering)
                if isinstance(steering, Steering):
                    steering.prompt_lengths = [length]
            found = patch_cosines(self.model, whole, length, request.layer)
        pixels = inputs["pixel_values"][0]
        shown = None if "image_grid_thw" in inputs else pictured(pixels, self.processor.image_processor)
        return cosines_event(request.layer, found, shown or images[0])

    def _decoder(self, spec: DecoderSpec, images: Sequence[Image.Image], passage: str) -> Any:
        if spec.takes("context") and not passage:
            raise FieldError(
                "context", f"{spec.name} amplifies what a passage says; write the passage in the field of that name."
            )
        if spec.needs_image and not images:
            raise FieldError("images", f"{spec.name} compares images; add one to the prompt.")
        chosen = [part.options["amateur"] for part in spec.every if "amateur" in part.options]
        for name in chosen:
            if name not in (*self.amateurs, PROMPT_ONLY):
                known = ", ".join(map(repr, self.amateurs)) or "none"
                message = f"amateur is {name!r}; those given by --amateur when the app started are {known}."
                raise FieldError("amateur" if not spec.parts else DECODER, message)
        amateur = self.amateurs.get(chosen[0], chosen[0]) if chosen else None
        decoder = spec.build(self.model, self.processor, context=passage, images=[list(images)], amateur=amateur)
        if isinstance(decoder, OPERA):
            reason = "goes back over what it has said, and this page shows every token as it comes"
            raise FieldError(DECODER, f"{spec.name} {reason}; use it in truthkit generate.")
        return decoder


def _passage(request: RunRequest, spec: DecoderSpec) -> str:
    """What stands in front of the prompt for a decoder; "" for one that takes no passage."""
    return passage_in_front(request.context) if request.context and spec.takes("context") else ""


def _answer_event(index: int, one: Answer, first: Answer | None, scene: Scene | None) -> Event:
    return {
        "event": "answer",
        "index": index,
        "text": printable(one.text),
        "finished": one.finished,
        "tokens": len(one.token_ids),
        "tokens_per_second": None if one.tokens_per_second is None else round(one.tokens_per_second, 2),
        "parts_at": None if first is None else parts_at(first.token_ids, one.token_ids),
        "objects": None if scene is None or not mentions(one.text) else asdict(Named.of(one.text, scene)),
    }


def _error_event(index: int, error: Exception) -> Event:
    """An error for a card: truthkit's own in its words, any other with its type, and whole on standard error."""
    known = isinstance(error, TruthkitError)
    if not known:
        traceback.print_exception(error)
    message = " ".join(str(error).split())
    return {"event": "error", "index": index, "message": message if known else f"{type(error).__name__}: {message}"}
