"""A decoder's share in the compiled decode steps of its model (`truthkit.hf.steps`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from truthkit.decoding.engine.forward import Observer, narrow_states
from truthkit.decoding.engine.layout import Prompt, repeated, repeated_positions
from truthkit.decoding.engine.loop import Loop
from truthkit.hf.ownership import Block
from truthkit.hf.step_parts import Arguments


class DecodeStep:
    """The views of `loop` as rows of one compiled forward, and their combination behind it in the same graph.

    Args:
        loop: the views.
        observers: of the session.
        block: whose the steps are.
    """

    def __init__(self, loop: Loop, observers: Sequence[Observer], block: Block):
        self.name, self.owner, self.block = loop.name, loop.method, block
        self._loop, self._observers = loop, observers
        self._prompt: Prompt | None = None
        self._shift: torch.Tensor | None = None

    @property
    def count(self) -> int:
        """How many rows run for one."""
        return self._loop.main.rows

    @property
    def has_read(self) -> bool:
        """See `truthkit.hf.step_parts.Part`."""
        loop = self._loop
        return loop.main.laid_out and loop.past >= (loop.length or loop.main.prompt.length)

    def obstacle(self, inputs: Arguments) -> str | None:
        """See `truthkit.hf.step_parts.Part`."""
        loop = self._loop
        if loop.companions:
            return "has a view with a forward of its own"
        if loop.method.gated:
            return "counts where its gate opens"
        if loop.main.attention:
            return "edits attention"
        if self._observers:
            return "is observed at every forward"
        if loop.inert or inputs["cache"] is not loop.cache:
            return "is to leave this text alone"
        return None

    @contextmanager
    def step(self, inputs: Arguments, rows: int, wide: Callable[[], Arguments]) -> Iterator[None]:
        """See `truthkit.hf.step_parts.Part`."""
        loop, main = self._loop, self._loop.main
        self.block.check()
        main.aim(rows // main.rows, inputs.get("logits_to_keep", 0), width=1)
        loop.stepping = True
        try:
            yield
            loop.past += 1
        finally:
            loop.stepping = False
            main.aim(0, 0)

    def mask(self, inputs: Arguments) -> torch.Tensor | None:
        """See `truthkit.hf.step_parts.Widening`."""
        main, given = self._loop.main, inputs.get("attention_mask")
        mask = main.prompt.mask
        if given is None and (main.same_prompt or not main.prompt.padded):
            return None
        if given is not None:  # of a prompt that was read in chunks the layout holds the first one
            mask = torch.cat([mask, given[:, main.prompt.length :].repeat(main.rows, 1)], dim=1)
        return None if bool(mask.all()) else mask

    def wide(self, inputs: Arguments) -> dict[str, Any]:
        """The step's arguments for all rows, as an uncompiled forward has them."""
        return self._loop.main.widen(dict(inputs), self._loop.past)

    def given(self, inputs: Arguments, wide: Callable[[], Arguments]) -> dict[str, Any]:
        """What the graph is given beside the step's own arguments.

        `shift`: how far the views' positions are from the main one's; `step` (a tensor) and `entropies`: as in
        `ViewLogits`.
        """
        loop, prompt = self._loop, self._loop.main.prompt
        if self._prompt is not prompt:
            self._prompt, self._shift = prompt, self._shift_of(inputs, wide)
        number = loop.past + 1 - prompt.answer_start
        step = torch.full((), number, device=inputs["input_ids"].device)
        return {"shift": self._shift, "step": step, "entropies": loop.main.prompt_exits.entropies}

    def _shift_of(self, inputs: Arguments, wide: Callable[[], Arguments]) -> torch.Tensor | None:
        """How far each row's position is from the main view's, in all steps after the prompt; None for nowhere."""
        main, positions = self._loop.main, inputs.get("position_ids")
        if positions is None or (main.same_prompt and main.prompt.axes is None):
            return None
        return wide()["position_ids"] - repeated_positions(positions, main.prompt.batch, main.rows)

    def widen(self, inputs: Arguments, given: Arguments) -> dict[str, Any]:
        """As `RowGroup.widen`, all but the mask; traced."""
        main = self._loop.main
        batch, count, shift = main.prompt.batch, main.rows, given["shift"]
        wide = {**inputs, **repeated(inputs, batch, count), "input_ids": inputs["input_ids"].repeat(count, 1)}
        if (positions := inputs.get("position_ids")) is not None:
            own = repeated_positions(positions, batch, count)
            wide["position_ids"] = own if shift is None else own + shift
        return wide

    def narrow(self, outputs: Any, given: Arguments) -> tuple[Any, torch.Tensor]:
        """The outputs of the main view's rows with the combined logits, and whether there was NaN; traced."""
        main = self._loop.main
        views = main.split(outputs.logits, 1, given["step"], given["entropies"])
        combined, found = self._loop.combined(views)
        outputs.logits = combined
        narrow_states(main, outputs, 1)
        return outputs, found

    def look(self, found: torch.Tensor) -> None:
        """At whether there was NaN."""
        self._loop.nan.look(found)
