"""Log-probabilities of texts that follow prompts with images: a prompt is read once, image and all, for all its texts.

A first forward reads the prompts as `generate` does, so views of the image, and methods that count an answer's tokens,
see the same as when an answer is written. Every text goes on from there in a row of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch

from truthkit.activations.hooks import Hooked
from truthkit.decoding.engine.loop import Method
from truthkit.decoding.engine.session import Session
from truthkit.errors import ModelError
from truthkit.hf.growing_cache import GrowingCache
from truthkit.hf.room import check_room
from truthkit.hf.sites import input_device
from truthkit.hf.wrapping import plain_model
from truthkit.likelihood.parts import acts_by_part, reading
from truthkit.text.tokens import padded

Texts = Sequence[Sequence[Sequence[int]]]
"""For each prompt the token ids of what may follow it, none empty."""


def takes_many(decoder: Method, steerings: Sequence[Hooked] = ()) -> bool:
    """Whether several prompts, and several texts behind each, can be read at a time.

    Else a call has one prompt, copied for each of its texts where the model's caches cannot branch (windows, recurrent
    states, prompts that see all of themselves, edited attention). Steering that looks at more of a token than whether
    it is prompt or answer wants one prompt too.
    """
    return takes_branches(decoder) and all(map(acts_by_part, steerings))


def takes_branches(decoder: Method) -> bool:
    """Whether several texts can go on from one row, in the models of all views."""
    return all(group.takes_branches for group in decoder.groups)


def scores_behind_images(
    session: Session,
    prompts: dict[str, torch.Tensor],
    texts: Texts,
    *,
    at_a_time: int,
    steerings: Sequence[Hooked] = (),
) -> tuple[list[list[float]], list[list[float]]]:
    """Of every text the log-probability of its tokens, natural logarithm; and the sum of the method's own scores.

    The scores are those of the decoder; inside `session.of_log_probabilities()` they are comparable between texts.

    Args:
        session: of a decoder attached to the model.
        prompts: model inputs, padded on the left, with pixels; where the decoder's models do not take branches, those
            of one prompt, as often as there are texts, each with one.
        texts: behind each prompt.
        at_a_time: how many texts are read in a forward.
        steerings: those at work on the model.

    Raises:
        ModelError: the model hands its images' features to another one, which has no prompt to go on from.
        ArgumentError: a prompt with a text has more tokens than there is room for.
    """
    model = session.decoder.model
    if session.decoder.front is not model:
        raise ModelError(
            f"{type(session.decoder.front).__name__} hands what it sees to a language model of its own, so texts "
            "behind its images cannot be scored; use a model that puts its images among the tokens, or ask for answers."
        )
    branches = takes_branches(session.decoder)
    longest = int(prompts["attention_mask"].sum(dim=1).max()) + max(len(text) for own in texts for text in own)
    check_room(model, longest, "a prompt with its text", "shorten it")
    parted = [steering for steering in steerings if acts_by_part(steering)]
    cache = GrowingCache(config=model.config.get_text_config(decoder=True))
    mask = prompts["attention_mask"]
    given = {name: value for name, value in prompts.items() if name != "labels"}
    if branches and not hasattr(plain_model(model).base_model, "get_rope_index"):  # it knows image tokens' places
        given["position_ids"] = (mask.cumsum(dim=1) - 1).clamp_min(0)
    with reading(parted, "prompt"):
        first = _logits(model, given, cache, 1)[:, 0]
    members = [(place, list(text)) for place, own in enumerate(texts) for text in own]
    raw = torch.stack([first[place, text[0]] for place, text in members]).double()
    norms = first.logsumexp(dim=-1).double()
    normal = raw - torch.stack([norms[place] for place, _ in members])
    longer = sorted((n for n in range(len(members)) if len(members[n][1]) > 1), key=lambda n: -len(members[n][1]))
    step = at_a_time if branches else max(len(longer), 1)
    for start in range(0, len(longer), step):
        some = longer[start : start + step] if branches else list(range(len(members)))
        index = torch.tensor([members[n][0] for n in some])
        rows = [members[n][1] for n in some]
        ids, kept = padded([row[:-1] for row in rows], side="right")
        before = mask[index]
        inputs = {"input_ids": ids, "attention_mask": torch.cat([before, torch.ones_like(ids)], dim=1)}
        if branches:  # what is padded stands behind all that counts
            inputs["position_ids"] = before.sum(dim=1, keepdim=True) + torch.arange(ids.shape[1])
        with (
            session.branched(cache, index) if branches else nullcontext(cache) as going_on,
            reading(parted, "answer"),
        ):
            logits = _logits(model, inputs, going_on, ids.shape[1])
        targets = padded([row[1:] for row in rows], side="right")[0].to(logits.device)
        own = logits.gather(-1, targets[..., None])[..., 0]
        real = kept.bool().to(logits.device)
        for sums, values in ((raw, own), (normal, own - logits.logsumexp(dim=-1))):
            sums[some] += values.double().masked_fill(~real, 0.0).sum(dim=1)
    return [_dealt(sums.tolist(), texts) for sums in (normal, raw)]  # type: ignore[return-value]


def _logits(model: Any, inputs: dict[str, torch.Tensor], cache: Any, keep: int) -> torch.Tensor:
    """The last `keep` positions' logits, (rows, keep, vocabulary), in float32 at least."""
    accepted = inspect.signature(plain_model(model).forward).parameters
    device = input_device(model)
    call: dict[str, Any] = {name: value.to(device) for name, value in inputs.items() if name in accepted}
    call |= {"logits_to_keep": keep} if "logits_to_keep" in accepted else {}
    with torch.no_grad():
        logits = model(**call, cache=cache).logits[:, -keep:]
    return logits if logits.dtype == torch.float64 else logits.float()


def _dealt(values: list[float], texts: Texts) -> list[list[float]]:
    rest = iter(values)
    return [[next(rest) for _ in own] for own in texts]
