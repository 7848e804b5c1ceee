"""Requests of OpenAI's completions API, checked for their form and read into wishes."""

from __future__ import annotations

import json
import reprlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from truthkit.decoding.spec import DecoderSpec
from truthkit.endpoint.chats import MAX_TEXT, as_texts, read_chat, text_with_context, with_context
from truthkit.endpoint.offer import Offer
from truthkit.endpoint.wish import SEARCHES, Wish
from truthkit.errors import ArgumentError
from truthkit.files.writing import content_key
from truthkit.images.reading import read_image
from truthkit.serving.asgi import Refused
from truthkit.serving.aside import Aside
from truthkit.serving.fields import flag_of, integer_of, list_of, number_of, object_of, text_of
from truthkit.text.encode import encode_rendered
from truthkit.text.template import rendered, template_of
from truthkit.text.tokens import text_ids, text_tokenizer

IGNORED = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
    "reasoning_effort",
    "verbosity",
)
"""Fields that change no token of an answer: whatever they hold is passed over."""

NEUTRAL: Mapping[str, Sequence[Any]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "suffix": ("",),
}
"""Fields for what this server does not do: only the values that ask for nothing are taken."""

_SHARED = (
    *("model", "max_tokens", "n", "stream", "stream_options", "stop", "seed", "temperature", "top_p", "logprobs"),
    *("decoder", "context", "steer", "generation_config"),
)
_CHAT = ("messages", "max_completion_tokens", "top_logprobs")
_TEXT = ("prompt", "echo", "best_of")

_CHAT_TOKENS, _TEXT_TOKENS = 1024, 16
_MAX_STOPS, _MAX_STOP = 16, 500
_MAX_TOP = 20
_COLDEST, _HOTTEST = 0.01, 2.0


@dataclass(frozen=True)
class Asked:
    """A request.

    Attributes:
        chat: whether it came as a chat, and is to be answered as one.
        wishes: of its answers, by index.
        prompt_tokens: of its prompts, each counted once.
        stream: send pieces as they come.
        include_usage: end a stream with the tokens that were used.
    """

    chat: bool
    wishes: tuple[Wish, ...]
    prompt_tokens: int
    stream: bool
    include_usage: bool


@dataclass(frozen=True)
class _Prompt:
    text: str
    ids: tuple[int, ...]
    templated: bool
    images: Aside
    context: str


class Reader:
    """Reads requests for one model. It is for one thread.

    Args:
        offer: what requests may choose among.
        processor: the model's tokenizer or processor; nobody else may use it meanwhile.
        image_token: the id that stands for an image; None for a text model.
    """

    def __init__(self, offer: Offer, processor: Any, image_token: int | None = None):
        self.offer = offer
        self._processor, self._tokenizer = processor, text_tokenizer(processor, "requests")
        self._image_token = image_token
        self._mark = getattr(processor, "image_token", "<image>") if offer.takes_images else None

    def chat(self, document: Any) -> Asked:
        """The request in the JSON document of /v1/chat/completions.

        Raises:
            ArgumentError: it asks for what there is not, or for nothing.
            Refused: there is no such model here.
        """
        fields = self._fields(document, _CHAT)
        spec, context = self._spec(fields)
        if template_of(self._processor) is None:
            raise ArgumentError("this model has no chat template; send the text to /v1/completions instead.")
        messages, images = read_chat(fields.get("messages"), self._mark)
        passage = with_context(messages, context) if context else ""
        prompt = self._rendered(messages, images, passage)
        limit = _limit(fields, "max_tokens" if "max_completion_tokens" not in fields else "max_completion_tokens")
        top = None
        if flag_of(fields, "logprobs"):
            top = integer_of(fields, "top_logprobs", 0, 0, _MAX_TOP)
        elif fields.get("top_logprobs"):
            raise ArgumentError("top_logprobs goes with logprobs; set that to true.")
        return self._asked(fields, spec, [prompt], limit=limit, usual=_CHAT_TOKENS, top=top, echo=False, chat=True)

    def text(self, document: Any) -> Asked:
        """The request in the JSON document of /v1/completions.

        Raises:
            ArgumentError: it asks for what there is not, or for nothing.
            Refused: there is no such model here.
        """
        fields = self._fields(document, _TEXT)
        spec, context = self._spec(fields)
        echo = flag_of(fields, "echo")
        top = integer_of(fields, "logprobs", 0, 0, _MAX_TOP) if fields.get("logprobs", False) is not False else None
        if "best_of" in fields and fields["best_of"] != fields.get("n", 1):
            raise ArgumentError(f"best_of is {reprlib.repr(fields['best_of'])}; expected n, or nothing.")
        limit = _limit(fields, "max_tokens", least=0 if echo else 1)
        prompts = [self._written(prompt, context) for prompt in _prompts(fields.get("prompt"), self.offer.rows)]
        return self._asked(fields, spec, prompts, limit=limit, usual=_TEXT_TOKENS, top=top, echo=echo, chat=False)

    def _fields(self, document: Any, own: Sequence[str]) -> dict[str, Any]:
        """The fields that ask for something, those of transformers' `generation_config` among them."""
        every = object_of(document, "the request", " ".join([*own, *_SHARED, *NEUTRAL, *IGNORED]))
        given = {name: value for name, value in every.items() if value is not None and name not in IGNORED}
        for name, values in NEUTRAL.items():
            value = given.pop(name, None)
            if value is not None and value not in values:
                raise ArgumentError(f"{name} is {reprlib.repr(value)}, which this server does not do; leave it out.")
        model = text_of(given, "model") if "model" in given else self.offer.name
        if model != self.offer.name:
            raise Refused(
                HTTPStatus.NOT_FOUND,
                f"there is no model {reprlib.repr(model)} here; this server has {self.offer.name!r}.",
            )
        return _of_generation_config(given) | given

    def _spec(self, fields: dict[str, Any]) -> tuple[DecoderSpec, str]:
        """The decoder and the passage that it is to have, "" for none."""
        spec = self.offer.spec(text_of(fields, "decoder", 10_000) if "decoder" in fields else None)
        context = text_of(fields, "context", MAX_TEXT).strip()
        if spec.takes("context") and not context:
            raise ArgumentError(f"decoder {spec.name!r} amplifies what a passage says; give the passage as context.")
        if "context" in fields and not spec.takes("context"):
            raise ArgumentError(
                f"context is for decoders that compare with and without it, as cad; decoder {spec.name!r} does not. "
                "Name one, or write the passage into the prompt."
            )
        return spec, context

    def _rendered(self, messages: Any, files: Sequence[bytes], passage: str) -> _Prompt:
        in_parts = bool(files) or not getattr(self._tokenizer, "chat_template", None)
        owner = self._processor if in_parts else self._tokenizer
        text = rendered(owner, messages if in_parts else as_texts(messages))
        if not files:
            ids = self._tokenizer(text, add_special_tokens=False).input_ids
            return _Prompt(text, self._checked(ids, images=False), True, Aside([]), passage)
        try:
            made = encode_rendered(self._processor, [text], [[read_image(file) for file in files]], templated=True)
        except (ValueError, TypeError, IndexError) as error:  # processors refuse images in words of their own
            said = " ".join(str(error).split()) or type(error).__name__
            raise ArgumentError(f"the model's processor does not take these images: {said}") from error
        return _Prompt(text, self._checked(made["input_ids"][0].tolist(), images=True), True, Aside(files), passage)

    def _written(self, prompt: str | list[int], context: str) -> _Prompt:
        if isinstance(prompt, list):
            if context:
                raise ArgumentError("context goes in front of a text, and prompt is token ids; send the text.")
            return _Prompt("", self._checked(prompt, images=False), False, Aside([]), "")
        text, passage = text_with_context(prompt, context) if context else (prompt, "")
        return _Prompt(text, self._checked(text_ids(self._tokenizer, text), images=False), False, Aside([]), passage)

    def _checked(self, ids: Sequence[int], *, images: bool) -> tuple[int, ...]:
        if not ids:
            raise ArgumentError("the prompt has no tokens; write something.")
        if min(ids) < 0 or max(ids) >= self.offer.vocabulary:
            raise ArgumentError(f"prompt has token ids out of range; expected 0 to {self.offer.vocabulary - 1}.")
        if not images and self._image_token is not None and self._image_token in ids:
            raise ArgumentError("the prompt has the token that stands for an image, and there is none; leave it out.")
        return tuple(ids)

    def _asked(
        self,
        fields: dict[str, Any],
        spec: DecoderSpec,
        prompts: Sequence[_Prompt],
        *,
        limit: int | None,
        usual: int,
        top: int | None,
        echo: bool,
        chat: bool,
    ) -> Asked:
        count = integer_of(fields, "n", 1, 1, self.offer.rows)
        if len(prompts) * count > self.offer.rows:
            raise ArgumentError(
                f"the request asks for {len(prompts) * count} answers; expected {self.offer.rows} or fewer."
            )
        temperature, top_p = _drawing(fields, spec, named="decoder" in fields)
        if spec.name in SEARCHES and (temperature or top is not None):
            raise ArgumentError(
                f"decoder {spec.name!r} searches: nothing is drawn, and tokens have no probability of their own; leave "
                "out temperature and logprobs."
            )
        if echo and top is not None and limit not in (0, 1):
            raise ArgumentError(f"echo with logprobs reads the prompt; set max_tokens to 0 or 1, not {limit or usual}.")
        seed = fields.get("seed")
        seed = secrets.randbits(62) if seed is None else integer_of(fields, "seed", 0, -(2**63), 2**63 - 1)
        stops, strengths = _stops(fields.get("stop")), self.offer.strengths(fields.get("steer"))
        wishes = [
            Wish(
                spec=spec,
                prompt=prompt.text,
                ids=prompt.ids,
                templated=prompt.templated,
                images=prompt.images,
                context=prompt.context,
                strengths=strengths,
                limit=self._room(len(prompt.ids), limit, usual),
                temperature=temperature,
                top_p=top_p,
                seed=int(content_key(seed, number), 16) >> 1 if number else seed,
                stops=stops,
                top=top,
                echo=echo,
            )
            for prompt in prompts
            for number in range(count)
        ]
        if spec.needs_image and not all(len(prompt.images) for prompt in prompts):
            raise ArgumentError(f"decoder {spec.name!r} compares images; add one to the messages.")
        options = fields.get("stream_options")
        usage = options is not None and flag_of(
            object_of(options, "stream_options", "include_usage include_obfuscation"), "include_usage"
        )
        stream = flag_of(fields, "stream")
        return Asked(chat, tuple(wishes), sum(len(prompt.ids) for prompt in prompts), stream, usage)

    def _room(self, length: int, limit: int | None, usual: int) -> int:
        """How many new tokens there may be."""
        most = self.offer.new_tokens
        if limit is not None and limit > most:
            raise ArgumentError(f"the request asks for {limit} new tokens; this server gives {most} at most.")
        room = self.offer.room
        if room is None:
            return min(usual, most) if limit is None else limit
        if length + (1 if limit is None else limit) > room:
            raise ArgumentError(
                f"the prompt has {length} tokens, and with {limit or 1} new ones there are more than the {room} that "
                "the model has room for; shorten the prompt or ask for fewer."
            )
        return min(usual, most, room - length) if limit is None else limit


def _limit(fields: dict[str, Any], name: str, least: int = 1) -> int | None:
    return integer_of(fields, name, 1, least, 10**9) if name in fields else None


def _drawing(fields: dict[str, Any], spec: DecoderSpec, *, named: bool) -> tuple[float, float]:
    """Temperature and top_p; 0 and 1 take the most probable token."""
    temperature, top_p = number_of(fields, "temperature"), number_of(fields, "top_p")
    if top_p is not None and not 0 < top_p <= 1:
        raise ArgumentError(f"top_p is {top_p}; expected a number above 0, up to 1.")
    if temperature and not _COLDEST <= temperature <= _HOTTEST:
        raise ArgumentError(f"temperature is {temperature}; expected 0, or a number from {_COLDEST} to {_HOTTEST}.")
    if spec.name == "sample" and temperature == 0:
        raise ArgumentError("decoder 'sample' draws tokens, and temperature is 0; leave out one of the two.")
    if spec.name == "greedy" and named and temperature:
        raise ArgumentError(
            f"decoder 'greedy' draws nothing, and temperature is {temperature}; leave out one of the two."
        )
    usual = 1.0 if spec.name == "sample" or (top_p is not None and top_p < 1) else 0.0
    return usual if temperature is None else temperature, 1.0 if top_p is None else top_p


def _stops(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    values = [value] if isinstance(value, str) else list_of(value, "stop", _MAX_STOPS)
    found = [text_of({"stop": one}, "stop", _MAX_STOP) for one in values]
    return tuple(text for text in found if text)


def _prompts(value: Any, most: int) -> list[str | list[int]]:
    """One or several texts, or lists of token ids."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value:
        raise ArgumentError("prompt is missing or empty; expected a text, token ids, or a list of either.")
    if _are_ids(value):
        value = [value]
    if len(list_of(value, "prompt", most)) and all(isinstance(one, str) for one in value):
        return [text_of({"prompt": one}, "prompt", MAX_TEXT) for one in value]
    if not all(isinstance(one, list) and one and _are_ids(one) for one in value):
        raise ArgumentError("prompt holds neither texts alone nor lists of token ids alone.")
    return list(value)


def _are_ids(values: list[Any]) -> bool:
    return all(isinstance(one, int) and not isinstance(one, bool) for one in values)


def _of_generation_config(fields: dict[str, Any]) -> dict[str, Any]:
    """What `transformers chat` says in its own way: length and drawing, out of a generation config; the rest of it is
    passed over.
    """
    written = fields.pop("generation_config", None)
    if written is None:
        return {}
    try:
        config = json.loads(written) if isinstance(written, str) else written
    except (ValueError, RecursionError):
        config = None
    config = object_of(config, "generation_config")
    found = {"max_tokens": config.get("max_new_tokens")}
    if config.get("do_sample"):
        usual = 1.0 if config.get("temperature") is None else config["temperature"]
        found |= {"temperature": usual, "top_p": config.get("top_p")}
    return {name: value for name, value in found.items() if value is not None}
