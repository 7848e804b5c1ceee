"""The engine: all views in the batch of one forward, their logits combined before `generate` sees them.

A forward pre-hook widens the batch from B rows to n·B, a forward hook writes the combined logits of B rows into
`outputs.logits`. Hugging Face's `generate` runs unmodified between them, so every mode of it comes out right: the
combination is upstream of beams, warpers, streamers and assisted verification. A decoding method is a subclass of
`Decoder` that names its views and combines their logits.
"""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, Self

import torch

from truthkit.decoding.engine.arithmetic import plausible
from truthkit.decoding.engine.companion import Companion
from truthkit.decoding.engine.controls import Control
from truthkit.decoding.engine.image_rows import ImageInputs, drop_pixels, has_pixels, take_image_inputs
from truthkit.decoding.engine.options import check_beta
from truthkit.decoding.engine.registry import register
from truthkit.decoding.engine.row_group import RowGroup, check_same_vocabulary
from truthkit.decoding.engine.shared_cache import is_static, keep_main_view, make_room, static_length
from truthkit.decoding.engine.short_views import ShortViews, read_short
from truthkit.decoding.engine.view import View, ViewLogits
from truthkit.errors import ArgumentError, ModelError
from truthkit.hf.branches import BranchedCache, takes_branches
from truthkit.hf.growing_cache import grow
from truthkit.hf.wrapping import (
    keep_mask_flat,
    language_half,
    plain_model,
    refuse_continuous_batching,
    replaced_method,
    sole_owner,
    uncompiled,
)

Observer = Callable[[Sequence[ViewLogits], torch.Tensor], None]
"""Called after every forward with the views (main first) and the combined logits (batch, positions, vocabulary)."""


_BIAS_FROM_MASK = {"bloom", "falcon"}
"""Model types that make ALiBi's bias from the mask, which must then be as long as a static cache."""


_STATE_IN_MODULES = {"recurrent_gemma"}
"""Model types whose recurrent states lie in their modules, where no reordering of the cache reaches them."""


class Decoder(ABC):
    """A decoding method, attached to a model for the length of a `with` block.

    Args:
        model: the model whose `generate` (or forward) is to be changed; PEFT and `torch.compile` wrappers are looked
            through.
        views: the auxiliary views, in the order in which `combine` takes them after the main one.
        layers: early exits to read in the main view and in every view with `exits=True`.
        beta: adaptive plausibility constraint by the main view, in (0, 1]; 0 turns it off.
        norm: pass early exits through the final norm.

    Raises:
        ArgumentError, ModelError, NotAvailableError: see the methods' own docstrings.
    """

    name: ClassVar[str]
    sees_images: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls):
            register(cls)

    @classmethod
    def controls(cls, **options: Any) -> tuple[Control, ...]:
        """The runs of the model that belong beside this decoder, given its options."""
        beta = options.get("beta", inspect.signature(cls).parameters["beta"].default)
        alone = (Control("constraint-alone", f"apc:beta={beta}", sample=True),) if beta else ()
        return (Control("greedy", "greedy"), Control("sampling", "greedy", sample=True), *alone)

    def __init__(
        self,
        model: Any,
        views: Sequence[View] = (),
        *,
        layers: Sequence[int] = (),
        beta: float = 0.0,
        norm: bool = True,
    ):
        self.front, self._compiled = plain_model(model), hasattr(model, "_orig_mod")
        self.model = language_half(self.front)
        if getattr(self.model.config, "is_encoder_decoder", False):
            raise ModelError(
                f"{type(self.model).__name__} is an encoder-decoder; truthkit decodes decoder-only models."
            )
        self.beta = check_beta(beta)
        self.views = (View("main", exits=bool(layers)), *views)
        self.layers, self.norm = tuple(layers), norm
        self.observers: list[Observer] = []
        self._positional = list(inspect.signature(self.model.forward).parameters)
        own = [view for view in self.views if view.model is None]
        self._main = RowGroup(self.model, own, layers, norm=norm, vision=self.front)
        self._companions = self.separate_models()
        self._stack = ExitStack()
        self._generating = self._inert = False
        self.host: Decoder = self
        """The decoder that is attached: itself, or the one that it is a part of."""
        self._cache: Any = None
        self._past = 0
        self._call: dict[str, Any] = {}
        self._ids: torch.Tensor | None = None
        self._short: ShortViews | None = None
        self._nan: torch.Tensor | None = None

    def separate_models(self) -> list[Companion]:
        """A new companion for each view in another model, in the order of the views."""
        return [Companion(self._separate(view)) for view in self.views if view.model is not None]

    @abstractmethod
    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        """The method's scores, shape (batch, positions, vocabulary), before the plausibility constraint.

        Scores may differ from log-probabilities by a constant per row and position.
        """

    def __add__(self, other: Decoder) -> Decoder:
        """Both decoders at once; see `Together`."""
        return Together(*(part for one in (self, other) for part in getattr(one, "decoders", (one,))))

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(sole_owner(self.model, type(self).__name__))
            self._main.attach(stack)
            stack.callback(self.model.register_forward_pre_hook(self._widen, with_kwargs=True).remove)
            stack.callback(self.model.register_forward_hook(self._narrow, with_kwargs=True).remove)
            stack.enter_context(replaced_method(self.model, "generate", self._guard_generate))
            stack.enter_context(replaced_method(self.front, "generate", self._guard_images))
            stack.enter_context(replaced_method(self.model, "generate_batch", refuse_continuous_batching))
            stack.enter_context(uncompiled(self.model, self._compiled))
            stack.callback(self._forget)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    # -- generate ------------------------------------------------------------------------------------------------------

    def _guard_images(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """A `generate` before which the images of all views are encoded together."""

        @functools.wraps(original)
        def generate(*args: Any, **kwargs: Any) -> Any:
            if self._generating or self._inert or self._goes_on(kwargs):
                return original(*args, **kwargs)
            inputs = take_image_inputs(self.front, kwargs)
            ids = args[0] if args else kwargs.get("input_ids", kwargs.get("inputs"))
            if not inputs and not self._main.images.changed:
                return original(*args, **kwargs)
            ids = self._encode(inputs, ids, kwargs.get("attention_mask"))
            features = self._main.images.output(len(ids), [0])
            with ExitStack() as stack:
                stack.callback(self._forget)
                if (cache := self.prefix(ids, kwargs)) is not None:
                    self._adopt(cache)
                    kwargs = {name: value for name, value in kwargs.items() if name not in inputs} | {"cache": cache}
                elif self.front is not self.model:  # it encodes the images itself
                    stack.enter_context(
                        replaced_method(self.front, "get_image_features", lambda _own: lambda *_a, **_k: features)
                    )
                else:
                    kwargs = drop_pixels(kwargs) | {"mm_encoder_outputs": {"image": features}}
                return original(*args, **kwargs)

        return generate

    def prefix(self, ids: torch.Tensor, kwargs: dict[str, Any]) -> Any:
        """A cache with the first tokens of all views, if the method has read them already; None: nothing is read.

        Called with the prompts and the arguments of `generate` when the images are encoded.
        """
        return None

    def _encode(self, inputs: ImageInputs, ids: Any, mask: torch.Tensor | None) -> torch.Tensor:
        """Encode the images of every view of every model, for the prompts `ids`, which are returned."""
        if not has_pixels(inputs) and self._main.images.changed:
            raise ArgumentError(
                f"{type(self).__name__} compares images, but no pixel_values were given; pass the processor's outputs "
                'whole: model.generate(**processor(images=..., text=..., return_tensors="pt")).'
            )
        if not isinstance(ids, torch.Tensor) or ids.dim() != 2:
            raise ArgumentError(f"{type(self).__name__} needs input_ids beside the images, to see where they belong.")
        self._forget()
        for group in self._groups:
            group.images.encode(inputs, ids, mask)
        return ids

    def _guard_generate(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def generate(*args: Any, **kwargs: Any) -> Any:
            if self._generating or self._inert:  # an early-exit assistant drafts with the model itself, without views
                with self._as_it_is():
                    return original(*args, **kwargs)
            self._check_request(args, kwargs)
            self._length = _prompt_length(args, kwargs)
            if self._goes_on(kwargs):
                for group in self._groups:
                    group.prompt_goes_on(self._length or 0)
            elif not self._main.images.ready:
                self._forget()
            self._ids = kwargs.get("input_ids") if kwargs.get("inputs_embeds") is not None else None
            self._generating = True
            try:
                with replaced_method(self.model, "prepare_inputs_for_generation", keep_mask_flat):
                    result = original(*args, **kwargs)
                self._raise_if_nan()
                given = kwargs.get("cache", kwargs.get("past_key_values"))
                self._release_cache(wanted=given is not None or hasattr(result, "keys"))
                return result
            finally:
                self._generating = False
                self._forget(cache_is_wanted=False)

        return generate

    def _goes_on(self, kwargs: dict[str, Any]) -> bool:
        """Whether a call of `generate` is to go on from rows of `branched`."""
        return isinstance(self._cache, BranchedCache) and kwargs.get("cache") is self._cache

    @contextmanager
    def _as_it_is(self) -> Iterator[None]:
        before, self._inert = self._inert, True
        try:
            yield
        finally:
            self._inert = before

    def _check_request(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = args[0] if args else kwargs.get("inputs", kwargs.get("input_ids"))
        if isinstance(ids, torch.Tensor) and ids.numel() == 0:
            raise ArgumentError(
                f"the prompt is empty: input_ids has shape {tuple(ids.shape)}; pass at least one token."
            )
        config = kwargs.get("generation_config") or self.model.generation_config
        chunk = kwargs.get("prefill_chunk_size", getattr(config, "prefill_chunk_size", None))
        alike = all(group.same_prompt and not group.images.ready for group in self._groups)
        if chunk is not None and (self._companions or not alike):
            raise ArgumentError(
                f"prefill_chunk_size={chunk} cannot be used with {type(self).__name__} here: a view's prompt differs "
                "from the main one, holds images or runs in another model, so its chunks would not line up. Leave "
                "prefill_chunk_size out."
            )

    def _release_cache(self, *, wanted: bool = True) -> None:
        """Undo `_adopt`; a cache that somebody may go on with keeps the main view's rows alone."""
        if (cache := self._cache) is None:
            return
        cache.__dict__.pop("reorder_cache", None)
        cache.__dict__.pop("crop", None)
        if wanted and self._main.rows > 1 and self._main.laid_out:
            keep_main_view(cache, self._main.prompt.batch, self._main.prompt.extra)
        self._cache = None

    @contextmanager
    def branched(self, cache: Any, index: torch.Tensor, *, keep: bool = False) -> Iterator[Any]:
        """Let new rows go on from rows that were read into `cache`; afterwards everything is as before.

        What is yielded goes into the forwards as their `cache`, or, kept, into one call of `generate` (greedy search or
        sampling, with the whole prompts; no view's part of them in `cache` may be longer than the main one's columns).
        Only where `takes_branches`.

        Args:
            cache: of this decoder's session.
            index: for each new row the row that it goes on from, shape (rows,), int64.
            keep: let the new rows' tokens stay, to go on from them; else every forward begins at `cache`.
        """
        if cache is not self._cache:
            raise ArgumentError(f"{type(self).__name__} has not read what is in this cache; read the prefix with it.")
        past = self._past
        try:
            with ExitStack() as stack:
                wide = stack.enter_context(self._main.branched(index))
                for companion in self._companions:
                    stack.enter_context(companion.branched(index, keep=keep))
                self._cache = BranchedCache(cache, wide, keep=keep)
                yield self._cache
        finally:
            self._cache, self._past = cache, past

    @property
    def takes_trees(self) -> bool:
        """Whether forwards that go on from a cache may be trees (`truthkit.hf.trees`)."""
        return all(group.takes_trees for group in self._groups)

    @property
    def takes_branches(self) -> bool:
        """Whether `branched` serves: in the models of all views (`truthkit.hf.branches`)."""
        return all(takes_branches(group.model) for group in self._groups)

    @property
    def _groups(self) -> list[RowGroup]:
        return [self._main, *(companion.group for companion in self._companions)]

    def _forget(self, *, cache_is_wanted: bool = True) -> None:
        self._release_cache(wanted=cache_is_wanted)
        self._past, self._nan, self._short = 0, None, None
        self._main.end()
        for companion in self._companions:
            companion.reset()

    # -- forward -------------------------------------------------------------------------------------------------------

    def _widen(
        self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[()], dict[str, Any]] | None:
        if self._inert:
            return None
        kwargs = {**dict(zip(self._positional, args, strict=False)), **kwargs}
        if kwargs.get("labels") is not None:
            raise ArgumentError(
                f"labels cannot be given under {type(self).__name__}: its logits are for decoding, not loss."
            )
        if "past_key_values" in kwargs:
            kwargs["cache"] = kwargs.pop("past_key_values")
        cache = kwargs.get("cache")
        ids = kwargs["input_ids"] if kwargs.get("input_ids") is not None else self._token_ids(kwargs["inputs_embeds"])
        inputs: ImageInputs = {} if self._generating else take_image_inputs(self.model, kwargs)
        past = self._start(cache, ids, kwargs, inputs)
        kwargs = {name: value for name, value in kwargs.items() if name not in inputs}
        keep = kwargs.get("logits_to_keep", 0) if self._main.takes_logits_to_keep else 0
        self._call = {
            "past": past,
            "positions": len(keep) if isinstance(keep, torch.Tensor) else keep or ids.shape[1],
            **{name: kwargs.get(name) for name in ("attention_mask", "position_ids")},
            "input_ids": ids,
            "width": ids.shape[1],
            "keep": keep if isinstance(keep, torch.Tensor) or keep else ids.shape[1],
            "as_tuple": not kwargs.get("return_dict", self.model.config.return_dict),
        }
        wide = self._main.widen(kwargs, past)
        if (
            self.model.config.model_type in _BIAS_FROM_MASK
            and cache is not None
            and is_static(cache)
            and wide["attention_mask"] is not None
        ):
            room = static_length(cache) - wide["attention_mask"].shape[1]
            wide["attention_mask"] = torch.nn.functional.pad(wide["attention_mask"], (0, max(room, 0)))
        if isinstance(keep, torch.Tensor) and past == 0:
            wide["logits_to_keep"] = keep = keep + self._main.prompt.extra
        if past == 0 and self._generating:
            wide, self._short = read_short(self._main, wide, cache, self._plain_forward)
        self._main.aim(len(ids), keep)
        self._past = past + ids.shape[1]
        return (), {**wide, "return_dict": True}

    def _token_ids(self, embeddings: torch.Tensor) -> torch.Tensor:
        """The prompt's tokens where `generate` was given them beside the embeddings, else the embeddings."""
        if self._ids is None:
            return embeddings
        return self._ids.repeat_interleave(len(embeddings) // len(self._ids), dim=0)

    def _plain_forward(self, **kwargs: Any) -> Any:
        with self._as_it_is(), torch.no_grad():
            return self.model(**kwargs)

    def _start(self, cache: Any, ids: torch.Tensor, kwargs: dict[str, Any], inputs: ImageInputs) -> int:
        """Begin a session where this forward is the first of one; how many main tokens the cache holds."""
        mask, positions = kwargs.get("attention_mask"), kwargs.get("position_ids")
        held = self._held(cache)
        going_on = self._generating or (cache is not None and cache is self._cache and held)
        if self._main.laid_out and going_on:
            prompt = self._main.prompt
            if not held and ids.shape[1] < prompt.length and self._main.rows > 1:
                raise ModelError(
                    f"{type(self.model).__name__} keeps its state outside of generate's cache, where it cannot follow "
                    "several views; pass use_cache=False to generate."
                )
            return max(held - prompt.extra, 0) if held else 0
        if held and (self._main.rows > 1 or self._companions):
            raise ArgumentError(
                f"the cache given to {type(self).__name__} already holds {held} tokens that its views have not seen; "
                "start without a cache and pass the whole prompt."
            )
        if not self._generating or not self._main.images.ready:
            self._forget()
        if inputs:
            self._encode(inputs, ids, mask)
        elif self._main.images.changed and not self._main.images.ready:
            raise ArgumentError(
                f"{type(self).__name__} compares images, but this forward of {type(self.model).__name__} was given no "
                "pixel_values; pass them with the prompt, or call model.generate."
            )
        if held:
            mask = mask if mask is not None else ids.new_ones(len(ids), held + ids.shape[1])
            self._main.begin(mask, mask)
        else:
            if self._generating:  # behind the prompt there can be drafted tokens already
                ids, mask = ids[:, : self._length], mask if mask is None else mask[:, : self._length]
            self._main.begin(ids, mask, positions, gaps=self._generating)
        for companion in self._companions:
            if ids.dim() != 2:
                raise ArgumentError("inputs_embeds was given, but a view in another model needs input_ids.")
            companion.group.begin(ids, mask, gaps=self._generating)
        if cache is not None:
            self._adopt(cache)
        return held

    def _held(self, cache: Any) -> int:
        if cache is None:
            return 0
        if all(getattr(cache, "is_linear", [False])):  # recurrent states do not know how much went into them
            known = any(any(layer.is_conv_states_initialized.values()) for layer in cache.layers)
            return self._past + self._main.prompt.extra if cache is self._cache else int(known)
        if cache is self._cache and is_static(cache):  # a static cache's own count is a tensor: no sync per token
            return self._past + self._main.prompt.extra if self._past else 0
        return int(cache.get_seq_length())

    def _adopt(self, cache: Any) -> None:
        """Make a `generate` loop's cache carry all views: room, growth, beam reordering, cropping."""
        self._cache = cache
        make_room(cache, self._main.prompt.extra, self.model.config.get_text_config(decoder=True))
        grow(cache)
        reorder, crop = cache.reorder_cache, cache.crop

        def reorder_cache(beam_idx: torch.Tensor) -> None:
            if self.model.config.model_type in _STATE_IN_MODULES:
                raise ModelError(
                    f"{type(self.model).__name__} keeps states that do not follow beams; use greedy search or sampling."
                )
            reorder(self._main.wide_index(beam_idx))
            for companion in self._companions:
                companion.reorder(beam_idx)

        def crop_all(tokens_to_remove: int) -> None:
            crop(tokens_to_remove)
            self._past -= abs(tokens_to_remove)

        cache.reorder_cache, cache.crop = reorder_cache, crop_all

    def _narrow(self, module: Any, args: Any, kwargs: dict[str, Any], outputs: Any) -> Any:
        if self._inert:
            return None
        call, group = self._call, self._main
        group.aim(0, 0)
        call["use_cache"] = outputs.get("cache") is not None
        if self._cache is None and outputs.get("cache") is not None:
            self._adopt(outputs.cache)
        if self._short is not None:
            self._short.join(outputs, self._cache, group.rows, call["positions"])
            self._short = None
        step = call["past"] + call["width"] - call["positions"] + 1 - group.prompt.answer_start
        views = iter(group.split(outputs.logits, call["positions"], step))
        others = iter(self._companion_logits(call))
        ordered = [next(views) if view.model is None else next(others) for view in self.views]
        main = ordered[0]
        combined = plausible(self.combine(*ordered), main.logits, self.beta)
        self._watch_for_nan(combined, ordered)
        outputs.logits = combined
        self._narrow_states(outputs, call)
        for observer in self.observers:
            observer(ordered, combined)
        return outputs.to_tuple() if call["as_tuple"] else outputs

    def _companion_logits(self, call: dict[str, Any]) -> list[ViewLogits]:
        if not self._companions:
            return []
        positions, mask = call["position_ids"], call["attention_mask"]
        if positions is not None and positions.dim() == 2:
            positions = positions.expand(len(call["input_ids"]), -1)
        elif positions is None and mask is not None:  # the main model takes none, the other one may
            positions = (mask.cumsum(dim=1) - 1).clamp_min(0)[:, -call["width"] :]
        logits = []
        for companion in self._companions:
            logits += companion.forward(
                call["input_ids"],
                mask,
                positions,
                past=call["past"],
                keep=call["keep"],
                use_cache=call["use_cache"],
            )
        return logits

    def _narrow_states(self, outputs: Any, call: dict[str, Any]) -> None:
        prompt, width = self._main.prompt, call["width"]
        if self._main.rows == 1:
            return
        if states := outputs.get("hidden_states"):
            outputs.hidden_states = tuple(state[: prompt.batch, -width:] for state in states)
        if maps := outputs.get("attentions"):
            outputs.attentions = tuple(
                one if one is None else one[: prompt.batch, :, -width:, prompt.extra :] for one in maps
            )

    def _watch_for_nan(self, combined: torch.Tensor, views: Sequence[ViewLogits]) -> None:
        found = combined.amax(dim=-1).isnan().any()
        self._nan = found if self._nan is None else self._nan | found
        if found.device.type == "cpu":  # elsewhere one look at the end, not a synchronisation per token
            self._raise_if_nan()

    def _raise_if_nan(self) -> None:
        if self._nan is not None and bool(self._nan):
            raise ModelError(
                f"{type(self).__name__} met NaN logits from {type(self.model).__name__} in {self.model.dtype}. Check "
                "the "
                "model's weights, or load it in another dtype (dtype=torch.float32 or torch.bfloat16)."
            )

    def _separate(self, view: View) -> RowGroup:
        """The group of a view in another model; its exits sit at the same relative depth."""
        assert view.model is not None
        other = plain_model(view.model)
        check_same_vocabulary(self.model, other)
        depth, depth_here = (m.config.get_text_config(decoder=True).num_hidden_layers for m in (other, self.model))
        layers = [max(round((layer % depth_here + 1) * depth / depth_here) - 1, 0) for layer in self.layers]
        return RowGroup(language_half(other), [view], layers, norm=self.norm, vision=other)


class Together(Decoder):
    """Combine decoders of one model, as in `tk.RITUAL(...) + tk.VCD(...)`.

        s = l + Σ_m (s_m − l),   then the strictest of the decoders' plausibility constraints

    Each decoder adds what it changes in the model's own logits, so a term such as RITUAL's `alpha · l(T(V))` or VCD's
    `alpha · (l(V) − l(V_noisy))` comes out as it stands in its formula. RITUAL with VCD or M3ID was reported, but the
    released code can't do it: the form is ours.

    Args:
        decoders: two or more for the same model, none of them attached.
        beta: plausibility cut-off in (0, 1], 0 for none; by default the largest of theirs.

    Raises:
        ArgumentError: fewer than two, or for different models.
    """

    def __init__(self, *decoders: Decoder, beta: float | None = None):
        if len(decoders) < 2 or any(decoder.front is not decoders[0].front for decoder in decoders):
            raise ArgumentError("Together takes two or more decoders that were built for the same model.")
        self.decoders = decoders
        first = decoders[0]
        if any(decoder.norm != first.norm for decoder in decoders if decoder.layers):
            raise ArgumentError("decoders that read early exits with and without the final norm cannot be combined.")
        super().__init__(
            first.front,
            [view for decoder in decoders for view in decoder.views[1:]],
            layers=sorted({layer for decoder in decoders for layer in decoder.layers}),
            beta=max(decoder.beta for decoder in decoders) if beta is None else beta,
            norm=next((decoder.norm for decoder in decoders if decoder.layers), True),
        )

        for decoder in decoders:
            decoder.host = self

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        rest, scores = iter(views), main.logits
        for decoder in self.decoders:
            own = [self._as_seen_by(decoder, next(rest)) for _ in decoder.views[1:]]
            scores = scores + (decoder.combine(self._as_seen_by(decoder, main), *own) - main.logits)
        return scores

    def _as_seen_by(self, decoder: Decoder, view: ViewLogits) -> ViewLogits:
        """The view with the early exits that `decoder` asked for."""
        if view.exits is None or decoder.layers == self.layers:
            return view
        exits = view.exits[_places(decoder.layers, self.layers)] if decoder.layers else None
        return ViewLogits(view.logits, exits, view.step)


def _prompt_length(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """How many tokens the prompt of a call of `generate` has; None where it makes one itself."""
    given = (*args[:1], *(kwargs.get(name) for name in ("inputs", "input_ids", "inputs_embeds")))
    prompt = next((one for one in given if isinstance(one, torch.Tensor)), None)
    return None if prompt is None else prompt.shape[1]


def _places(some: Sequence[int], among: Sequence[int]) -> list[int]:
    return [among.index(layer) for layer in some]
