"""A steering vector for every layer, in one pass over the pairs.

Texts are tokenised once, sorted by length and batched by a token budget. The forward has no output head and ends at the
deepest layer needed; its hooks keep one state per text. What a method needs of them is streamed into float64 moments,
or into a file where a method wants the states themselves, so memory does not grow with the number of pairs.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from truthkit.activations.moments import Moments
from truthkit.activations.positions import Positions, check_positions, describe_positions
from truthkit.activations.spool import Spool
from truthkit.errors import ArgumentError
from truthkit.files.lock import only_writer
from truthkit.files.tensors import plan_sha256
from truthkit.files.versions import versions
from truthkit.hf.room import context_length
from truthkit.hf.sites import decoder_blocks, resolve_layers, site_width
from truthkit.hf.spread import shards as shards_of
from truthkit.hf.wrapping import plain_model
from truthkit.models.identities import identity
from truthkit.progress import progress_bar
from truthkit.steering.extraction.copies import near_copies
from truthkit.steering.extraction.encoding import encode_pairs
from truthkit.steering.extraction.held_out import held_out_scores, split_groups
from truthkit.steering.extraction.methods import LayerData, Method, find_method
from truthkit.steering.extraction.pairs import all_pairs
from truthkit.steering.extraction.progress import Progress
from truthkit.steering.extraction.reading import Other, Reading
from truthkit.steering.fit import model_id
from truthkit.steering.vector import Layers, SteeringVector
from truthkit.text.template import template_of

MOST_HELD_OUT = 256
"""No more pairs than this are held out: the interval is narrow by then, and memory stays the same [our choice]."""


def extract(
    model: Any,
    processor: Any,
    pairs: str | PathLike[str] | Iterable[Any],
    *,
    layers: Layers = None,
    positions: Positions = "last",
    method: str = "mean",
    site: str = "block",
    held_out: float = 0.2,
    token_budget: int = 2048,
    seed: int = 0,
    against: Other = None,
    checkpoint: str | PathLike[str] | None = None,
    progress: bool = False,
    **options: Any,
) -> SteeringVector:
    """A steering vector from contrast pairs.

    The vector is fitted on all pairs. Its held-out scores are those of the same method fitted without the held-out
    pairs: per layer an AUC with interval and permutation null, in `vector.scores`.

    Args:
        model: a text or image-text model; PEFT wrappers are looked through.
        processor: its tokenizer or processor.
        pairs: (positive, negative) tuples, dicts or `Pair`s, or the path of a JSON Lines file (see `read_pairs`; bad
            lines of a file are skipped with a warning). A text may be a string or chat messages.
        layers: layer numbers; None and "all" are all, in the same one pass.
        positions: which tokens are read; the mean over them stands for the text. With prompt and answers, "answer" is
            the answer and "last" the last token of all. See `truthkit.activations.positions`.
        method: "mean", "pca", "mean_pca", "logistic", "lda" or "contrastive_pca"; see
            `truthkit.steering.extraction.methods` for their `options`.
        site: "block", "heads" or "mlp".
        held_out: the share of pairs to score on, in whole groups, up to `MOST_HELD_OUT` pairs; 0 scores nothing.
        token_budget: how many tokens, padding included, run in one forward.
        seed: of the split and of the resampling.
        against: read the negative sides from another model: a model with the same tokenizer, "base" for this one with
            its adapters off, or the name of one of its adapters. With the same text on both sides this gives what the
            models differ in. None reads both from `model`.
        checkpoint: a folder for intermediate results; an extraction that was killed goes on from there, to the same
            vector.
        progress: show how far it is.
        **options: of the method.

    Raises:
        ArgumentError, NotAvailableError, ModelError: something given cannot work; the message says what.
    """
    plain = plain_model(model)
    fitting = find_method(method, options)
    blocks = len(decoder_blocks(plain))
    some = [layers] if isinstance(layers, int) else range(blocks) if layers is None or layers == "all" else layers
    wanted = tuple(sorted(set(resolve_layers(some, blocks))))
    check_positions(positions, processor)
    if not 0 <= held_out < 1 or token_budget < 1:
        raise ArgumentError(
            f"held_out is {held_out!r} and token_budget {token_budget!r}; expected [0, 1) and at least 1."
        )
    given = all_pairs(pairs)
    encoded = encode_pairs(given, processor, context_length(plain))
    share = min(held_out, MOST_HELD_OUT / len(encoded.groups))
    fit_on, held = (
        split_groups(encoded.groups, share, seed=seed) if held_out else (list(range(len(encoded.groups))), [])
    )
    if near := near_copies(given, fit_on, held):
        warnings.warn(
            f"{near} of {len(held)} held-out pairs are near-copies of pairs that the vector is fitted on, so their "
            "scores flatter it; give pairs that are versions of each other the same group.",
            stacklevel=2,
        )
    plan = {
        "model": {
            **identity(model, processor),
            "id": model_id(plain),
            "type": plain.config.get_text_config(decoder=True).model_type,
            "dtype": str(plain.dtype).removeprefix("torch."),
        },
        "layers": list(wanted),
        "positions": describe_positions(positions),
        "method": method,
        "options": options,
        "against": against
        if isinstance(against, str)
        else model_id(plain_model(against))
        if against is not None
        else None,
        "pairs": {"count": len(encoded.groups), "held_out": len(held), "groups": max(encoded.groups) + 1},
        "seed": seed,
        "hashes": {"pairs": encoded.digest(), "template": _template_digest(processor)},
    }
    reading = Reading(model, plain, processor, encoded, wanted, positions, site, against)
    states = _States(fitting, len(wanted), site_width(plain, site), fit_on, held, plain.dtype)
    with ExitStack() as stack:
        _run(reading, states, stack, plan, checkpoint, token_budget, progress)
        vectors, scores = states.fit(fitting, options, encoded.groups, seed)
    provenance = plan | {
        "norms": {layer: round(float(v.norm()), 6) for layer, v in zip(wanted, vectors, strict=True)},
        "scores": {layer: score.as_dict() for layer, score in zip(wanted, scores, strict=True)} if scores else {},
        "versions": versions("torch", "transformers"),
    }
    directions = dict(zip(wanted, vectors, strict=True))
    return SteeringVector(directions, blocks, site, json.loads(json.dumps(provenance)))


def _template_digest(processor: Any) -> str | None:
    template = template_of(processor)
    return plan_sha256(template) if template else None


class _States:
    """What is kept of the states: moments of the pairs to fit on, and on disk what must be looked at again."""

    def __init__(
        self, method: Method, layers: int, features: int, fit_on: list[int], held: list[int], dtype: torch.dtype
    ):
        self.method, self.layers, self.features, self.dtype = method, layers, features, dtype
        self.fit_on, self.held = fit_on, held
        self.on_disk = [*held, *(fit_on if method.rows else [])]
        self._place = {pair: 2 * i for i, pair in enumerate(self.on_disk)}
        self._held = set(held)
        self.moments = self._empty()
        self.spool: Spool

    def _empty(self) -> dict[str, Moments]:
        scatter = self.method.covariance
        moments = {name: Moments(self.layers, self.features, scatter=scatter) for name in ("positive", "negative")}
        if self.method.differences:
            moments["difference"] = Moments(self.layers, self.features, scatter=True)
        return moments

    def open(self, folder: Path, done: int) -> int:
        """Open the file of states of `done` batches; how many of them are really there.

        None are where the file is gone: a run that had ended was killed as it cleared away.
        """
        path, rows = folder / "states.bin", 2 * len(self.on_disk)
        wide = torch.float64 if self.dtype == torch.float64 else torch.float32
        whole = self.layers * rows * self.features * wide.itemsize
        if done and not (path.exists() and path.stat().st_size == whole):
            done, self.moments = 0, self._empty()
        if not done:
            path.unlink(missing_ok=True)
        self.spool = Spool(path, self.layers, rows, self.features, wide)
        return done

    def take(self, texts: list[int], values: torch.Tensor) -> None:
        """Take in the states (layers, texts, features) of some texts."""
        values = values.cpu()
        fitted = [i for i, text in enumerate(texts) if text // 2 not in self._held]
        self._update(self.moments, values, *([i for i in fitted if texts[i] % 2 == odd] for odd in (0, 1)))
        kept = [i for i, text in enumerate(texts) if text // 2 in self._place]
        if kept:
            places = [self._place[texts[i] // 2] + texts[i] % 2 for i in kept]
            self.spool.write(places, values[:, kept])

    def _update(
        self, moments: dict[str, Moments], values: torch.Tensor, positive: Sequence[int], negative: Sequence[int]
    ) -> None:
        """Take in `values` (layers, texts, features), of which some are positive and some negative."""
        moments["positive"].update(values[:, positive])
        moments["negative"].update(values[:, negative])
        if self.method.differences:
            moments["difference"].update(values[:, positive], minus=values[:, negative])

    def fit(
        self, method: Method, options: dict[str, Any], groups: list[int], seed: int
    ) -> tuple[list[torch.Tensor], list[Any]]:
        """The vectors of all layers from all pairs, and the scores of those from the pairs to fit on."""
        vectors, projections = [], []
        held = 2 * len(self.held)
        for layer in range(self.layers):
            rows = (
                self.spool.read(layer).double() if self.on_disk else torch.zeros(0, self.features, dtype=torch.float64)
            )
            first = {name: moments.layer(layer) for name, moments in self.moments.items()}
            data = LayerData(**first, rows=rows[held:] if method.rows else None)
            vector = method.fit(data, **options)
            if self.held:
                projections.append((rows[:held] @ vector).view(-1, 2))
                everything = {name: _copied(moments) for name, moments in first.items()}
                self._update(everything, rows[None], range(0, held, 2), range(1, held, 2))
                data = LayerData(**everything, rows=rows if method.rows else None)
                vector = method.fit(data, **options)
            vectors.append(vector)
        if not self.held:
            return vectors, []
        return vectors, held_out_scores(torch.stack(projections), [groups[pair] for pair in self.held], seed=seed)


def _copied(moments: Moments) -> Moments:
    copy = Moments(*moments.mean.shape, scatter=moments.scatter is not None)
    copy.merge(moments)
    return copy


def _run(
    reading: Reading,
    states: _States,
    stack: ExitStack,
    plan: dict[str, Any],
    checkpoint: str | PathLike[str] | None,
    token_budget: int,
    progress: bool,
) -> None:
    """One pass over all texts, from where an earlier run of the same plan stopped."""
    shards, length = shards_of(reading.plain), reading.encoded.ids.length
    every = reading.batches(range(len(reading.encoded.ids)), token_budget, whole_pairs=states.method.differences)
    mine = every[shards.index :: shards.count]
    kept = checkpoint is not None and shards.speaks
    if checkpoint is None or not kept:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="truthkit-")))
    else:
        folder = Path(checkpoint) / (f"shard-{shards.index}" if shards.count > 1 else "")
        stack.enter_context(only_writer(folder))
    record = Progress(folder, {**plan, "token_budget": token_budget, "shards": shards.count}, kept=kept)
    done = shards.agreed(states.open(folder, record.resume(states.moments)))
    stack.callback(states.spool.close)
    total = sum(length(text) for batch in mine for text in batch)
    before = sum(length(text) for batch in mine[:done] for text in batch)
    shown = progress and shards.index == 0 and shards.speaks
    with progress_bar(total, "extraction", "tokens", initial=before, shown=shown) as bar:
        for number, batch in enumerate(mine[done:], start=done + 1):
            values = reading.read(batch)
            if shards.speaks:
                states.take(batch, values)
            bar.update(sum(length(text) for text in batch))
            record.note(number, states.moments, states.spool, last=number == len(mine))
    if shards.processes > 1:
        states.moments = {name: moments.merged(shards) for name, moments in states.moments.items()}
        states.spool = stack.enter_context(states.spool.summed(shards))
