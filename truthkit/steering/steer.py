"""Steering: hidden states changed while the model runs, at chosen layers and tokens, and put right again afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from truthkit.activations.hooks import Hooked, OnStates
from truthkit.activations.positions import Positions, selected
from truthkit.errors import ArgumentError
from truthkit.hf.sites import site_width
from truthkit.steering.conditions import Conditions, all_of
from truthkit.steering.edits import edited, with_norm_of
from truthkit.steering.gates import Gate, gate_for
from truthkit.steering.names import check_mode

_BEFORE_PROMPT_ENDS = ("prompt", "last")
_AFTER_PROMPT = ("generated", "answer", "all")


class Steering(Hooked):
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
        plane: for mode "angle" the second direction (features,) of the plane that states are turned in, one for all
            layers or one for each; what of it is along the layer's vector is left out.
        site: "block", "heads" or "mlp".
        features: change these features only, as one attention head's.
        keep_norm: rescale every changed state to the length it had.
        where: what a token, or its row, must meet to be steered; see `truthkit.steering.conditions`.
        processor: tokenizer or processor, for positions that look at characters.

    Attributes:
        prompt_lengths: set this before a forward outside `generate` to say how many of each row's tokens are prompt, so
            that "generated" selects the rest. None means all.

    Raises:
        ArgumentError: a value makes no sense, or the vectors' width is not the model's.
    """

    def __init__(
        self,
        model: Any,
        vectors: Mapping[int, torch.Tensor],
        *,
        strength: float | Sequence[float] | torch.Tensor = 1.0,
        positions: Positions = "all",
        mode: str = "add",
        plane: torch.Tensor | Mapping[int, torch.Tensor] | None = None,
        site: str = "block",
        features: slice | None = None,
        keep_norm: bool = False,
        where: Conditions = None,
        processor: Any = None,
    ):
        super().__init__(model, list(vectors), site, positions, processor)
        self.mode, self.features, self.keep_norm = check_mode(mode), features, keep_norm
        self._vectors = dict(zip(self.layers, vectors.values(), strict=True))
        if len(self._vectors) < len(vectors):
            raise ArgumentError(f"vectors has layers {list(vectors)}, of which two are the same block; give one each.")
        self._strength = _checked_strength(strength)
        self._items = self._check_widths(site_width(self.model, site))
        self._planes = self._checked_planes(dict(zip(vectors, self.layers, strict=True)), plane)
        self._ready: dict[int, torch.Tensor] = {}
        self._ready_planes: dict[tuple[int, torch.device, torch.dtype], torch.Tensor] = {}
        self._strengths: dict[tuple[torch.device, torch.dtype], torch.Tensor] = {}
        self._rows: torch.Tensor | None = None
        self._chosen: torch.Tensor | None = None
        self._skip = False
        parts = positions if isinstance(positions, tuple) else (positions,)
        self._never_later = all(part in _BEFORE_PROMPT_ENDS for part in parts)
        self._always_later = any(part in _AFTER_PROMPT for part in parts)
        conditions, self.where = all_of(where), where
        self._gates: list[Gate] = [gate_for(one, self.model, self.layers, site, self._tracker) for one in conditions]
        self._beside += [gate.attach for gate in self._gates]
        self.of_whole_prompt = any(gate.of_whole_prompt for gate in self._gates)
        self._only_adds = self.mode == "add" and features is None and not keep_norm and not self._gates

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        self._ready.clear()
        self._ready_planes.clear()
        self._strengths.clear()
        self._rows = None

    @property
    def vectors(self) -> Mapping[int, torch.Tensor]:
        """What is added, by layer."""
        return self._vectors

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

    def _checked_planes(self, layers: Mapping[int, int], plane: Any) -> dict[int, torch.Tensor]:
        """The second direction of each layer's plane; none but for mode "angle"."""
        if (self.mode == "angle") != (plane is not None):
            raise ArgumentError(
                f"mode is {self.mode!r} and plane {'not given' if plane is None else 'given'}; the two go together: "
                'mode="angle", plane=a second direction. The steer() of a vector of several layers finds one itself.'
            )
        if plane is None:
            return {}
        given = plane if isinstance(plane, Mapping) else dict.fromkeys(layers, plane)
        if missing := [layer for layer in layers if layer not in given]:
            raise ArgumentError(f"plane has no direction for layer {missing[0]}, only for {list(given)}.")
        planes = {number: given[layer] for layer, number in layers.items()}
        for layer, second in planes.items():
            first = self._vectors[layer].double()
            if not isinstance(second, torch.Tensor) or second.shape != first.shape[-1:]:
                raise ArgumentError(
                    f"plane is {getattr(second, 'shape', second)!r:.80} for layer {layer}; expected a tensor of shape "
                    f"{tuple(first.shape[-1:])}."
                )
            cosine = torch.nn.functional.cosine_similarity(first, second.to(first), dim=-1)
            if not bool((cosine.abs() < 1 - 1e-9).all()) or not bool(second.any()):
                raise ArgumentError(f"plane is along the vector of layer {layer}, or 0: the two span no plane.")
        return planes

    # -- forward -------------------------------------------------------------------------------------------------------

    @torch.compiler.disable
    def _begin_forward(self) -> None:
        tracker = self._tracker
        if self._items is not None and tracker.items != self._items:
            raise ArgumentError(
                f"strength or vectors are given for {self._items} items, but the batch has {tracker.items}; give "
                "one per prompt, or a single one for all."
            )
        if self._items is not None and self._rows is not tracker.item:
            self._rows = tracker.item
            self._ready.clear()
            self._strengths.clear()
        self._skip = tracker.after_prompt and self._never_later
        everywhere = tracker.after_prompt and self._always_later
        self._chosen = None if self._skip or everywhere else selected(self.positions, tracker.tokens)[..., None]
        for gate in self._gates:
            gate.begin()

    def _vector(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        """The layer's vector for the rows of this forward, in the dtype and on the device of `hidden`.

        What is only added is multiplied by the strength here, once, and not at every token.
        """
        if (vector := self._ready.get(layer)) is None:
            vector = self._vectors[layer]
            if vector.dim() > 1:
                vector = vector[self._tracker.item.to(vector.device)]
                vector = vector[:, None] if vector.dim() == 2 else vector
            if self.mode == "add":
                vector = vector * self._strength_for(vector)
            vector = self._ready[layer] = vector.to(hidden.device, hidden.dtype)
        return vector

    def _plane(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        key = layer, hidden.device, hidden.dtype
        if key not in self._ready_planes:
            self._ready_planes[key] = self._planes[layer].to(hidden.device, hidden.dtype)
        return self._ready_planes[key]

    def _strength_for(self, states: torch.Tensor) -> torch.Tensor | float:
        if isinstance(self._strength, float):
            return self._strength
        key = states.device, states.dtype
        if key not in self._strengths:
            self._strengths[key] = self._strength[self._tracker.item.cpu()][:, None, None].to(*key)
        return self._strengths[key]

    def _on_states(self, layer: int) -> OnStates:
        def change(hidden: torch.Tensor) -> torch.Tensor | None:
            if self._skip:
                return None
            if self._only_adds and self._chosen is None and hidden.dim() == 3:  # as in most decoding steps
                return hidden + self._vector(layer, hidden)
            return self._changed_where_chosen(layer, hidden)

        return change

    def _changed_where_chosen(self, layer: int, given: torch.Tensor) -> torch.Tensor:
        # OPT's MLP sees one long row.
        hidden = given if given.dim() == 3 else given.view(*self._tracker.shape, -1)
        if self.features is not None:
            changed = hidden.clone()
            changed[..., self.features] = self._changed(layer, hidden[..., self.features])
        else:
            changed = self._changed(layer, hidden)
        chosen = None if self._chosen is None else self._chosen.to(hidden.device)
        for gate in self._gates:
            met = gate.open(layer, hidden, self._chosen)
            chosen = met if chosen is None else chosen & met
        if chosen is not None:
            changed = torch.where(chosen, changed, hidden)
        return changed.view_as(given)

    def _changed(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        vector = self._vector(layer, hidden)
        if vector.dim() == 3 and vector.shape[1] not in (1, hidden.shape[1]):
            raise ArgumentError(
                f"the patch for layer {layer} has {vector.shape[1]} tokens, but the forward has {hidden.shape[1]}; "
                "patch a whole text in one forward, or give one vector per item."
            )
        strength = 1.0 if self.mode == "add" else self._strength_for(hidden)
        plane = self._plane(layer, hidden) if self._planes else None
        changed = edited(hidden, vector, strength, self.mode, plane)
        return with_norm_of(changed, hidden) if self.keep_norm else changed


def _checked_strength(strength: Any) -> float | torch.Tensor:
    values = strength if isinstance(strength, torch.Tensor) else torch.tensor(strength, dtype=torch.float64)
    if values.dim() > 1 or values.numel() == 0 or not bool(values.isfinite().all()):
        raise ArgumentError(f"strength is {strength!r}; expected a finite number, or one per prompt.")
    return float(values) if values.dim() == 0 else values.detach().cpu()
