"""Verdicts: how probable a model finds each label word after a prompt, and what a generated answer says.

A prompt's keys and values are computed once and serve the continuations of all labels; what all prompts begin with (the
role, the list of labels) is computed once for all of them. Nothing is parsed: a verdict is the most probable label.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from truthkit.activations.hooks import hook_states
from truthkit.activations.positions import Positions
from truthkit.errors import ArgumentError
from truthkit.factcheck.dialogue import VERDICT
from truthkit.factcheck.guide import Guide, guided
from truthkit.hf.sites import decoder_blocks
from truthkit.hf.wrapping import plain_model
from truthkit.likelihood.continuation import Reader, Rows
from truthkit.steering.edits import edited
from truthkit.steering.vector import SteeringVector
from truthkit.text.tokens import Prompt, batches, encode_dialogue, text_tokenizer

LEAD = VERDICT
"""What an answer begins with; the label follows after a space."""


@dataclass(frozen=True)
class Verdict:
    """The most probable label, and the probability of each among the labels."""

    label: str
    probabilities: dict[str, float]

    @property
    def probability(self) -> float:
        """That of `label`."""
        return self.probabilities[self.label]


class VerdictScorer:
    """Scores label words by likelihood after `lead`, with whatever is on: adapters, guides, a `with` block around it.

    Args:
        model: a text or image-text model; PEFT wrappers are looked through, and their active adapters are on.
        processor: its tokenizer or processor.
        labels: the label words; or a mapping from label to the words that stand for it.
        lead: what the answer begins with. Forcing it costs no parsing; it is ours.
        token_budget: how many tokens, padding included, run in one forward.

    Raises:
        ArgumentError: fewer than two labels, an empty lead, or a label whose tokens begin another label's.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        labels: Sequence[str] | Mapping[str, str],
        *,
        lead: str = LEAD,
        token_budget: int = 2048,
    ):
        self.model, self.processor = model, processor
        self.words = dict(labels) if isinstance(labels, Mapping) else {label: label for label in labels}
        self.labels, self.lead = tuple(self.words), lead
        self.tokenizer = text_tokenizer(processor, "scoring verdicts")
        if len(self.words) < 2 or not all(word.strip() for word in self.words.values()):
            raise ArgumentError(f"labels is {labels!r}; expected two or more different label words.")
        if not lead.strip() or token_budget < 1:
            raise ArgumentError(f"lead is {lead!r} and token_budget {token_budget}; expected a text and at least 1.")
        self.token_budget = token_budget
        self._plain = plain_model(model)
        self._reader = Reader(self._plain)

    # -- what callers ask ----------------------------------------------------------------------------------------------

    def verdicts(
        self, prompts: Sequence[Prompt], *, guides: Sequence[Guide] = (), bias: Sequence[float] | None = None
    ) -> list[Verdict]:
        """The verdict on every prompt; `bias` is added to the labels' scores, as `label_bias` finds it."""
        return as_verdicts(self.scores(prompts, guides=guides), self.labels, bias)

    def scores(self, prompts: Sequence[Prompt], *, guides: Sequence[Guide] = ()) -> torch.Tensor:
        """Log-probability of each label's tokens after prompt and lead; (prompts, labels), float64, on the CPU.

        Sums over tokens, not normalised over labels: that is `torch.softmax(scores, -1)`.

        Raises:
            ArgumentError: no prompts, or one that leaves no room for the label in the model's context.
        """
        return self.scores_under(prompts, [guides])[0]

    def scores_under(self, prompts: Sequence[Prompt], guidings: Sequence[Sequence[Guide]]) -> torch.Tensor:
        """`scores` under each of several sets of guides, () for none; (sets, prompts, labels).

        The prompts are read once for all sets that steer the answer only.
        """
        texts, lead, labels = self._encode(prompts)
        result = torch.zeros(len(guidings), len(texts), len(labels), dtype=torch.float64)
        answer_only = [_answer_only(guides) for guides in guidings]
        shared = self._reader.beginning(texts) if any(answer_only) else None
        for batch in batches([len(text) for text in texts], self.token_budget):
            rows = [texts[i] for i in batch]
            ready = self._reader.read_whole(rows, shared) if any(answer_only) else None
            for number, guides in enumerate(guidings):
                if answer_only[number] and ready is not None:
                    with self._adding([(guide, guide.strength) for guide in guides]):
                        result[number, batch] = self._continued(ready.fork(), lead, labels)
                else:
                    result[number, batch] = self._whole(rows, lead, labels, guides)
        return result

    def sweep(
        self,
        prompts: Sequence[Prompt],
        vector: SteeringVector,
        *,
        layers: Sequence[int],
        strengths: Sequence[float],
        positions: Positions = "generated",
        mode: str = "add",
        guides: Sequence[Guide] = (),
        progress: Callable[[int], Any] | None = None,
    ) -> torch.Tensor:
        """`scores` under every layer and strength of one vector; (layers, strengths, prompts, labels).

        All strengths of a layer run as rows of one batch. Where only the answer is steered, the prompts are read once
        for all layers and strengths.

        Args:
            prompts: as in `scores`.
            vector: the vector.
            layers: the layers to try, one at a time.
            strengths: the strengths to try at each.
            positions: as in `Guide`.
            mode: as in `Guide`.
            guides: steering that stays on; it acts first.
            progress: called with the number of rows scored.
        """
        texts, lead, labels = self._encode(prompts)
        trials = [[Guide(vector.at(layer), s, positions, mode) for s in strengths] for layer in layers]
        result = torch.zeros(len(layers), len(strengths), len(texts), len(labels), dtype=torch.float64)
        answer_only = _answer_only([*guides, *trials[0][:1]])
        shared = self._reader.beginning(texts) if answer_only else None
        budget = max(1, self.token_budget // len(strengths))
        for batch in batches([len(text) for text in texts], budget):
            rows = [text for i in batch for text in [texts[i]] * len(strengths)]
            ready = None
            if answer_only:
                ready = self._reader.read_whole([texts[i] for i in batch], shared).repeated(len(strengths))
            each = torch.tensor(list(strengths) * len(batch), dtype=torch.float64)
            for number, guide in enumerate(one[0] for one in trials):
                if ready is not None:
                    with self._adding([*((g, g.strength) for g in guides), (guide, each)]):
                        found = self._continued(ready.fork(), lead, labels)
                else:
                    found = self._whole(rows, lead, labels, guides, (guide, each))
                result[number][:, batch] = found.view(len(batch), len(strengths), -1).transpose(0, 1)
                if progress is not None:
                    progress(len(rows))
        return result

    # -- text ----------------------------------------------------------------------------------------------------------

    def encode(self, prompt: Prompt) -> list[int]:
        """The prompt's tokens, the header of the answer included.

        Raises:
            ArgumentError: it is empty, or messages for a tokenizer without chat template.
        """
        return encode_dialogue(self.tokenizer, prompt)

    def _encode(self, prompts: Sequence[Prompt]) -> tuple[list[list[int]], list[int], list[list[int]]]:
        """Tokens of the prompts, of the lead, and of each label after it."""
        if not prompts:
            raise ArgumentError("prompts is empty; give at least one.")
        texts = [self.encode(prompt) for prompt in prompts]
        lead, labels = self._answers(prompts[0])
        room = getattr(self._plain.config.get_text_config(decoder=True), "max_position_embeddings", None)
        needed = len(lead) + max(map(len, labels))
        for number, text in enumerate(texts):
            if room is not None and len(text) + needed > room:
                raise ArgumentError(
                    f"prompts[{number}] has {len(text)} tokens and its verdict {needed}, but the model has room for "
                    f"{room}; shorten the claim or its evidence."
                )
        return texts, lead, labels

    def _answers(self, prompt: Prompt) -> tuple[list[int], list[list[int]]]:
        before = self.encode(prompt)
        said = [self.lead, *(f"{self.lead} {word}" for word in self.words.values())]
        whole = [encode_dialogue(self.tokenizer, prompt, answer) for answer in said]
        if any(tokens[: len(before)] != before for tokens in whole):
            raise ArgumentError(
                "the answer's first token reaches back into the prompt; end the prompt with a line break."
            )
        lead, *answers = (tokens[len(before) :] for tokens in whole)
        same = 0
        while same < len(lead) and all(answer[: same + 1] == lead[: same + 1] for answer in answers):
            same += 1
        lead, labels = lead[:same], [answer[same:] for answer in answers]
        for one, tokens in zip(self.labels, labels, strict=True):
            for other, longer in zip(self.labels, labels, strict=True):
                if one != other and longer[: len(tokens)] == tokens:
                    raise ArgumentError(
                        f"label {one!r} begins label {other!r} (tokens {tokens} and {longer}), so it could never be "
                        "less probable; give other words for it, labels={label: words}."
                    )
        if not lead:
            raise ArgumentError(f"lead {self.lead!r} has no token of its own before the labels; end it with a colon.")
        return lead, labels

    # -- forward -------------------------------------------------------------------------------------------------------

    def _whole(
        self,
        rows: list[list[int]],
        lead: list[int],
        labels: list[list[int]],
        guides: Sequence[Guide],
        swept: tuple[Guide, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Rows whose prompts are steered too: each text is read in one forward, in which steering knows its place."""
        with ExitStack() as stack:
            steerings = stack.enter_context(guided(self.model, guides, self.processor))
            if swept is not None:
                guide, strengths = swept
                trial = guide.vector.steer(
                    self.model,
                    strength=strengths,
                    positions=guide.positions,
                    mode=guide.mode,
                    processor=self.processor,
                    allow_other_model=True,
                )
                steerings = [*steerings, stack.enter_context(trial)]
            for steering in steerings:
                steering.prompt_lengths = [len(row) for row in rows]
            ready, logits = self._reader.read([row + lead for row in rows])
            return self._labelled(ready, logits, labels)

    def _continued(self, ready: Rows, lead: list[int], labels: list[list[int]]) -> torch.Tensor:
        """Scores after a text that has been read; `ready` is used up."""
        return self._labelled(*self._reader.read([lead] * len(ready.mask), ready), labels)

    def _labelled(self, ready: Rows, logits: torch.Tensor, labels: list[list[int]]) -> torch.Tensor:
        """(rows, labels), from the logits after the lead, (rows, vocabulary)."""
        first = logits.float().log_softmax(dim=-1)
        scores = first[:, [tokens[0] for tokens in labels]].double().cpu()
        for number, tokens in enumerate(labels):
            if len(tokens) > 1:
                rows = [tokens[:-1]] * len(logits)
                _, rest = self._reader.read(rows, ready.fork(), every_token=True)
                wanted = torch.tensor(tokens[1:], device=rest.device).expand(len(rest), -1)[..., None]
                picked = rest.float().log_softmax(dim=-1).gather(2, wanted)
                scores[:, number] += picked[..., 0].sum(dim=1).double().cpu()
        return scores

    def _adding(self, guides: Sequence[tuple[Guide, float | torch.Tensor]]) -> ExitStack:
        """Hooks for forwards that hold nothing but tokens of the answer: all of them are changed."""
        blocks = decoder_blocks(self._plain)
        with ExitStack() as stack:
            for guide, strength in guides:
                guide.vector.check_model(self.model, allow_other_model=True)
                for layer in guide.vector:
                    act = _edit(guide.vector[layer], strength, guide.mode)
                    stack.callback(hook_states(blocks[layer], guide.vector.site, act).remove)
            return stack.pop_all()


def _edit(
    vector: torch.Tensor, strength: float | torch.Tensor, mode: str
) -> Callable[[torch.Tensor], torch.Tensor | None]:
    def act(given: torch.Tensor) -> torch.Tensor:
        by = strength
        hidden = given
        if isinstance(strength, torch.Tensor):
            hidden = given if given.dim() == 3 else given.view(len(strength), -1, given.shape[-1])
            by = strength.to(given.device, given.dtype)[:, None, None]
        return edited(hidden, vector.to(given.device, given.dtype), by, mode).view_as(given)

    return act


def _answer_only(guides: Sequence[Guide]) -> bool:
    return all(guide.positions in ("generated", "answer") for guide in guides)


def as_verdicts(
    scores: torch.Tensor, labels: Sequence[str], bias: Sequence[float] | torch.Tensor | None = None
) -> list[Verdict]:
    """Verdicts from log-probabilities (prompts, labels); of equal ones the first label wins."""
    if bias is not None:
        scores = scores + torch.as_tensor(bias, dtype=scores.dtype)
    found = []
    for row in scores.softmax(dim=-1).tolist():
        best = max(range(len(labels)), key=row.__getitem__)
        found.append(Verdict(labels[best], dict(zip(labels, row, strict=True))))
    return found


def label_bias(scores: torch.Tensor, prior: Sequence[float] | None = None) -> torch.Tensor:
    """What to add to the labels' scores so that their mean probability over `scores` is `prior`; sums to 0.

    The idea is batch calibration (Zhou et al., *Batch Calibration*, 2309.17249); that the prior is met exactly, by
    iterated rescaling, is ours. It needs no gold labels but the prior (None: equal shares), and it is the control to
    hold against steering: a vector may do no more than shift all verdicts towards one label.
    """
    count = scores.shape[1]
    wanted = torch.full((count,), 1 / count) if prior is None else torch.as_tensor(list(prior))
    if wanted.shape != (count,) or not bool((wanted > 0).all()):
        raise ArgumentError(f"prior is {prior!r}; expected a positive share for each of the {count} labels.")
    wanted = wanted.to(scores.dtype) / wanted.sum()
    bias = torch.zeros(count, dtype=scores.dtype)
    for _ in range(1000):
        step = wanted.log() - (scores + bias).softmax(dim=-1).mean(dim=0).clamp_min(1e-300).log()
        bias = bias + step
        if float(step.abs().max()) < 1e-10:
            break
    return bias - bias.mean()


_STRICT = r"\s*(?:{lead}\s*)?[\"'*]*(?P<label>{labels})(?![\w-])"


def parse_verdict(text: str, labels: Sequence[str], *, lead: str = LEAD) -> str | None:
    """The label that an answer begins with, with or without `lead`; None where it begins with anything else.

    Strict on purpose: a label that is merely mentioned further on is no verdict ("not true" is none). Upper and lower
    case are the same, and so are a hyphen and a space inside a label.
    """
    longest_first = sorted(labels, key=len, reverse=True)
    words = "|".join(re.sub(r"[-\s]+", r"[-\\s]", re.escape(label).replace("\\-", "-")) for label in longest_first)
    pattern = _STRICT.format(lead=re.escape(lead.strip()), labels=words)
    if (match := re.match(pattern, text, re.IGNORECASE)) is None:
        return None
    said = re.sub(r"\s", "-", match["label"].lower())
    return next(label for label in longest_first if re.sub(r"\s", "-", label.lower()) == said)
