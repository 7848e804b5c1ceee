"""Answers to several questions about one image, which is seen and read once for all of them.

The image and what its questions begin with are one row of a first forward; every question goes on from there in a row
of its own, within `generate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from truthkit.decoding.engine.loop import Method
from truthkit.decoding.engine.prompt_views import shared_width
from truthkit.decoding.engine.session import Session
from truthkit.hf.growing_cache import GrowingCache
from truthkit.hf.sites import input_device
from truthkit.likelihood.token_tree import common_length
from truthkit.text.tokens import padded

_TOKEN_TYPES = ("token_type_ids", "mm_token_type_ids")


def can_share(decoder: Method, rows: Sequence[Sequence[int]], places: Sequence[int]) -> bool:
    """Whether what prompts about one image begin with can be read apart, under this decoder and by its model.

    Windows, recurrent states, Q-Formers and prompts that see themselves in both directions depend on what follows, and
    so may a view's prompt.

    Args:
        decoder: any.
        rows: the prompts' token ids, without padding.
        places: for each prompt the number of its image.
    """
    apart = decoder.front is decoder.model and not decoder.of_whole_prompt
    branches = all(group.takes_branches for group in decoder.groups)
    return apart and branches and _shared(decoder, rows, places)[1] is not None


def _shared(
    decoder: Method, rows: Sequence[Sequence[int]], places: Sequence[int]
) -> tuple[list[Sequence[int]], int | None]:
    """What the prompts about each image begin with, and how wide that is in all views."""
    members = [[row for row, at in zip(rows, places, strict=True) if at == place] for place in range(max(places) + 1)]
    lengths = [common_length(own, min(map(len, own)) - 1) for own in members]
    rewrites = [view.prompt for view in decoder.views if view.prompt is not None]
    width = shared_width(rewrites, rows, [lengths[place] for place in places])
    return [own[0][:length] for own, length in zip(members, lengths, strict=True)], width


def generate_behind_images(
    session: Session,
    rows: Sequence[Sequence[int]],
    places: Sequence[int],
    trunk: dict[str, torch.Tensor],
    **options: Any,
) -> torch.Tensor:
    """New tokens for every prompt, (prompts, new), padded on the right.

    Args:
        session: of a decoder that `can_share` these.
        rows: the prompts' token ids, without padding.
        places: for each prompt the number of its image in `trunk`.
        trunk: model inputs of one prompt per image, padded on the left, with pixels.
        **options: of `generate`; greedy search or sampling.
    """
    model = session.decoder.front
    firsts, width = _shared(session.decoder, rows, places)
    assert width is not None
    ids, mask = padded(firsts, width=width)
    first = {name: value for name, value in trunk.items() if name not in ("input_ids", "attention_mask")}
    for name in _TOKEN_TYPES:
        if name in first:
            lengths = trunk["attention_mask"].sum(dim=1).tolist()
            types = [row[-length:].tolist() for row, length in zip(first[name], lengths, strict=True)]
            first[name] = padded([row[: len(own)] for row, own in zip(types, firsts, strict=True)], width=width)[0]
    first |= {"input_ids": ids, "attention_mask": mask}
    if not hasattr(model.base_model, "get_rope_index"):  # who has it knows the places of image tokens better
        first["position_ids"] = (mask.cumsum(dim=1) - 1).clamp_min(0)
    cache = GrowingCache(config=model.config.get_text_config(decoder=True))
    with torch.no_grad():
        model(**_on(model, first), cache=cache, logits_to_keep=1)
    index = torch.tensor(list(places))
    rest, own_mask = padded([row[len(firsts[place]) :] for row, place in zip(rows, places, strict=True)])
    given = {"input_ids": torch.cat([ids[index], rest], 1), "attention_mask": torch.cat([mask[index], own_mask], 1)}
    with session.branched(cache, index, keep=True) as branches:
        output = model.generate(**_on(model, given), cache=branches, **options)
    return output[:, given["input_ids"].shape[1] :]


def _on(model: Any, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    device = input_device(model)
    return {name: value.to(device) for name, value in inputs.items()}
