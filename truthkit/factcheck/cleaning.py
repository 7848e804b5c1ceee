"""Explanation cleaning: parts of an explanation whose states run against a vector are noise, and are dropped.

REFLEX (2511.20233) looks at a_{l,t} = cos(h_{l,t}, s_l) for each token t of the explanation at layer l, takes densely
negative stretches for noise, and finds them in the text with Ratcliff–Obershelp matching. What is dense, the unit that
is dropped and how much of it must match are not said, so they are parameters, and ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from typing import Any

import torch

from truthkit.activations.capture import Capture
from truthkit.errors import ArgumentError
from truthkit.hf.room import check_room
from truthkit.hf.sites import input_device
from truthkit.hf.wrapping import plain_model
from truthkit.steering.vector import SteeringVector
from truthkit.text.encode import encode_dialogue
from truthkit.text.tokens import ChatOrText, text_tokenizer


@dataclass(frozen=True)
class Token:
    """A token of an explanation.

    Attributes:
        text: its characters.
        start, stop: where they stand in the explanation.
        alignment: cosine between its state and the vector.
        noise: whether it lies in a densely negative stretch.
        dropped: whether it went with a sentence that was dropped.
    """

    text: str
    start: int
    stop: int
    alignment: float
    noise: bool = False
    dropped: bool = False

    def as_dict(self) -> dict[str, Any]:
        """JSON values only."""
        return asdict(self)


@dataclass(frozen=True)
class Dropped:
    """A sentence that was dropped.

    Attributes:
        text: the sentence.
        start, stop: where it stands in the explanation.
        match: which share of its words the noisy stretches have.
    """

    text: str
    start: int
    stop: int
    match: float


@dataclass(frozen=True)
class Cleaned:
    """An explanation before and after.

    Attributes:
        text: what is left; empty where nothing is.
        original: what was given.
        tokens: the evidence, token by token.
        dropped: the sentences that were dropped.
    """

    text: str
    original: str
    tokens: tuple[Token, ...] = ()
    dropped: tuple[Dropped, ...] = ()


@dataclass(frozen=True)
class Cleaning:
    """When a stretch of tokens is noise, and when a sentence goes with it. All of these values are ours.

    Attributes:
        threshold: a token is negative below this cosine.
        window: how many tokens are looked at together.
        density: a window is densely negative if at least this share of it is negative.
        shortest: stretches of fewer tokens are left alone.
        overlap: a sentence is dropped if stretches have at least this share of its words.
        unit: what is dropped: "sentence", or "clause" (up to a comma, semicolon, colon or dash).
        keep_one: if every sentence would go, the one with the highest mean alignment stays.
    """

    threshold: float = 0.0
    window: int = 5
    density: float = 0.8
    shortest: int = 4
    overlap: float = 0.5
    unit: str = "sentence"
    keep_one: bool = True

    def __post_init__(self) -> None:
        if self.window < 1 or self.shortest < 1 or not (0 < self.density <= 1 and 0 < self.overlap <= 1):
            raise ArgumentError(
                f"window={self.window}, shortest={self.shortest}, density={self.density}, overlap={self.overlap}; "
                "expected at least 1, at least 1, and shares in (0, 1]."
            )
        if self.unit not in _UNITS:
            raise ArgumentError(f"unit is {self.unit!r}; expected one of {', '.join(map(repr, _UNITS))}.")


_UNITS = {
    "sentence": re.compile(r"\S.*?(?:[.!?]+[\"'”’)\]]*(?=\s)|\n|$)", re.DOTALL),
    "clause": re.compile(r"\S.*?(?:[.!?,;:]+[\"'”’)\]]*(?=\s)|\s[–—-](?=\s)|\n|$)", re.DOTALL),
}
_WORD = re.compile(r"\w+(?:['’]\w+)*")


def aligned_tokens(
    model: Any,
    processor: Any,
    prompt: ChatOrText,
    before: str,
    explanation: str,
    vector: SteeringVector,
    *,
    layer: int | None = None,
) -> list[Token]:
    """The tokens of an explanation with their cosines to the vector, as the model reads prompt and answer.

    Nothing is steered here: with the vector added, every cosine would be the higher for it (our choice).

    Args:
        model: the model, adapters as they are.
        processor: its tokenizer or processor.
        prompt: what was asked.
        before: what the answer says before the explanation, the verdict for one.
        explanation: the explanation.
        vector: the vector.
        layer: one of its layers; None is its only one.

    Raises:
        ArgumentError: an empty explanation, a vector of several layers and no layer, or a text that is too long.
    """
    if not explanation.strip():
        raise ArgumentError("the explanation is empty; there is nothing to clean.")
    if layer is None and len(vector) > 1:
        raise ArgumentError(f"{vector!r} has several layers; name the one to clean by, layer=.")
    vector.check_model(model, allow_other_model=True)
    at = vector.layers[0] if layer is None else layer
    tokenizer, plain = text_tokenizer(processor, "cleaning"), plain_model(model)
    head = len(encode_dialogue(tokenizer, prompt))
    ids = encode_dialogue(tokenizer, prompt, before + explanation)
    check_room(plain, len(ids), "the prompt with its answer", "shorten it")
    with Capture(model, [at], site=vector.site) as capture, torch.no_grad():
        plain.get_decoder()(input_ids=torch.tensor([ids], device=input_device(plain)), use_cache=False)
    states = capture[at].double().cpu()
    cosines = torch.nn.functional.cosine_similarity(states, vector[at].double()[None], dim=1)
    ends = _ends(tokenizer, ids[head:], before + explanation)
    tokens = []
    for number, stop in enumerate(ends):
        start = max((ends[number - 1] if number else 0) - len(before), 0)
        stop = min(stop - len(before), len(explanation))
        if stop > start:
            tokens.append(Token(explanation[start:stop], start, stop, float(cosines[head + number])))
    return tokens


def _ends(tokenizer: Any, ids: list[int], text: str) -> list[int]:
    """Where in `text` each token ends; what a template puts around it doesn't count."""
    decoded = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    lead = max(decoded.find(text), 0)
    return [
        max(len(tokenizer.decode(ids[: i + 1], skip_special_tokens=True, clean_up_tokenization_spaces=False)) - lead, 0)
        for i in range(len(ids))
    ]


def noisy_stretches(alignments: Sequence[float], how: Cleaning | None = None) -> list[tuple[int, int]]:
    """Ranges of tokens that are densely negative: unions of dense windows, cut back to begin and end negative."""
    how = how or Cleaning()
    negative = [value < how.threshold for value in alignments]
    window = min(how.window, len(negative))
    dense = [False] * len(negative)
    for start in range(len(negative) - window + 1) if window else ():
        if sum(negative[start : start + window]) >= how.density * window - 1e-9:
            dense[start : start + window] = [True] * window
    stretches = []
    start = 0
    while start < len(dense):
        stop = start
        while stop < len(dense) and dense[stop]:
            stop += 1
        first = next((i for i in range(start, stop) if negative[i]), stop)
        last = next((i for i in range(stop, first, -1) if negative[i - 1]), first)
        if last - first >= how.shortest:
            stretches.append((first, last))
        start = stop + 1
    return stretches


def cleaned(explanation: str, tokens: Sequence[Token], how: Cleaning | None = None) -> Cleaned:
    """The explanation without the sentences that its noisy stretches match.

    Words of a sentence are matched with those of a stretch by Ratcliff–Obershelp (`difflib.SequenceMatcher`).

    Raises:
        ArgumentError: the explanation is empty.
    """
    how = how or Cleaning()
    if not explanation.strip():
        raise ArgumentError("the explanation is empty; there is nothing to clean.")
    stretches = noisy_stretches([token.alignment for token in tokens], how)
    noise = [_words(explanation[tokens[a].start : tokens[b - 1].stop]) for a, b in stretches]
    units = [(m.start(), m.start() + len(m[0].rstrip())) for m in _UNITS[how.unit].finditer(explanation)]
    matches = [_share_matched(_words(explanation[start:stop]), noise) for start, stop in units]
    going = [i for i, match in enumerate(matches) if match >= how.overlap]
    if how.keep_one and len(going) == len(units) and units:
        going.remove(max(going, key=lambda i: _mean_alignment(tokens, *units[i])))
    gone = [Dropped(explanation[a:b], a, b, matches[i]) for i in going for a, b in [units[i]]]
    kept = [explanation[a:b] for i, (a, b) in enumerate(units) if i not in going]
    noisy = {i for a, b in stretches for i in range(a, b)}
    evidence = tuple(
        Token(
            token.text,
            token.start,
            token.stop,
            token.alignment,
            noise=i in noisy,
            dropped=any(_inside(token, one.start, one.stop) for one in gone),
        )
        for i, token in enumerate(tokens)
    )
    return Cleaned(explanation if not gone else " ".join(kept), explanation, evidence, tuple(gone))


def clean(
    model: Any,
    processor: Any,
    prompt: ChatOrText,
    before: str,
    explanation: str,
    vector: SteeringVector,
    *,
    layer: int | None = None,
    how: Cleaning | None = None,
) -> Cleaned:
    """`cleaned` by the cosines that `aligned_tokens` reads; the arguments are theirs."""
    tokens = aligned_tokens(model, processor, prompt, before, explanation, vector, layer=layer)
    return cleaned(explanation, tokens, how)


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _share_matched(words: list[str], noise: list[list[str]]) -> float:
    """Which share of `words` the best matching stretch has."""
    if not words:
        return 0.0
    found = (SequenceMatcher(None, words, stretch, autojunk=False).get_matching_blocks() for stretch in noise)
    return max((sum(block.size for block in blocks) for blocks in found), default=0) / len(words)


def _inside(token: Token, start: int, stop: int) -> bool:
    return token.start < stop and token.stop > start


def _mean_alignment(tokens: Sequence[Token], start: int, stop: int) -> float:
    values = [token.alignment for token in tokens if _inside(token, start, stop)]
    return sum(values) / len(values) if values else 0.0
