"""One attachment of a decoder to its model: what is put on the model, and all that is known of the prompts under it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from truthkit.decoding.engine.decode_step import DecodeStep
from truthkit.decoding.engine.forward import ForwardPair, Observer
from truthkit.decoding.engine.generate_calls import encoding_images, guarded
from truthkit.decoding.engine.loop import Loop, Method
from truthkit.decoding.engine.source import Notes
from truthkit.hf.compiled import is_compiled
from truthkit.hf.ownership import Block
from truthkit.hf.steps import uncompiled
from truthkit.hf.wrapping import refuse_continuous_batching, replaced_method, sole_owner

if TYPE_CHECKING:
    import torch
    from transformers.cache_utils import Cache

    from truthkit.hf.branches import BranchedCache


class Session:
    """What `with decoder as session:` gives, from entering the block to leaving it.

    It belongs to the thread that entered the block and to those that this thread starts inside, as for streaming; one
    call of `generate` runs at a time. In all other threads the model is as it was.

    What the method noted about the last prompt is among its attributes, also afterwards: RITUAL's `chosen`.

    Attributes:
        decoder: the method.
        observers: called after every forward.
        block: whose threads it acts in.
    """

    def __init__(self, decoder: Method):
        self.decoder = decoder
        self.observers: list[Observer] = []
        self._loop = Loop(decoder)
        self.block = Block(self._loop.name)
        self._stack = ExitStack()

    def open(self) -> None:
        """Attach it.

        Raises:
            AttachError: the model runs under a decoder already.
        """
        model, loop, block = self.decoder.model, self._loop, self.block
        forwards = ForwardPair(loop, self.observers, block)
        with ExitStack() as stack:
            stack.enter_context(sole_owner(model, loop.name))
            stack.enter_context(block.open())
            loop.main.attach(stack, block)
            widen, narrow = block.only_here(forwards.widen), block.only_here(forwards.narrow)
            stack.callback(model.register_forward_pre_hook(widen, with_kwargs=True).remove)
            stack.callback(model.register_forward_hook(narrow, with_kwargs=True).remove)
            generate = functools.partial(guarded, loop, block)
            stack.enter_context(replaced_method(model, "generate", generate, block))
            encoding = functools.partial(encoding_images, loop, block)
            stack.enter_context(replaced_method(self.decoder.front, "generate", encoding, block))
            stack.enter_context(replaced_method(model, "generate_batch", refuse_continuous_batching, block))
            part = DecodeStep(loop, self.observers, block)
            compiled = self.decoder.compiled or is_compiled(model, model)
            stack.enter_context(uncompiled(model, compiled, part))
            stack.callback(loop.forget)
            for beside in self.decoder.beside(self):
                stack.enter_context(beside)
            self._stack = stack.pop_all()

    def close(self, *exception: object) -> None:
        """Take it off again.

        Args:
            exception: what the block is left by, as `__exit__` has it.

        Raises:
            AttachError: a call of `generate` still runs; it is stopped.
        """
        caller = self.block.leave()
        self._stack.close()
        self.block.refuse_left(caller, exception)

    def plainly(self) -> AbstractContextManager[None]:
        """Let the model run without views in a block."""
        return self._loop.plainly()

    @property
    def notes(self) -> Notes:
        """What the method noted about the last prompt."""
        return {name: value for group in self._loop.groups for name, value in group.images.notes.items()}

    @property
    def share(self) -> float | None:
        """In which share of the steps, of all rows generated in the block, a gate has fired; None without one."""
        judged, fired = map(int, self._loop.judged)
        return fired / judged if judged else None

    def __getattr__(self, name: str) -> Any:
        notes = {} if name.startswith("_") else self.notes
        if name not in notes:
            raise AttributeError(f"this session of {type(self.decoder).__name__} has no {name!r}, nor a note of it.")
        return notes[name]

    @property
    def contrasts(self) -> bool:
        """Whether the method compares the model's logits with others, so that its scores are no probabilities."""
        return len(self.decoder.views) > 1 or bool(self.decoder.layers or self.decoder.prompt_exits)

    @property
    def takes_trees(self) -> bool:
        """Whether forwards that go on from a cache may be trees (`truthkit.hf.trees`)."""
        return all(group.takes_trees for group in self.decoder.groups)

    @property
    def takes_branches(self) -> bool:
        """Whether `branched` serves: in the models of all views (`truthkit.hf.branches`)."""
        return all(group.takes_branches for group in self.decoder.groups)

    def branched(
        self, cache: Cache, index: torch.Tensor, *, keep: bool = False
    ) -> AbstractContextManager[BranchedCache]:
        """Let new rows go on from rows that were read into `cache`; afterwards everything is as before.

        What is yielded goes into the forwards as their `cache`, or, kept, into one call of `generate` (greedy search or
        sampling, with the whole prompts; no view's part of them in `cache` may be longer than the main one's columns).
        Only where `takes_branches`.

        Args:
            cache: of this session.
            index: for each new row the row that it goes on from, shape (rows,), int64.
            keep: let the new rows' tokens stay, to go on from them; else every forward begins at `cache`.

        Raises:
            ArgumentError: on entry, if `cache` is another one.
        """
        return self._loop.branched(cache, index, keep=keep)

    @contextmanager
    def unconstrained(self) -> Iterator[None]:
        """Leave the plausibility constraint out in this block."""
        before, self._loop.beta = self._loop.beta, 0.0
        try:
            yield
        finally:
            self._loop.beta = before

    @contextmanager
    def with_prompts(self, lengths: Sequence[int]) -> Iterator[None]:
        """Say how many tokens of each row are its prompt, for methods that look at prompts; else that is what the first
        forward reads, or the prompts of `generate`.
        """
        before, self._loop.prompt_lengths = self._loop.prompt_lengths, lengths
        try:
            yield
        finally:
            self._loop.prompt_lengths = before

    @contextmanager
    def of_log_probabilities(self) -> Iterator[None]:
        """Let the formula combine log-probabilities in this block; for forwards without gradients.

        The method is the same: logits differ from them by a constant per position. What it makes of them is then no
        longer up to such a constant, and can be added up over positions.
        """
        self._loop.normalising = True
        try:
            yield
        finally:
            self._loop.normalising = False
