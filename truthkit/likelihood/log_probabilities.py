"""Log-probabilities of given texts under a model and a decoder, with what they begin with read once for all.

Choices share their question, and questions behind one few-shot prompt share that. What a family of rows begins with is
read first, and what follows as trees of tokens, in which every other beginning that is shared is once too
(`truthkit.likelihood.token_tree`). Where attention cannot take a tree, each context is read in a row, and what goes on
from it in further rows (`truthkit.hf.branches`).

Steering that changes prompts otherwise than answers leaves a tree in one piece: the nodes of prompts are read in one
forward, those of answers in another. Several steerings of answers thus share the prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from truthkit.activations.hooks import Hooked
from truthkit.decoding.engine.session import Session
from truthkit.hf.branches import takes_branches
from truthkit.hf.packed_attention import packed_attention
from truthkit.hf.room import check_room
from truthkit.hf.sites import text_decoder
from truthkit.hf.trees import takes_trees
from truthkit.hf.wrapping import plain_model
from truthkit.likelihood.parts import acts_by_part, acts_on_answers, entered
from truthkit.likelihood.reader import Reader


def log_probabilities(
    model: Any,
    rows: Sequence[Sequence[int]],
    starts: Sequence[int],
    session: Session | None = None,
    *,
    token_budget: int = 512,
    share_prefix: bool = True,
    on_rows: Callable[[int], None] = lambda _count: None,
    steerings: Sequence[Hooked] = (),
    prompt_lengths: Sequence[int] | None = None,
) -> list[float]:
    """The log-probability of each row from its start on: the sum over its tokens, natural logarithm.

    Args:
        model: a causal language model; under a decoder its logits are the decoder's.
        rows: token ids.
        starts: for each row the first position that counts, at least 1.
        session: of the decoder that the caller has attached to `model`, or None.
        token_budget: how many tokens, padding and shared ones aside, are read at a time.
        share_prefix: read the rows' common beginning once, and what rows have in common before their starts.
        on_rows: called with the number of rows that were just done.
        steerings: those at work on the model. Those that act at the tokens of a passage, say, need every row whole, so
            nothing is shared under them.
        prompt_lengths: how many of each row's tokens are prompt to them; None is `starts`.

    Raises:
        ArgumentError: a row has more tokens than the model has room for.
    """
    if not rows:
        return []
    lengths = starts if prompt_lengths is None else prompt_lengths
    reader = Reader(model, rows, starts, session, token_budget, on_rows, (), lengths)
    _read(reader, steerings, share_prefix=share_prefix)
    return reader.scores[0]


def log_probabilities_and_scores(
    model: Any,
    rows: Sequence[Sequence[int]],
    starts: Sequence[int],
    session: Session,
    *,
    token_budget: int = 512,
    share_prefix: bool = True,
    steerings: Sequence[Hooked] = (),
) -> tuple[list[float], list[float]]:
    """`log_probabilities` under a decoder, and beside them the sums of its own scores, not normalised at each token.

    The second are what the released code of DoLa and ICD sums (`post_softmax=False`). The formula is taken of
    log-probabilities, also where its paper writes it with logits. Arguments and errors are as there.
    """
    if not rows:
        return [], []
    reader = Reader(model, rows, starts, session, token_budget, lambda _count: None, (), starts)
    reader.raw = [0.0] * len(rows)
    with session.of_log_probabilities():
        _read(reader, steerings, share_prefix=share_prefix)
    return reader.scores[0], reader.raw


def log_probabilities_and_greedy(
    model: Any,
    rows: Sequence[Sequence[int]],
    starts: Sequence[int],
    session: Session | None = None,
    *,
    token_budget: int = 512,
    share_prefix: bool = True,
    on_rows: Callable[[int], None] = lambda _count: None,
    steerings: Sequence[Hooked] = (),
) -> tuple[list[float], list[bool]]:
    """`log_probabilities`, and beside each whether greedy search would write the row from its start on.

    Arguments and errors are as there.
    """
    if not rows:
        return [], []
    reader = Reader(model, rows, starts, session, token_budget, on_rows, (), starts)
    reader.greedy = [True] * len(rows)
    _read(reader, steerings, share_prefix=share_prefix)
    return reader.scores[0], reader.greedy


def _read(reader: Reader, steerings: Sequence[Hooked], *, share_prefix: bool) -> None:
    """All rows, with what can be shared under decoder and steerings shared."""
    model, session = reader.model, reader.session
    check_room(model, max(map(len, reader.rows)), "a text, its prompt included,", "shorten it")
    plain = plain_model(model)
    choosy = [steering for steering in steerings if steering.positions != "all" or steering.of_whole_prompt]
    by_part = session is None and all(map(acts_by_part, choosy)) and takes_branches(plain) and takes_trees(plain)
    parted = choosy if by_part and share_prefix else []
    choosy = [] if parted else choosy
    reader.steerings, reader.parted, reader.by_part = choosy, parted, bool(parted)
    try:
        if session is not None:
            reader.read(share_prefix and not choosy and session.takes_branches, session.takes_trees)
        else:
            with packed_attention(text_decoder(plain)):
                reader.read(share_prefix and not choosy and takes_branches(plain), takes_trees(plain))
    finally:
        for steering in choosy:
            steering.prompt_lengths = None


def log_probabilities_under(
    model: Any,
    rows: Sequence[Sequence[int]],
    starts: Sequence[int],
    sets: Sequence[Sequence[Hooked]],
    *,
    prompt_lengths: Sequence[int],
    token_budget: int = 512,
    on_rows: Callable[[int], None] = lambda _count: None,
) -> list[list[float]]:
    """`log_probabilities` under each of several sets of steerings, () for none; what they leave as it is is read once.

    Args:
        model: as in `log_probabilities`.
        rows: as there.
        starts: as there.
        token_budget: as there.
        sets: steerings that are not on: each set is on while it is asked for.
        prompt_lengths: how many of each row's tokens are prompt to them.
        on_rows: called with the number of rows that were just done under one set.

    Raises:
        ArgumentError: a row has more tokens than the model has room for.
    """
    plain = plain_model(model)
    together = [n for n, some in enumerate(sets) if all(map(acts_on_answers, some))]
    if not rows or len(together) < 2 or not (takes_branches(plain) and takes_trees(plain)):
        together = []
    found: list[list[float]] = [[] for _ in sets]
    if together:
        check_room(model, max(map(len, rows)), "a text, its prompt included,", "shorten it")
        reader = Reader(model, rows, starts, None, token_budget, on_rows, (), prompt_lengths)
        reader.sets, reader.by_part = [sets[n] for n in together], True
        reader.scores = [[0.0] * len(rows) for _ in together]
        with packed_attention(text_decoder(plain)):
            reader.read(True, True)
        for n, scores in zip(together, reader.scores, strict=True):
            found[n] = scores
    for n in sorted({*range(len(sets))} - {*together}):
        with entered(sets[n]) as steerings:
            found[n] = log_probabilities(
                model,
                rows,
                starts,
                token_budget=token_budget,
                on_rows=on_rows,
                steerings=steerings,
                prompt_lengths=prompt_lengths,
            )
    return found
