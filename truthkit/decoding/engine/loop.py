"""How far all views have followed a generation loop: their rows, the caches that hold them, and the way back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch

from truthkit.decoding.engine.arithmetic import plausible
from truthkit.decoding.engine.companion import Companion
from truthkit.decoding.engine.image_inputs import ImageInputs, has_pixels
from truthkit.decoding.engine.nan_watch import NanWatch, nan_in
from truthkit.decoding.engine.prompt_exits import PromptExit
from truthkit.decoding.engine.row_group import RowGroup
from truthkit.decoding.engine.shared_cache import check_narrows, is_static, keep_main_view, make_room, start_anew
from truthkit.decoding.engine.view import View, ViewLogits
from truthkit.decoding.engine.view_group import ViewGroup
from truthkit.errors import ArgumentError, ModelError
from truthkit.hf.branches import BranchedCache
from truthkit.hf.growing_cache import grow
from truthkit.hf.parted_cache import first_part_alone
from truthkit.hf.spread import refuse_fully_sharded

if TYPE_CHECKING:
    from transformers.cache_utils import Cache

    from truthkit.hf.wrapping import GenerativeModel

_STATE_IN_MODULES = {"recurrent_gemma"}
"""Model types whose recurrent states lie in their modules, where no reordering of the cache reaches them."""


class Method(Protocol):
    """What an attachment needs to know of a decoder."""

    model: GenerativeModel
    front: GenerativeModel
    compiled: bool
    beta: float
    views: tuple[View, ...]
    layers: tuple[int, ...]
    prompt_exits: tuple[PromptExit, ...]
    groups: tuple[ViewGroup, ...]
    of_whole_prompt: bool
    gated: ClassVar[bool]
    rests: bool

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        """See `Decoder`."""
        ...

    def beside(self, session: Any) -> Sequence[AbstractContextManager[Any]]:
        """See `Decoder`."""
        ...

    def fires(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor | None:
        """See `Decoder`."""
        ...


class Loop:
    """The views of one attached method, from one prompt to the next.

    Attributes:
        method: the decoder.
        name: of its class.
        main: the rows of the model's own batch.
        companions: the views in other models.
        beta: plausibility cut-off of the forwards to come.
        normalising: whether the method is to combine log-probabilities instead of logits.
        inert: whether the model is to run as it is.
        stepping: whether the forward that runs is a compiled step, which needs no hooks on the model itself.
        generating: whether a call of `generate` is on its way; else forwards come from outside.
        length: of that call's prompts.
        ids: its token ids, where embeddings were given too.
        prompts: the main view's, as its first forward had them: token ids, or embeddings.
        prepared: the tokens that `generate` has last prepared for a forward of its own.
        cache: of the loop, while it carries all views.
        cache_is_wanted: whether the caller may go on with it afterwards.
        past: how many of the main view's tokens went into it.
        prompt_lengths: how many tokens of each row of the forwards to come are its prompt, where somebody has said so.
        nan: see `NanWatch`.
        judged: how many steps of how many rows a gate has judged, and in how many of them it fired.
    """

    def __init__(self, method: Method):
        self.method, self.name = method, type(method).__name__
        self.model, self.front = method.model, method.front
        self.main, *others = [RowGroup(group) for group in method.groups]
        self.companions = [Companion(group) for group in others]
        self.groups: Sequence[RowGroup] = (self.main, *others)
        self.beta = method.beta
        self.inert = self.generating = self.normalising = self.stepping = False
        self.cache_is_wanted = True
        self.length: int | None = None
        self.ids: torch.Tensor | None = None
        self.prompts: torch.Tensor | None = None
        self.prepared: torch.Tensor | None = None
        self.cache: Any = None
        self.past = 0
        self.prompt_lengths: Sequence[int] | None = None
        self.nan = NanWatch(self.name, method.model)
        self.judged: list[int | torch.Tensor] = [0, 0]

    @property
    def shares_states(self) -> bool:
        """Whether a view runs apart in the model itself, whose recurrent states lie in its modules."""
        apart = any(companion.group.model is self.model for companion in self.companions)
        return apart and self.model.config.model_type in _STATE_IN_MODULES

    @contextmanager
    def plainly(self) -> Iterator[None]:
        """Let the model run without views in this block."""
        before, self.inert = self.inert, True
        try:
            yield
        finally:
            self.inert = before

    def forward_plainly(self, **kwargs: Any) -> Any:
        """A forward of the model as it is."""
        with self.plainly(), torch.no_grad():
            return self.model(**kwargs)

    def combined(self, views: Sequence[ViewLogits]) -> tuple[torch.Tensor, torch.Tensor]:
        """The method's scores under the constraint, and whether there is NaN among them."""
        for view in views if self.normalising else ():
            view.normalise()
        scores = plausible(self.method.combine(*views), views[0].logits, self.beta)
        return scores, nan_in(scores)

    def count(self, fired: torch.Tensor | None, ids: torch.Tensor, past: int) -> None:
        """Count where a gate fired at a forward's last position, without rows that have ended, which are fed padding.

        Args:
            fired: shape (batch, positions), bool; None: there is no gate.
            ids: the forward's tokens.
            past: how many tokens came before them.
        """
        if fired is None or not self.generating:
            return
        settings = self.front.generation_config
        pad = settings.eos_token_id and settings.pad_token_id
        goes_on = torch.ones_like(fired[:, -1])
        if past and ids.dim() == 2 and isinstance(pad, int):
            goes_on = ids[:, -1].to(fired.device) != pad
        self.judged[0] += goes_on.sum()
        self.judged[1] += (goes_on & fired[:, -1]).sum()

    def forget(self, *, cache_is_wanted: bool = True) -> None:
        """Forget the prompts; a cache that somebody may go on with keeps the main view's rows alone."""
        self.release(wanted=cache_is_wanted)
        self.past, self.prompts, self.prepared = 0, None, None
        self.nan.forget()
        self.main.end()
        for companion in self.companions:
            companion.reset()

    def encode(self, inputs: ImageInputs, ids: Any, mask: torch.Tensor | None) -> torch.Tensor:
        """Encode the images of every view of every model, for the prompts `ids`, which are returned."""
        if not has_pixels(inputs) and self.main.images.changed:
            raise ArgumentError(
                f"{self.name} compares images, but no pixel_values were given; pass the processor's outputs whole: "
                'model.generate(**processor(images=..., text=..., return_tensors="pt")).'
            )
        refuse_fully_sharded(
            self.front, "under a decoder images are encoded before the model runs; use tensor parallelism."
        )
        if not isinstance(ids, torch.Tensor) or ids.dim() != 2:
            raise ArgumentError(f"{self.name} needs input_ids beside the images, to see where they belong.")
        self.forget()
        for group in self.groups:
            group.images.encode(inputs, ids, mask, self.plainly)
        return ids

    def is_other(self, cache: Any, ids: torch.Tensor) -> bool:
        """Whether a forward within `generate` reads another text than the one that is generated.

        Its cache tells; without one its tokens do, which must be those that `generate` has prepared, or begin with the
        prompts.
        """
        if cache is not self.cache:
            return True
        prompts = self.prompts
        if cache is not None or ids is self.prepared or prompts is None or prompts.dim() != 2 or ids.dim() != 2:
            return False
        if len(ids) != len(prompts):
            return True
        return ids.shape[1] >= prompts.shape[1] and not torch.equal(ids[:, : prompts.shape[1]], prompts)

    # -- the cache -----------------------------------------------------------------------------------------------------

    def held(self, cache: Any) -> int:
        """How many tokens of each row `cache` holds already, padding for longer views included."""
        if cache is None:
            return 0
        if all(getattr(cache, "is_linear", [False])):  # recurrent states do not know how much went into them
            known = any(any(layer.is_conv_states_initialized.values()) for layer in cache.layers)
            return self.past + self.main.prompt.extra if cache is self.cache else int(known)
        if cache is self.cache and is_static(cache):  # a static cache's own count is a tensor: no sync per token
            return self.past + self.main.prompt.extra if self.past else 0
        return int(cache.get_seq_length())

    def adopt(self, cache: Any, *, empty: bool = False) -> None:
        """Make a generation loop's cache carry all views: room, growth, beam reordering, cropping."""
        if self.main.rows > 1 and self.cache_is_wanted:
            check_narrows(cache, self.main.prompt.extra, self.name)
        self.cache = cache
        config = self.model.config.get_text_config(decoder=True)
        if empty:
            start_anew(cache, config)
        make_room(cache, self.main.prompt.extra, config)
        grow(cache)
        reorder, crop = cache.reorder_cache, cache.crop

        def reorder_cache(beam_idx: torch.Tensor) -> None:
            if self.model.config.model_type in _STATE_IN_MODULES:
                raise ModelError(
                    f"{type(self.model).__name__} keeps states that do not follow beams; use greedy search or sampling."
                )
            reorder(self.main.wide_index(beam_idx))
            self.main.prompt_exits.reorder(beam_idx)
            for companion in self.companions:
                companion.reorder(beam_idx)

        def crop_all(tokens_to_remove: int) -> None:
            crop(tokens_to_remove)
            self.past -= abs(tokens_to_remove)

        cache.reorder_cache, cache.crop = reorder_cache, crop_all

    def release(self, *, wanted: bool = True) -> None:
        """Undo `adopt`."""
        if (cache := self.cache) is None:
            return
        cache.__dict__.pop("reorder_cache", None)
        cache.__dict__.pop("crop", None)
        if wanted and self.main.rows > 1 and self.main.laid_out:
            keep_main_view(cache, self.main.prompt.batch, self.main.prompt.extra)
        else:
            first_part_alone(cache)
        self.cache = None

    def goes_on(self, cache: Any) -> bool:
        """Whether a call of `generate` with this cache goes on from rows of `branched`."""
        return isinstance(self.cache, BranchedCache) and cache is self.cache

    @contextmanager
    def branched(self, cache: Cache, index: torch.Tensor, *, keep: bool = False) -> Iterator[BranchedCache]:
        """See `Session.branched`."""
        if cache is not self.cache:
            raise ArgumentError(f"{self.name} has not read what is in this cache; read the prefix with it.")
        past = self.past
        try:
            with ExitStack() as stack:
                wide = stack.enter_context(self.main.branched(index))
                for companion in self.companions:
                    stack.enter_context(companion.branched(index, keep=keep))
                self.cache = BranchedCache(cache, wide, keep=keep)
                yield self.cache
        finally:
            self.cache, self.past = cache, past
