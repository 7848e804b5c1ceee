"""What one answer is to be: a prompt, and how to go on from it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from truthkit.decoding.spec import DecoderSpec
from truthkit.serving.aside import Aside

BEAMS = "opera"
"""The decoder whose answers are known at their end alone, and depend on how long they may be."""

_SHORT = 255
"""Prompts of up to so many tokens share a batch; longer ones do with those up to twice as long, for all are padded."""

SEARCHES = ("contrastive_search", BEAMS)
"""Decoders that choose tokens themselves: nothing is drawn, and a token has no probability of its own."""


@dataclass(frozen=True)
class Wish:
    """One answer, as a request asks for it.

    Attributes:
        spec: the decoder.
        prompt: the text in full, chat template included; "" where token ids came.
        ids: its tokens.
        templated: whether a chat template wrote it.
        images: their files; one for each placeholder.
        context: the passage in `prompt` that decoders compare with and without; "" without one.
        strengths: of the server's vectors.
        limit: new tokens at most.
        temperature: 0 takes the most probable token.
        top_p, seed: of drawing.
        stops: texts that end the answer, and are no part of it.
        top: how many alternatives to tell of each token beside its log-probability; None tells neither.
        echo: tell the prompt, too.
    """

    spec: DecoderSpec
    prompt: str
    ids: tuple[int, ...]
    templated: bool
    images: Aside
    context: str
    strengths: tuple[float, ...]
    limit: int
    temperature: float
    top_p: float
    seed: int
    stops: tuple[str, ...]
    top: int | None
    echo: bool

    @property
    def scores_prompt(self) -> bool:
        """Whether the log-probabilities of the prompt's tokens are wanted."""
        return self.echo and self.top is not None

    def kind(self, decoder: Hashable, shared: Sequence[Callable[[float], Hashable]], *, same_length: bool) -> Hashable:
        """Equal for those that one `generate` can answer, each as it would be answered alone.

        Args:
            decoder: what rows of a batch must have in common of theirs.
            shared: for each vector what rows of a batch must have in common of their strengths.
            same_length: whether rows of a batch must have prompts of one length.
        """
        return (
            decoder,
            len(self.images),
            self.scores_prompt,
            tuple(common(strength) for common, strength in zip(shared, self.strengths, strict=True)),
            len(self.ids) if same_length else max(len(self.ids), _SHORT).bit_length(),
            self.limit if self.spec.name == BEAMS else None,
        )
