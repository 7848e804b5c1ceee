"""Steering: hidden states changed while the model runs, at chosen layers and tokens, and put right again afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from truthkit.activations.compiled import guarded_compilation, refuse_compiled
from truthkit.activations.positions import Positions, check_positions, selected
from truthkit.activations.sites import decoder_blocks, resolve_layers, site_module, site_width
from truthkit.activations.tracking import Tracker
from truthkit.decoding.attach import plain_model
from truthkit.errors import ArgumentError
from truthkit.steering.edits import check_mode, edited, with_norm_of

_BEFORE_PROMPT_ENDS = ("prompt", "last")


class Steering:
    """Changes to the hidden states of `model` for the length of a `with` block.

    Several may be active on one model: they act in the order in which they were entered. Under a truthkit decoder
    every view is steered alike, each at its own tokens. Under `generate`, entry i of a per-item value belongs to prompt
    i, with all its beams and samples.

    Args:
        model: any text or image-text model; PEFT wrappers are looked through.
        vectors: for each layer (block index) the vector (features,), or one per item (items, features); for mode
            "patch" also one per token (items, tokens, features) of a whole forward.
        strength: a number, or one per item.
        positions: which tokens; see `truthkit.activations.positions`.
        mode: what is done; see `truthkit.steering.edits`.
        site: "block", "heads" or "mlp".
        features: change these features only, as one attention head's.
        keep_norm: rescale every changed state to the length it had.
        processor: tokenizer or processor, for positions that look at characters.

    Attributes:
        prompt_lengths: set this before a forward outside `generate` to say how many of each row's tokens are prompt, so
            that "generated" selects the rest. None means all.

    Raises:
        ArgumentError: a value makes no sense, or the vectors' width is not the model's.
        AttachError: on entering, when the model is compiled already: compiled code would pass the change by.
    """

    def __init__(
        self,
        model: Any,
        vectors: Mapping[int, torch.Tensor],
        *,
        strength: float | Sequence[float] | torch.Tensor = 1.0,
        positions: Positions = "all",
        mode: str = "add",
        site: str = "block",
        features: slice | None = None,
        keep_norm: bool = False,
        processor: Any = None,
    ):
        self._given = model
        self.model = plain_model(model)
        self.positions, self.mode = check_positions(positions, processor), check_mode(mode)
        self.site, self.features, self.keep_norm = site, features, keep_norm
        blocks = decoder_blocks(self.model)
        layers = resolve_layers(list(vectors), len(blocks))
        self._modules = {layer: site_module(blocks[layer], site) for layer in layers}
        self._vectors = dict(zip(layers, vectors.values(), strict=True))
        self._per_item = [layer for layer, vector in self._vectors.items() if vector.dim() > 1]
        self._strength = _checked_strength(strength)
        self._items = self._check_widths(site_width(self.model, site))
        self._ready: dict[int, torch.Tensor] = {}
        self._row_strength: torch.Tensor | float = 1.0
        self._chosen: torch.Tensor | None = None
        self._skip = False
        self._tracker = Tracker(self.model, processor, self._begin_forward)
        self._stack = ExitStack()

    @property
    def prompt_lengths(self) -> Sequence[int] | None:
        return self._tracker.prompt_lengths

    @prompt_lengths.setter
    def prompt_lengths(self, lengths: Sequence[int] | None) -> None:
        self._tracker.prompt_lengths = lengths

    def __enter__(self) -> Steering:
        refuse_compiled(self._given, self.model)
        with ExitStack() as stack:
            self._tracker.attach(stack)
            for layer, module in self._modules.items():
                if self.site == "heads":
                    handle = module.register_forward_pre_hook(self._before(layer))
                else:
                    handle = module.register_forward_hook(self._after(layer))
                stack.callback(handle.remove)
            stack.callback(self._ready.clear)
            stack.enter_context(guarded_compilation())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    def _check_widths(self, width: int) -> int | None:
        """How many items the per-item values are for; None where there is none."""
        wanted = width if self.features is None else len(range(width)[self.features])
        counts: dict[str, int] = {}
        for layer, vector in self._vectors.items():
            if vector.dim() not in (1, 2, 3) or vector.shape[-1] != wanted:
                raise ArgumentError(
                    f"the vector of layer {layer} has shape {tuple(vector.shape)}, but site {self.site!r} of "
                    f"{type(self.model).__name__} has {wanted} features; was it made for another model?"
                )
            if vector.dim() == 3 and self.mode != "patch":
                raise ArgumentError(
                    f'a vector per token (layer {layer}) goes with mode="patch" only, not {self.mode!r}.'
                )
            if vector.dim() > 1:
                counts[f"vectors of layer {layer}"] = len(vector)
            if not bool(vector.isfinite().all()):
                raise ArgumentError(f"the vector of layer {layer} holds values that are not finite.")
        if isinstance(self._strength, torch.Tensor):
            counts["strength"] = len(self._strength)
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{name}: {count}" for name, count in counts.items())
            raise ArgumentError(f"values per item differ in number ({listed}); give one per prompt of the batch.")
        return next(iter(counts.values()), None)

    # -- forward -------------------------------------------------------------------------------------------------------

    @torch.compiler.disable
    def _begin_forward(self) -> None:
        tracker = self._tracker
        tokens, item = tracker.tokens, tracker.item
        if self._items is not None and int(item[-1]) + 1 != self._items:
            raise ArgumentError(
                f"strength or vectors are given for {self._items} items, but the batch has {int(item[-1]) + 1}; give "
                "one per prompt, or a single one for all."
            )
        for layer in self._per_item:
            self._ready.pop(layer, None)
        self._row_strength = (
            self._strength[item.cpu()][:, None, None] if isinstance(self._strength, torch.Tensor) else self._strength
        )
        if tracker.after_prompt and self.positions in _BEFORE_PROMPT_ENDS:
            self._skip, self._chosen = True, None
        elif tracker.after_prompt and (self.positions in ("generated", "answer", "all")):
            self._skip, self._chosen = False, None
        else:
            self._chosen = selected(self.positions, tokens)[..., None]
            self._skip = False

    def _vector(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        """The layer's vector, spread over the rows of this forward, in the dtype and on the device of `hidden`."""
        if layer not in self._ready:
            vector = self._vectors[layer]
            if vector.dim() > 1:
                vector = vector[self._tracker.item.to(vector.device)]
                vector = vector[:, None] if vector.dim() == 2 else vector
            self._ready[layer] = vector.to(hidden.device, hidden.dtype)
        return self._ready[layer]

    def _change(self, layer: int, given: torch.Tensor) -> torch.Tensor:
        hidden = (
            given if given.dim() == 3 else given.view(*self._tracker.tokens.real.shape, -1)
        )  # OPT's MLP sees one long row
        if self.features is not None:
            part = hidden[..., self.features]
            changed = hidden.clone()
            changed[..., self.features] = self._changed(layer, part)
        else:
            changed = self._changed(layer, hidden)
        if self._chosen is not None:
            changed = torch.where(self._chosen.to(hidden.device), changed, hidden)
        return changed.view_as(given)

    def _changed(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        vector = self._vector(layer, hidden)
        if vector.dim() == 3 and vector.shape[1] not in (1, hidden.shape[1]):
            raise ArgumentError(
                f"the patch for layer {layer} has {vector.shape[1]} tokens, but the forward has {hidden.shape[1]}; "
                "patch a whole text in one forward, or give one vector per item."
            )
        strength = self._row_strength
        if isinstance(strength, torch.Tensor):
            strength = strength.to(hidden.device, hidden.dtype)
        changed = edited(hidden, vector, strength, self.mode)
        return with_norm_of(changed, hidden) if self.keep_norm else changed

    def _after(self, layer: int) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
            if self._skip:
                return None
            if isinstance(output, tuple):
                return (self._change(layer, output[0]), *output[1:])
            return self._change(layer, output)

        return hook

    def _before(self, layer: int) -> Any:
        def hook(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> Any:
            return None if self._skip else (self._change(layer, args[0]), *args[1:])

        return hook


def _checked_strength(strength: Any) -> float | torch.Tensor:
    values = strength if isinstance(strength, torch.Tensor) else torch.tensor(strength, dtype=torch.float64)
    if values.dim() > 1 or values.numel() == 0 or not bool(values.isfinite().all()):
        raise ArgumentError(f"strength is {strength!r}; expected a finite number, or one per prompt.")
    return float(values) if values.dim() == 0 else values.detach().cpu()
