"""A steering vector: one direction per layer, where it belongs, and where it comes from."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any, Literal, TypeAlias

import torch

from truthkit.activations.positions import Positions
from truthkit.errors import ArgumentError
from truthkit.hf.sites import SITES
from truthkit.steering import vector_file
from truthkit.steering.bake import Baked, bake
from truthkit.steering.checked import by_layer, check_about
from truthkit.steering.conditions import Conditions
from truthkit.steering.fit import check_origin, check_shape
from truthkit.steering.layers import default_layer, middle_of_best
from truthkit.steering.steer import Steering

Layers: TypeAlias = Sequence[int] | int | Literal["all"] | None


@dataclass(frozen=True, eq=False)
class SteeringVector:
    """Directions in the activations of a model's decoder blocks.

    `vector[i]` is the direction of layer `i`, a float32 tensor of shape (features,); negative numbers count from the
    end.

    Attributes:
        directions: layer (0-based block index) to direction.
        layer_count: how many decoder blocks the model has; None where a file does not say: any model with these layers
            will do.
        site: "block", "heads" or "mlp".
        provenance: where it comes from: JSON values only.

    Raises:
        ArgumentError: no direction, or directions that are not finite vectors of one length, or a layer that does not
            exist.
    """

    directions: Mapping[int, torch.Tensor]
    layer_count: int | None = None
    site: str = "block"
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.site not in SITES:
            raise ArgumentError(f"site is {self.site!r}; expected one of {', '.join(map(repr, SITES))}.")
        directions = {
            layer: torch.as_tensor(direction).detach().to("cpu", torch.float32)
            for layer, direction in sorted(self.directions.items())
        }
        if not directions:
            raise ArgumentError("a steering vector needs the direction of at least one layer.")
        if len({tuple(direction.shape) for direction in directions.values()}) > 1:
            raise ArgumentError("the directions differ in shape; expected (features,) for every layer.")
        for layer, direction in directions.items():
            if layer < 0 or (self.layer_count is not None and layer >= self.layer_count):
                raise ArgumentError(
                    f"layer {layer} does not exist in a model of {self.layer_count or 'any number of'} decoder blocks."
                )
            if direction.dim() != 1 or not direction.numel() or not bool(direction.isfinite().all()):
                raise ArgumentError(f"the direction of layer {layer} is not a vector of finite numbers.")
        object.__setattr__(self, "directions", directions)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that have a direction, in order."""
        return tuple(self.directions)

    @property
    def features(self) -> int:
        """How many features a direction has."""
        return len(next(iter(self.directions.values())))

    def __getitem__(self, layer: int) -> torch.Tensor:
        return self.directions[self.number(layer)]

    def number(self, layer: int) -> int:
        """A layer's number from 0; negative ones count from the model's last block.

        Raises:
            ArgumentError: the vector has no such layer, or it is not known how many blocks there are.
        """
        if layer < 0 and self.layer_count is None:
            raise ArgumentError(
                f"layer {layer} counts from the end, but this vector's file does not say how many decoder blocks the "
                f"model has; its layers are {list(self.layers)}."
            )
        found = layer + (self.layer_count or 0) if layer < 0 else layer
        if found not in self.directions:
            raise ArgumentError(f"the vector has no layer {layer}; it has {list(self.layers)}.")
        return found

    def __iter__(self) -> Iterator[int]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.directions)

    def __repr__(self) -> str:
        layers = f"{self.layers[0]}-{self.layers[-1]}" if len(self) > 1 else str(self.layers[0])
        of = f" of {self.layer_count}" if self.layer_count is not None else ""
        where = f"{len(self)} layers ({layers}{of})"
        return f"SteeringVector({where}, {self.features} features, {self.site!r})"

    def at(self, layers: Sequence[int] | int) -> SteeringVector:
        """The same vector with these layers only."""
        wanted = [layers] if isinstance(layers, int) else list(layers)
        return replace(self, directions={self.number(layer): self[layer] for layer in wanted})

    # -- arithmetic ----------------------------------------------------------------------------------------------------

    def _with(self, directions: Mapping[int, torch.Tensor], step: str) -> SteeringVector:
        history = [*self.provenance.get("history", []), step]
        return replace(self, directions=directions, provenance={**self.provenance, "history": history})

    def shares_space(self, other: SteeringVector) -> bool:
        """Whether both are of one site and width, and of as many blocks where both know how many."""
        counts = {count for count in (self.layer_count, other.layer_count) if count is not None}
        return (self.site, self.features) == (other.site, other.features) and len(counts) < 2

    def _paired(self, other: SteeringVector) -> list[int]:
        if not self.shares_space(other):
            raise ArgumentError(f"{self!r} and {other!r} live in different spaces; they cannot be combined.")
        if not (both := [layer for layer in self if layer in other.directions]):
            raise ArgumentError(f"the vectors share no layer: {list(self.layers)} and {list(other.layers)}.")
        return both

    def __add__(self, other: SteeringVector) -> SteeringVector:
        self._paired(other)
        zero = torch.zeros(self.features)
        layers = sorted({*self.layers, *other.layers})
        total = {layer: self.directions.get(layer, zero) + other.directions.get(layer, zero) for layer in layers}
        count = other.layer_count if self.layer_count is None else self.layer_count
        return replace(self, layer_count=count)._with(total, "sum with another vector")

    def __mul__(self, factor: float) -> SteeringVector:
        return self._with({layer: d * float(factor) for layer, d in self.directions.items()}, f"times {float(factor)}")

    __rmul__ = __mul__

    def __neg__(self) -> SteeringVector:
        return self * -1.0

    def __sub__(self, other: SteeringVector) -> SteeringVector:
        return self + -other

    def __truediv__(self, divisor: float) -> SteeringVector:
        return self * (1.0 / divisor)

    def norms(self) -> dict[int, float]:
        """The length of each layer's direction."""
        return {layer: float(direction.norm()) for layer, direction in self.directions.items()}

    def normalised(self) -> SteeringVector:
        """The same directions, each of length 1."""
        unit = {layer: torch.nn.functional.normalize(d, dim=0) for layer, d in self.directions.items()}
        return self._with(unit, "normalised")

    def random_like(self, seed: int) -> SteeringVector:
        """A control: at each layer a random direction as long as the vector is there."""
        draw = torch.Generator().manual_seed(seed)
        noise = {layer: torch.randn(self.features, generator=draw) for layer in self.layers}
        lengths = self.norms()
        return self._with({layer: one / one.norm() * lengths[layer] for layer, one in noise.items()}, "random")

    def cosine(self, other: SteeringVector) -> dict[int, float]:
        """Cosine of the angle between the two, for every layer that both have; computed in float64."""
        return {
            layer: float(torch.nn.functional.cosine_similarity(self[layer].double(), other[layer].double(), dim=0))
            for layer in self._paired(other)
        }

    def leakage(self, other: SteeringVector) -> dict[int, float]:
        """Which share of this vector's squared length lies along `other`, for every layer that both have: 0 is none."""
        return {layer: cosine**2 for layer, cosine in self.cosine(other).items()}

    def project(self, other: SteeringVector) -> SteeringVector:
        """The part of this vector that lies along `other`, in the layers that both have."""
        parts = {}
        for layer in self._paired(other):
            a, b = self[layer].double(), other[layer].double()
            parts[layer] = (a @ b) / (b @ b).clamp_min(torch.finfo(b.dtype).tiny) * b
        return self._with(parts, "projected on another vector")

    def orthogonalise(self, against: SteeringVector) -> SteeringVector:
        """The vector without its part along `against`; layers that only this one has are unchanged."""
        parts = self.project(against)
        rest = {
            layer: d.double() - parts.directions[layer].double() if layer in parts.directions else d
            for layer, d in self.directions.items()
        }
        return self._with(rest, "orthogonalised against another vector")

    def principal_direction(self) -> torch.Tensor:
        """What the layers' directions, each of length 1, differ in most: their first principal component, (features,).

        The second axis of the plane of angular steering (arXiv 2510.26243). Its sign is arbitrary: here its largest
        feature is positive.

        Raises:
            ArgumentError: the vector has one layer only, or all have the same direction.
        """
        units = torch.stack([one / one.norm() for one in (d.double() for d in self.directions.values())])
        centred = units - units.mean(dim=0)
        if not bool((centred.norm(dim=-1) > 1e-6).any()):
            raise ArgumentError(f'{self!r} has no two layers whose directions differ; pass plane= for mode="angle".')
        first = torch.linalg.svd(centred, full_matrices=False).Vh[0]
        return (first * first[first.abs().argmax()].sign()).float()

    # -- use -----------------------------------------------------------------------------------------------------------

    @property
    def scores(self) -> dict[int, dict[str, float]]:
        """Held-out score of every layer, as `tk.extract` found it; empty where none was held out."""
        return {int(layer): score for layer, score in self.provenance.get("scores", {}).items()}

    def best_layer(self) -> int:
        """The layer with the highest held-out AUC; of equal ones the middle of the longest stretch of them.

        Raises:
            ArgumentError: the vector has no held-out scores.
        """
        scores = {layer: score["auc"] for layer, score in self.scores.items() if layer in self.directions}
        if not scores:
            raise ArgumentError("this vector has no held-out scores; extract it with held_out > 0, or name the layers.")
        return middle_of_best(scores)

    def chosen(self, layers: Layers = None) -> SteeringVector:
        """The vector with the layers that are to be steered.

        Args:
            layers: numbers, "all", or None for those that the vector was cut to when they were chosen, or else the one
                with the best held-out AUC, or the middle one; a warning says which.

        Raises:
            ArgumentError: the vector has no such layer.
        """
        cut = len(self) == 1 or not {"selection", "heads"}.isdisjoint(self.provenance)
        if layers == "all" or (layers is None and cut):
            return self
        if isinstance(layers, str):
            raise ArgumentError(f"layers is {layers!r}; expected numbers, or 'all'.")
        if layers is not None:
            return self.at(layers)
        layer, why = default_layer(self.layers, {layer: score["auc"] for layer, score in self.scores.items()})
        warnings.warn(
            f"the vector has {len(self)} layers; layer {layer} is steered, {why}. Name layers to steer others, or pass "
            "layers='all' (layers=all on the command line) to steer every one.",
            stacklevel=3,
        )
        return self.at(layer)

    def check_model(self, model: Any, *, allow_other_model: bool = False) -> None:
        """Raise unless the vector fits `model`.

        Raises:
            ModelError: the model has another number of blocks or features; or, unless `allow_other_model`, it is
                another model: by its hub id, else by its configuration and weights (`truthkit.models.identity`).
        """
        check_shape(model, self.site, self.features, self.layers, self.layer_count)
        if not allow_other_model:
            check_origin(model, self.provenance.get("model") or {})

    def steer(
        self,
        model: Any,
        *,
        strength: float | Sequence[float] | torch.Tensor = 1.0,
        positions: Positions = "all",
        layers: Layers = None,
        mode: str = "add",
        plane: torch.Tensor | Mapping[int, torch.Tensor] | None = None,
        keep_norm: bool = False,
        where: Conditions = None,
        processor: Any = None,
        allow_other_model: bool = False,
    ) -> Steering:
        """Steer `model` in a `with` block; see `Steering` for the arguments.

        Args:
            model: a text or image-text model.
            strength: a number, or one per prompt of the batch.
            positions: which tokens; see `truthkit.activations.positions`.
            mode: what is done; see `truthkit.steering.edits`.
            plane: for mode "angle", as in `Steering`; None is `principal_direction()`, as in the method's paper.
            keep_norm: rescale every changed state to the length it had.
            where: what a token, or its row, must meet to be steered; see `truthkit.steering.conditions`.
            processor: tokenizer or processor, for positions that look at characters.
            layers: the layers to steer, or "all" of the vector's. None steers one, `best_layer()` where there are
                scores and else the middle one, and says so; a vector that was cut to chosen layers, these.
            allow_other_model: steer another model than the one the vector was made from.
        """
        self.check_model(model, allow_other_model=allow_other_model)
        vector = self.chosen(layers)
        if mode == "angle" and plane is None:
            plane = self.principal_direction()
        return Steering(
            model,
            vector.directions,
            strength=strength,
            positions=positions,
            mode=mode,
            plane=plane,
            site=self.site,
            keep_norm=keep_norm,
            where=where,
            processor=processor,
        )

    def bake(
        self,
        model: Any,
        *,
        strength: float = 1.0,
        layers: Layers = None,
        allow_other_model: bool = False,
        keep_in_memory: bool = False,
    ) -> Baked:
        """Fold strength times the vector into the biases of `model`; see `truthkit.steering.bake.bake`, and `steer` for
        `layers`.
        """
        self.check_model(model, allow_other_model=allow_other_model)
        vector = self.chosen(layers)
        scaled = {layer: direction * strength for layer, direction in vector.directions.items()}
        return bake(model, scaled, site=self.site, keep_in_memory=keep_in_memory)

    def save(self, path: str | PathLike[str]) -> None:
        """Write one safetensors file, with the provenance in its header."""
        tensors = {f"{self.site}.{layer}": direction.contiguous() for layer, direction in self.directions.items()}
        header = {"site": self.site, "layer_count": self.layer_count, "provenance": self.provenance}
        vector_file.write(path, tensors, header)

    @classmethod
    def load(cls, path: str | PathLike[str], *, model: Any = None, allow_other_model: bool = False) -> SteeringVector:
        """Read what `save` wrote, and check it against `model` if one is given.

        Raises:
            NotAvailableError: there is no such file.
            ArgumentError: it is no steering vector, or was cut short or changed.
            ModelError: it does not fit `model`.
        """
        if vector_file.is_of_vision(path):
            raise ArgumentError(
                f"{str(path)!r} holds directions of a vision tower, not of a text decoder; VisionVector.load reads it."
            )
        tensors, header = vector_file.read(path)
        about = check_about(header, repr(str(path)))
        directions = by_layer(tensors.items(), repr(str(path)))
        vector = cls(directions, about["layer_count"], about["site"], about["provenance"])
        if model is not None:
            vector.check_model(model, allow_other_model=allow_other_model)
        return vector
