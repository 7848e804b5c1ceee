"""The arguments that models of other harnesses take in one string: a model, a decoder and vectors."""

from __future__ import annotations

from typing import Any, NamedTuple

from truthkit.cli.amateurs import amateur as find_amateur
from truthkit.decoding.spec import DecoderSpec, parse_spec
from truthkit.errors import ArgumentError
from truthkit.steering.spec import SteerSpec, parse_steer


class Arguments(NamedTuple):
    """What was asked for.

    Attributes:
        decoder: and its options.
        steers: the vectors.
        model, processor: as from `tk.load`.
        amateur: to contrast with; None without one.
    """

    decoder: DecoderSpec
    steers: list[SteerSpec]
    model: Any
    processor: Any
    amateur: Any


def read_arguments(
    pretrained: str | None,
    decoder: str,
    steer: str | None,
    *,
    images: bool,
    adapter: str | None,
    amateur: str | None,
    allow_other_model: bool,
    revision: str | None,
    dtype: str | None,
    device: str | None,
) -> Arguments:
    """Check the arguments, and load the model.

    Arguments are as those of `truthkit.lm_eval.model.TruthkitLM`; `images` says whether the harness has any. A device
    of a kind that is not there is left to `tk.load`.

    Raises:
        ArgumentError: a decoder that needs what tasks do not have; an amateur that it does not contrast with.
        ModelError, NotAvailableError: as `tk.load`.
    """
    import torch

    from truthkit.models.loading import load

    spec = parse_spec(decoder.replace(";", ","))
    lacks = "images" if spec.needs_image and not images else "a passage" if spec.takes("context") else ""
    if lacks:
        raise ArgumentError(f"decoder {spec.text!r} compares prompts with and without {lacks}, which tasks lack.")
    if amateur is not None and not spec.takes("amateur"):
        raise ArgumentError(f"amateur is {amateur!r}, but decoder {spec.text!r} contrasts with none.")
    steers = [
        parse_steer(text.replace(";", ","), allow_other_model=allow_other_model)
        for text in (steer or "").split("|")
        if text
    ]
    if device and device.startswith("cuda") and not torch.cuda.is_available():
        device = None  # harnesses ask for one by default
    place: dict[str, Any] = {"device_map": device} if device else {}
    model, processor = load(pretrained, revision=revision, dtype=dtype, adapter=adapter, **place)
    opponent = find_amateur(amateur, model, dtype, place) if amateur else None
    return Arguments(spec, steers, model, processor, opponent)
