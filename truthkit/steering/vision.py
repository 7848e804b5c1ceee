"""Steering in the vision tower: directions for its blocks, how they are found from images, and how they act."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, Literal, Self

import torch

from truthkit.activations.capture import wide
from truthkit.activations.hooks import OnStates, hook_states
from truthkit.decoding.engine.image_inputs import image_encoder, take_image_inputs
from truthkit.errors import ArgumentError, AttachError, ModelError
from truthkit.files.versions import versions
from truthkit.hf.compiled import eagerly, guarded_compilation, is_compiled
from truthkit.hf.ownership import Block
from truthkit.hf.sites import execution_device, resolve_layers
from truthkit.hf.tails import first_tensor
from truthkit.hf.vision import vision_blocks
from truthkit.hf.wrapping import plain_model
from truthkit.images.reading import read_image
from truthkit.models.identities import identity
from truthkit.steering import vector_file
from truthkit.steering.checked import by_layer, check_about
from truthkit.steering.edits import edited, with_norm_of
from truthkit.steering.fit import check_origin, model_id


@dataclass(frozen=True, eq=False)
class VisionVector:
    """Directions in the blocks of a vision tower.

    Attributes:
        directions: block number to direction, float32: (features,) for all image tokens, or (tokens, features) with one
            for each.
        provenance: where it comes from: JSON values only.

    Raises:
        ArgumentError: no direction, or shapes that differ, or values that are not finite.
    """

    directions: Mapping[int, torch.Tensor]
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kept = {at: one.detach().to("cpu", torch.float32) for at, one in sorted(self.directions.items())}
        shapes = {tuple(one.shape) for one in kept.values()}
        if len(shapes) != 1 or len(next(iter(shapes))) not in (1, 2):
            raise ArgumentError(f"directions have shapes {sorted(shapes)}; expected one: (features,) or with tokens.")
        if not all(bool(one.isfinite().all()) for one in kept.values()):
            raise ArgumentError("directions of the vision tower hold values that are not finite.")
        object.__setattr__(self, "directions", kept)

    def save(self, path: str | PathLike[str]) -> None:
        """Write one safetensors file, with the provenance in its header."""
        tensors = {f"vision.{at}": one.contiguous() for at, one in self.directions.items()}
        vector_file.write(path, tensors, {"site": "vision", "layer_count": None, "provenance": self.provenance})

    @classmethod
    def load(cls, path: str | PathLike[str]) -> VisionVector:
        """Read what `save` wrote.

        Raises:
            NotAvailableError: there is no such file.
            ArgumentError: it holds no directions of a vision tower, or was cut short or changed.
        """
        tensors, header = vector_file.read(path)
        about = check_about(header, repr(str(path)))
        if about["site"] != "vision":
            raise ArgumentError(f"{str(path)!r} is a vector of site {about['site']!r}; SteeringVector.load reads it.")
        return cls(by_layer(tensors.items(), repr(str(path))), about["provenance"])

    def check_model(self, model: Any, *, allow_other_model: bool = False) -> None:
        """Raise unless the directions fit `model`.

        Raises:
            ArgumentError: its vision tower lacks one of the blocks, or has another width.
            ModelError: it has no vision tower whose blocks can be told; or, unless `allow_other_model`, it is another
                model than the one that they were made from.
        """
        plain, found = plain_model(model), next(iter(self.directions.values()))
        resolve_layers(list(self.directions), len(vision_blocks(plain)))
        if found.shape[-1] != (width := _width(plain)):
            raise ArgumentError(f"the vision vector has {found.shape[-1]} features; this vision tower has {width}.")
        if not allow_other_model:
            check_origin(plain, self.provenance.get("model") or {})


class VisionSteering:
    """Move what the MLPs of a vision tower put out, within a `with` block, by parts of its own length.

        x ← ‖x‖ · norm(x/‖x‖ + strength · v̂)

    Every image that is encoded in the block is steered, those of a decoder's views too.

    Args:
        model: an image-text model; PEFT wrappers are looked through.
        vector: directions by block.
        strength: a number.
        layers: block numbers of the vision tower; None is all that the vector has.
        allow_other_model: steer another model than the one that the vector was made from.

    Raises:
        ArgumentError: a block that the tower or the vector does not have, or directions of another width.
        ModelError: the model has no vision tower whose blocks can be told, or the vector is another model's.
    """

    def __init__(
        self,
        model: Any,
        vector: VisionVector,
        *,
        strength: float = 0.09,
        layers: Sequence[int] | None = None,
        allow_other_model: bool = False,
    ):
        self._given, self.model, self.vector = model, plain_model(model), vector
        self.strength = float(strength)
        if not torch.tensor(self.strength).isfinite():
            raise ArgumentError(f"strength is {strength!r}; expected a finite number.")
        blocks = vision_blocks(self.model)
        self.layers = resolve_layers(list(vector.directions) if layers is None else layers, len(blocks))
        if missing := [layer for layer in self.layers if layer not in vector.directions]:
            raise ArgumentError(f"the vision vector has no block {missing[0]}; it has {list(vector.directions)}.")
        vector.check_model(self.model, allow_other_model=allow_other_model)
        self._stack = ExitStack()
        self._block: Block | None = None

    def __enter__(self) -> Self:
        if self._block is not None:
            raise AttachError("this VisionSteering is entered already; leave its block first, or make another one.")
        owner, blocks = Block("VisionSteering"), vision_blocks(self.model)
        with ExitStack() as stack:
            stack.enter_context(owner.open())
            for layer in dict.fromkeys(self.layers):
                stack.callback(hook_states(blocks[layer], "mlp", self._change(layer), owner).remove)
            stack.enter_context(eagerly(is_compiled(self._given, self.model)))
            stack.enter_context(guarded_compilation())
            self._stack, self._block = stack.pop_all(), owner
        return self

    def __exit__(self, *exception: object) -> None:
        if (owner := self._block) is None:
            return
        caller, self._block = owner.leave(), None
        self._stack.close()
        owner.refuse_left(caller, exception)

    def _change(self, layer: int) -> OnStates:
        given = self.vector.directions[layer]

        def change(states: torch.Tensor) -> torch.Tensor:
            if given.dim() == 2 and len(given) != states.shape[-2]:
                raise ArgumentError(
                    f"the vision vector has directions for {len(given)} image tokens, but this image has "
                    f'{states.shape[-2]}; make it with tokens="mean".'
                )
            vector = given.to(states.device, states.dtype)
            return with_norm_of(edited(states, vector, self.strength, "relative"), states)

        return change


def vision_vector(
    model: Any,
    processor: Any,
    images: Iterable[Any],
    *,
    tokens: Literal["each", "mean"] = "each",
    share: float = 0.99,
    trials: int = 50,
    seed: int = 0,
) -> VisionVector:
    """Directions from whole images to what their damaged copies have in common, as VTI's (arXiv 2410.15778).

        d = mean over `trials` of h(damaged) − h(whole),   v = E[d] + first principal component of d

    Source: the authors' released code, but for three readings of ours: a component is found for each block (theirs is
    one over all blocks side by side), it is turned towards E[d], for its sign is arbitrary, and damaged patches become
    0, the mean colour of the model's training. States are the outputs of the tower's blocks.

    Args:
        model: an image-text model; PEFT wrappers are looked through.
        processor: its processor.
        images: what `truthkit.images.reading.read_image` takes: images, paths.
        tokens: "each": a direction for each place of an image, as in the paper; all images must have as many tokens.
            "mean": one for all places, from their mean.
        share: of the patches are damaged, all but one at most, in (0, 1).
        trials: damaged copies per image, 1 or more.
        seed: of the damage.

    Raises:
        ArgumentError: an option is out of range, there is no image, or they differ in their number of tokens.
        ModelError: the model has no vision tower whose blocks can be told.
    """
    plain = plain_model(model)
    if tokens not in ("each", "mean") or not 0 < share < 1 or isinstance(trials, bool) or trials < 1:
        raise ArgumentError(
            f'tokens is {tokens!r}, share {share!r}, trials {trials!r}; expected "each" or "mean", (0, 1), 1 or more.'
        )
    blocks, encode = vision_blocks(plain), image_encoder(plain)
    if encode is None or not hasattr(processor, "image_processor"):
        raise ModelError(f"{type(plain).__name__} encodes no images, or no image-text processor was given.")
    draw, found = torch.Generator().manual_seed(seed), list[torch.Tensor]()
    for image in images:
        made = processor.image_processor(images=[read_image(image)], return_tensors="pt")
        inputs = take_image_inputs(plain, dict(made))
        states = [_states(plain, blocks, encode, inputs)]
        for _ in range(trials):
            damaged = _damaged(inputs["pixel_values"], share, _patch(plain), draw)
            states.append(_states(plain, blocks, encode, {**inputs, "pixel_values": damaged}))
        difference = torch.stack(states[1:]).mean(dim=0) - states[0]
        found.append(difference.mean(dim=1, keepdim=True) if tokens == "mean" else difference)
    if not found:
        raise ArgumentError("images is empty; give at least one.")
    if len({one.shape for one in found}) > 1:
        counts = sorted({one.shape[1] for one in found})
        raise ArgumentError(f'the images have {counts} tokens in the vision tower; pass tokens="mean".')
    each = torch.stack(found, dim=2)  # (blocks, tokens, images, features)
    directions = {at: _mean_and_component(one) for at, one in enumerate(each)}
    if tokens == "mean":
        directions = {at: one[0] for at, one in directions.items()}
    dtype = str(plain.dtype).removeprefix("torch.")
    provenance = {
        "model": {**identity(plain, processor), "id": model_id(plain), "dtype": dtype},
        "method": "vti",
        "images": len(found),
        "tokens": tokens,
        "share": share,
        "trials": trials,
        "seed": seed,
        "versions": versions("torch", "transformers"),
    }
    return VisionVector(directions, json.loads(json.dumps(provenance)))


def _mean_and_component(differences: torch.Tensor) -> torch.Tensor:
    """(tokens, images, features) to (tokens, features)."""
    mean = differences.mean(dim=1)
    if differences.shape[1] < 2:
        return mean
    component = torch.linalg.svd(differences - mean[:, None], full_matrices=False).Vh[:, 0]
    return mean + torch.where((component * mean).sum(dim=-1, keepdim=True) < 0, -component, component)


def _states(plain: Any, blocks: Any, encode: Any, inputs: Mapping[str, Any]) -> torch.Tensor:
    """The outputs of all blocks for one image, the mean over its tiles: (blocks, tokens, features)."""
    seen: list[torch.Tensor] = []

    def look(_module: Any, _args: Any, output: Any) -> None:
        states = wide(first_tensor(output).detach()).cpu()
        seen.append(states.mean(dim=0) if states.dim() == 3 else states)

    device, owner = execution_device(blocks[0]), Block("vision_vector")
    moved = {
        name: value.to(device, plain.dtype if value.is_floating_point() else value.dtype)
        if isinstance(value, torch.Tensor)
        else value
        for name, value in inputs.items()
    }
    with ExitStack() as stack, torch.no_grad(), eagerly(is_compiled(plain, plain)):
        for block in blocks:
            stack.callback(block.register_forward_hook(owner.only_here(look)).remove)
        encode(**moved)
    return torch.stack(seen)


def _width(plain: Any) -> int:
    """How many features the tower's blocks have; Qwen2-VL's `hidden_size` is that of the text decoder."""
    config = plain.config.vision_config
    return int(getattr(config, "embed_dim", None) or config.hidden_size)


def _patch(plain: Any) -> int:
    size = plain.config.vision_config.patch_size
    return int(size if isinstance(size, int) else size[0])


def _damaged(pixels: torch.Tensor, share: float, side: int, draw: torch.Generator) -> torch.Tensor:
    """A copy with a share of its patches set to 0: (..., height, width), or (patches, values) as Qwen2-VL's.

    One stays at least, for SmolVLM takes a tile of nothing but zeros for padding.
    """
    height, width = (-(-size // side) for size in pixels.shape[-2:]) if pixels.dim() > 2 else (len(pixels), 1)
    count = height * width
    order = torch.randperm(count, generator=draw)[: min(round(share * count), count - 1)]
    cells = torch.ones(count).index_fill(0, order, 0.0).view(height, width)
    if pixels.dim() == 2:
        return pixels * cells.to(pixels)
    mask = cells.repeat_interleave(side, 0).repeat_interleave(side, 1)[: pixels.shape[-2], : pixels.shape[-1]]
    return pixels * mask.to(pixels)
