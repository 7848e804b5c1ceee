"""`--model truthkit/NAME`: Inspect's requests before the engine of `truthkit serve`, in Inspect's own process."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    Logprobs,
    ModelAPI,
    ModelOutput,
    ModelUsage,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from truthkit.cli.amateurs import amateur as find_amateur
from truthkit.decoding.spec import parse_spec
from truthkit.endpoint.desk import Desk
from truthkit.endpoint.engine import Engine
from truthkit.endpoint.metrics import Metrics
from truthkit.endpoint.request import Reader
from truthkit.errors import ArgumentError
from truthkit.models.loading import load
from truthkit.serving.line import Line
from truthkit.serving.outbox import Outbox
from truthkit.steering.spec import parse_steer
from truthkit.text.template import template_of

_TAKEN = {
    "max_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "stop_seqs": "stop",
    "num_choices": "n",
    "logprobs": "logprobs",
    "top_logprobs": "top_logprobs",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
}
"""Inspect's settings, by the names that they have in a request to the engine."""

_REFUSED = ("top_k", "best_of", "logit_bias", "prompt_logprobs", "response_schema", "modalities")
"""Settings that would change an answer, which the engine does not know."""

_ENDS = {"stop": "stop", "length": "max_tokens"}


class TruthkitAPI(ModelAPI):
    """A model from `tk.load` for any task of Inspect, under a decoder and steering vectors.

        inspect eval task.py --model truthkit/smollm2 -M decoder=dola:layers=low -M steer=v.safetensors:1.5,layers=14

    Samples that wait are answered in batches, each as it would be alone (`truthkit.endpoint`). One of them can have its
    own decoder, steering strength or passage: `GenerateConfig(extra_body={"decoder": "cad", "context": "..."})`.

    Args:
        model_name: what follows `truthkit/`: hub id, folder, `.gguf` file or name of a bundled model, as in `tk.load`.
        base_url, api_key: of no use here.
        config: as Inspect has it; each request brings its own.
        decoder: as `--decoder` of `truthkit serve`, for requests that name none.
        steer: as `--steer`; several are joined by "|".
        amateur: as `--amateur`, which decoders name as `icd:amateur=NAME`; several are joined by commas.
        adapter, revision, dtype, quantization: as in `tk.load`.
        device: where the model goes, as "cuda:0" or "auto"; None leaves it to `tk.load`.
        batch: answers that are made together, at most; so many requests Inspect sends at once, unless it is told.
        max_new_tokens: of an answer, at most.
        allow_other_model: steer by vectors that were made from another model, too.

    Raises:
        ArgumentError: an option makes no sense, or the model has no chat template.
        ModelError, NotAvailableError: as `tk.load`, decoders and vectors.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008  # as in the class above
        *,
        decoder: str | Sequence[str] = "greedy",
        steer: str | Sequence[str] = "",
        amateur: str | Sequence[str] = (),
        adapter: str | None = None,
        revision: str | None = None,
        dtype: str | None = None,
        quantization: Any = None,
        device: str | None = None,
        batch: int = 16,
        max_new_tokens: int = 4096,
        allow_other_model: bool = False,
    ):
        super().__init__(model_name, base_url, api_key, config=config)
        spec = parse_spec(_written(decoder))
        steers = [parse_steer(text, allow_other_model=allow_other_model) for text in _written(steer).split("|") if text]
        for name, count in (("batch", batch), ("max_new_tokens", max_new_tokens)):
            if not isinstance(count, int) or count < 1:
                raise ArgumentError(f"{name} is {count!r}; expected a number above 0.")
        place: dict[str, Any] = {"device_map": device} if device else {}
        model, processor = load(
            model_name, revision=revision, dtype=dtype, quantization=quantization, adapter=adapter, **place
        )
        if template_of(processor) is None:
            raise ArgumentError(f"model {model_name!r} has no chat template, and Inspect asks by chats; take another.")
        amateurs = {name: find_amateur(name, model, dtype, place) for name in _written(amateur).split(",") if name}
        engine = Engine(
            model,
            processor,
            model_name,
            decoder=spec,
            amateurs=amateurs,
            steers=steers,
            new_tokens=max_new_tokens,
        )
        self._batch = batch
        self._reader = Reader(engine.offer, deepcopy(processor), engine.image_token)
        self._line = Line(math.inf, most=2**31, weight=2**62)  # Inspect itself limits requests and their time
        self._desk = Desk(engine, self._line, Metrics(), batch)

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002  # Inspect's name
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        if tools:
            raise ArgumentError(
                f"the task offers {len(tools)} tools, and truthkit's models call none; take another task."
            )
        asked = self._reader.chat({"messages": list(map(_message, input)), **_settings(config)})
        outbox = Outbox()
        reply, jobs = self._desk.enter(asked, outbox, 0)
        try:
            document = b"".join([content async for content in outbox.contents()])
        finally:
            outbox.leave()
            self._desk.leave(jobs)
        if reply.error is not None:
            raise reply.error
        return _output(json.loads(document))

    def close(self) -> None:
        self._line.close()

    def max_connections(self) -> int:
        return self._batch


def _written(value: str | Sequence[str]) -> str:
    """The text that Inspect's command line has split at commas."""
    return value if isinstance(value, str) else ",".join(map(str, value))


def _settings(config: GenerateConfig) -> dict[str, Any]:
    """The fields of a request that say what Inspect's settings do.

    Raises:
        ArgumentError: one of them is not to be had.
    """
    for name in _REFUSED:
        if getattr(config, name, None):
            raise ArgumentError(
                f"{name} is {getattr(config, name)!r}, which truthkit's models do not do; leave it out."
            )
    given = {theirs: getattr(config, ours) for ours, theirs in _TAKEN.items()}
    return {name: value for name, value in given.items() if value is not None} | (config.extra_body or {})


def _message(message: ChatMessage) -> dict[str, Any]:
    """A message as OpenAI's API has it; what a model has thought for itself is left out.

    Raises:
        ArgumentError: it holds what this is no model for.
    """
    if message.role == "tool" or getattr(message, "tool_calls", None):
        raise ArgumentError("a message calls a tool or answers for one, and truthkit's models call none.")
    if isinstance(message.content, str):
        return {"role": message.role, "content": message.content}
    parts: list[dict[str, Any]] = []
    for part in message.content:
        if part.type == "text":
            parts.append({"type": "text", "text": part.text})
        elif part.type == "image":
            parts.append({"type": "image_url", "image_url": {"url": part.image}})
        elif part.type != "reasoning":
            raise ArgumentError(f"a message holds {part.type}; truthkit's models take text and images.")
    return {"role": message.role, "content": parts}


def _output(document: dict[str, Any]) -> ModelOutput:
    """What the engine says, in Inspect's form."""
    name, used = document["model"], document["usage"]
    choices = [
        ChatCompletionChoice(
            message=ChatMessageAssistant(content=one["message"]["content"], model=name, source="generate"),
            stop_reason=_ENDS[one["finish_reason"]],
            logprobs=None if one["logprobs"] is None else Logprobs.model_validate(one["logprobs"]),
        )
        for one in document["choices"]
    ]
    usage = ModelUsage(
        input_tokens=used["prompt_tokens"], output_tokens=used["completion_tokens"], total_tokens=used["total_tokens"]
    )
    return ModelOutput(model=name, choices=choices, usage=usage)
