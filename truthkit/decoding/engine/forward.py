"""The pair of hooks around a forward: B rows become n·B before it, and n·B logits the B combined ones behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from truthkit.decoding.engine.image_inputs import ImageInputs, take_image_inputs
from truthkit.decoding.engine.loop import Loop
from truthkit.decoding.engine.row_group import RowGroup
from truthkit.decoding.engine.shared_cache import is_static, static_length
from truthkit.decoding.engine.short_views import ShortViews, read_short
from truthkit.decoding.engine.view import ViewLogits
from truthkit.errors import ArgumentError, ModelError
from truthkit.hf.ownership import Block
from truthkit.hf.steps import BIAS_FROM_MASK

Observer = Callable[[Sequence[ViewLogits], torch.Tensor], None]
"""Called after every forward with the views (main first) and the combined logits (batch, positions, vocabulary)."""

_WHO_ASKS = "a logits processor or stopping criterion that calls the model, as that of guidance_scale does."

_STATE_ELSEWHERE = (
    "{} keeps its state outside of generate's cache, where it cannot follow several views; pass use_cache=False to "
    "generate."
)


class ForwardPair:
    """A pre-hook, `widen`, and a hook, `narrow`, for the model of `loop`.

    Args:
        loop: the views.
        observers: called after every forward.
        block: whose the forwards are.
    """

    def __init__(self, loop: Loop, observers: Sequence[Observer], block: Block):
        self._loop, self._observers, self._block = loop, observers, block
        self._call: dict[str, Any] = {}
        self._short: ShortViews | None = None

    def widen(
        self, _module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[()], dict[str, Any]] | None:
        """The forward's arguments for the rows of all views."""
        loop, main = self._loop, self._loop.main
        if loop.stepping:
            return None
        self._block.check()
        if loop.inert:
            return None
        kwargs = {**dict(zip(main.group.parameters, args, strict=False)), **kwargs}
        if kwargs.get("labels") is not None:
            raise ArgumentError(f"labels cannot be given under {loop.name}: its logits are for decoding, not loss.")
        if "past_key_values" in kwargs:
            kwargs["cache"] = kwargs.pop("past_key_values")
        cache = kwargs.get("cache")
        ids = kwargs["input_ids"] if kwargs.get("input_ids") is not None else self._token_ids(kwargs["inputs_embeds"])
        inputs: ImageInputs = {} if loop.generating else take_image_inputs(loop.model, kwargs)
        past = self._start(cache, ids, kwargs, inputs)
        kwargs = {name: value for name, value in kwargs.items() if name not in inputs}
        keep = kwargs.get("logits_to_keep", 0) if main.group.takes_logits_to_keep else 0
        self._call = {
            "past": past,
            "positions": len(keep) if isinstance(keep, torch.Tensor) else keep or ids.shape[1],
            **{name: kwargs.get(name) for name in ("attention_mask", "position_ids")},
            "input_ids": ids,
            "width": ids.shape[1],
            "keep": keep if isinstance(keep, torch.Tensor) or keep else ids.shape[1],
            "as_tuple": not kwargs.get("return_dict", loop.model.config.return_dict),
        }
        wide = main.widen(kwargs, past)
        if (
            loop.model.config.model_type in BIAS_FROM_MASK
            and cache is not None
            and is_static(cache)
            and wide["attention_mask"] is not None
        ):
            room = static_length(cache) - wide["attention_mask"].shape[1]
            wide["attention_mask"] = torch.nn.functional.pad(wide["attention_mask"], (0, max(room, 0)))
        if isinstance(keep, torch.Tensor) and past == 0:
            wide["logits_to_keep"] = keep = keep + main.prompt.extra
        self._short = None
        if past == 0 and loop.generating:
            wide, self._short = read_short(main, wide, cache, loop.forward_plainly)
        rest = None if self._short is None else self._short.last
        if main.attention:
            main.attention.told(loop.prompt_lengths, kwargs.get("attention_mask"), ids.shape[1])
        main.aim(len(ids), keep, past=past, views=rest)
        loop.past = past + ids.shape[1]
        return (), {**wide, "return_dict": True}

    def _token_ids(self, embeddings: torch.Tensor) -> torch.Tensor:
        """The prompt's tokens where `generate` was given them beside the embeddings, else the embeddings."""
        if (ids := self._loop.ids) is None:
            return embeddings
        return ids.repeat_interleave(len(embeddings) // len(ids), dim=0)

    def _start(self, cache: Any, ids: torch.Tensor, kwargs: dict[str, Any], inputs: ImageInputs) -> int:
        """Begin anew where this forward reads prompts; how many main tokens the cache holds."""
        loop, main, model = self._loop, self._loop.main, self._loop.model
        mask, positions = kwargs.get("attention_mask"), kwargs.get("position_ids")
        held = loop.held(cache)
        if cache is not None and loop.shares_states:
            raise ModelError(_STATE_ELSEWHERE.format(type(model).__name__))
        going_on = loop.generating or (cache is not None and cache is loop.cache and held)
        if main.laid_out and going_on:
            prompt = main.prompt
            if loop.generating and loop.is_other(cache, ids):
                raise ArgumentError(
                    f"a forward of another text came while generate runs under {loop.name}: {_WHO_ASKS} Its views "
                    "would be mistaken for those of the text that is generated. Leave that out inside the block, or "
                    "let it call another copy of the model."
                )
            if not held and ids.shape[1] < prompt.length and main.rows > 1:
                raise ModelError(_STATE_ELSEWHERE.format(type(model).__name__))
            return max(held - prompt.extra, 0) if held else 0
        if held and (main.rows > 1 or loop.companions or main.prompt_exits):
            raise ArgumentError(
                f"the cache given to {loop.name} already holds {held} tokens that its views have not seen; start "
                "without a cache and pass the whole prompt."
            )
        if not loop.generating or not main.images.ready:
            loop.forget()
        if inputs:
            loop.encode(inputs, ids, mask)
        elif main.images.changed and not main.images.ready:
            raise ArgumentError(
                f"{loop.name} compares images, but this forward of {type(model).__name__} was given no pixel_values; "
                "pass them with the prompt, or call model.generate."
            )
        if held:
            mask = mask if mask is not None else ids.new_ones(len(ids), held + ids.shape[1])
            main.begin(mask, mask)
        else:
            if loop.generating:  # behind the prompt there can be drafted tokens already
                ids, mask = ids[:, : loop.length], mask if mask is None else mask[:, : loop.length]
            main.begin(ids, mask, positions, gaps=loop.generating, whole=ids.shape[1] >= (loop.length or 0))
        for companion in loop.companions:
            if ids.dim() != 2:
                raise ArgumentError("inputs_embeds was given, but a view in another model needs input_ids.")
            companion.begin(ids, mask, gaps=loop.generating)
        loop.prompts = ids
        if cache is not None:
            loop.adopt(cache, empty=main.rows > 1 and not held)
        return held

    def narrow(self, _module: torch.nn.Module, _args: Any, _kwargs: dict[str, Any], outputs: Any) -> Any:
        """The forward's outputs, of the main view's rows and with the combined logits."""
        loop, main, call = self._loop, self._loop.main, self._call
        if loop.stepping or loop.inert:
            return None
        main.aim(0, 0)
        length = loop.length if loop.generating and loop.length else main.prompt.length
        read = call["attention_mask"], call["past"], call["width"], length, loop.prompt_lengths
        main.prompt_exits.look(outputs.logits, *read)
        call["use_cache"] = outputs.get("cache") is not None
        if loop.cache is None and outputs.get("cache") is not None:
            loop.adopt(outputs.cache)
        if self._short is not None:
            self._short.join(outputs, loop.cache, call["positions"])
            self._short = None
        step = call["past"] + call["width"] - call["positions"] + 1 - main.prompt.answer_start
        own = iter(main.split(outputs.logits, call["positions"], step, main.prompt_exits.entropies))
        first = next(own)
        if self._rests(call, first):
            views, combined = [first], first.logits
        else:
            others = iter(self._companion_logits(call, outputs.logits.device))
            rest = [next(own) if view.model is None else next(others) for view in loop.method.views[1:]]
            views = [first, *rest]
            loop.count(loop.method.fires(*views), call["input_ids"], call["past"])
            combined, found = loop.combined(views)
            loop.nan.look(found)
        outputs.logits = combined
        narrow_states(main, outputs, call["width"])
        for observer in self._observers:
            observer(views, combined)
        return outputs.to_tuple() if call["as_tuple"] else outputs

    def _rests(self, call: dict[str, Any], first: ViewLogits) -> bool:
        """Whether a gate that the main view decides keeps shut, so that the views in other models need not run.

        They then owe this forward's tokens, which are read when they are next called for.
        """
        loop = self._loop
        whole = loop.generating and call["past"] + call["width"] >= (loop.length or 0)
        if not (loop.method.rests and loop.companions and whole) or self._observers or loop.normalising:
            return False
        fired = loop.method.fires(first)
        if fired is None or bool(fired.any()):
            return False
        loop.count(fired, call["input_ids"], call["past"])
        for companion in loop.companions:
            companion.owe(call["input_ids"], self._positions(call), call["past"])
        return True

    def _positions(self, call: dict[str, Any]) -> torch.Tensor | None:
        positions, mask = call["position_ids"], call["attention_mask"]
        if positions is not None and positions.dim() == 2:
            positions = positions.expand(len(call["input_ids"]), -1)
        elif positions is None and mask is not None:  # the main model takes none, the other one may
            positions = (mask.cumsum(dim=1) - 1).clamp_min(0)[:, -call["width"] :]
        return positions

    def _companion_logits(self, call: dict[str, Any], device: torch.device) -> list[ViewLogits]:
        if not self._loop.companions:
            return []
        positions, mask = self._positions(call), call["attention_mask"]
        logits = []
        for companion in self._loop.companions:
            with self._loop.plainly():  # it may be the same model
                logits += companion.forward(
                    call["input_ids"],
                    mask,
                    positions,
                    past=call["past"],
                    keep=call["keep"],
                    use_cache=call["use_cache"],
                    device=device,
                )
        return logits


def narrow_states(main: RowGroup, outputs: Any, width: int) -> None:
    """Of all that a forward of `width` tokens gives beside logits and cache, leave the main view's."""
    if main.rows == 1:
        return
    if states := outputs.get("hidden_states"):
        outputs.hidden_states = tuple(state[: main.prompt.batch, -width:] for state in states)
    if maps := outputs.get("attentions"):
        outputs.attentions = tuple(
            one if one is None else one[: main.prompt.batch, :, -width:, main.prompt.extra :] for one in maps
        )
