"""Verdicts: how probable a model finds each label word after a prompt, and what a generated answer says.

What prompts begin with (the role, the list of labels) is read once for all of them, and each prompt once for all labels
and all steerings of the answer (`truthkit.likelihood.log_probabilities`). Nothing is parsed: a verdict is the most
probable label.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from truthkit.activations.positions import Positions
from truthkit.errors import ArgumentError
from truthkit.factcheck.dialogue import VERDICT
from truthkit.factcheck.guide import Guide
from truthkit.hf.room import check_room
from truthkit.hf.wrapping import plain_model
from truthkit.likelihood.log_probabilities import log_probabilities_under
from truthkit.progress import progress_bar
from truthkit.steering.vector import SteeringVector
from truthkit.text.encode import encode_dialogue
from truthkit.text.tokens import ChatOrText, text_tokenizer

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
        token_budget: how many tokens, padding and shared ones aside, run in one forward.

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

    # -- what callers ask ----------------------------------------------------------------------------------------------

    def verdicts(
        self, prompts: Sequence[ChatOrText], *, guides: Sequence[Guide] = (), bias: Sequence[float] | None = None
    ) -> list[Verdict]:
        """The verdict on every prompt; `bias` is added to the labels' scores, as `label_bias` finds it."""
        return as_verdicts(self.scores(prompts, guides=guides), self.labels, bias)

    def scores(self, prompts: Sequence[ChatOrText], *, guides: Sequence[Guide] = ()) -> torch.Tensor:
        """Log-probability of each label's tokens after prompt and lead; (prompts, labels), float64, on the CPU.

        Sums over tokens, not normalised over labels: that is `torch.softmax(scores, -1)`.

        Raises:
            ArgumentError: no prompts, or one that leaves no room for the label in the model's context.
        """
        return self.scores_under(prompts, [guides])[0]

    def scores_under(
        self, prompts: Sequence[ChatOrText], guidings: Sequence[Sequence[Guide]], *, progress: bool = False
    ) -> torch.Tensor:
        """`scores` under each of several sets of guides, () for none; (sets, prompts, labels).

        The prompts are read once for all sets that steer the answer only. `progress` shows how far it is.
        """
        rows, starts, lengths = self._encode(prompts)
        sets = [[guide.steering(self.model, self.processor) for guide in guides] for guides in guidings]
        with progress_bar(len(sets) * len(rows), "verdicts", "rows", shown=progress) as bar:
            found = log_probabilities_under(
                self._plain,
                rows,
                starts,
                sets,
                prompt_lengths=lengths,
                token_budget=self.token_budget,
                on_rows=bar.update,
            )
        return torch.tensor(found, dtype=torch.float64).view(len(sets), len(prompts), len(self.labels))

    def sweep(
        self,
        prompts: Sequence[ChatOrText],
        vector: SteeringVector,
        *,
        layers: Sequence[int],
        strengths: Sequence[float],
        positions: Positions = "generated",
        mode: str = "add",
        guides: Sequence[Guide] = (),
        progress: bool = False,
    ) -> torch.Tensor:
        """`scores` under every layer and strength of one vector; (layers, strengths, prompts, labels).

        Where only the answer is steered, the prompts are read once for all layers and strengths.

        Args:
            prompts: as in `scores`.
            vector: the vector.
            layers: the layers to try, one at a time.
            strengths: the strengths to try at each.
            positions: as in `Guide`.
            mode: as in `Guide`.
            guides: steering that stays on; it acts first.
            progress: show how far it is.
        """
        trials = [Guide(vector.at(layer), strength, positions, mode) for layer in layers for strength in strengths]
        scores = self.scores_under(prompts, [[*guides, trial] for trial in trials], progress=progress)
        return scores.view(len(layers), len(strengths), *scores.shape[1:])

    # -- text ----------------------------------------------------------------------------------------------------------

    def encode(self, prompt: ChatOrText) -> list[int]:
        """The prompt's tokens, the header of the answer included.

        Raises:
            ArgumentError: it is empty, or messages for a tokenizer without chat template.
        """
        return encode_dialogue(self.tokenizer, prompt)

    def _encode(self, prompts: Sequence[ChatOrText]) -> tuple[list[list[int]], list[int], list[int]]:
        """For every prompt and label the tokens, where the label's begin, and how many are the prompt's."""
        if not prompts:
            raise ArgumentError("prompts is empty; give at least one.")
        lead, labels = self._answers(prompts[0])
        rows, starts, lengths = [], [], []
        for number, prompt in enumerate(prompts):
            text = self.encode(prompt)
            needed = len(text) + len(lead) + max(map(len, labels))
            check_room(self._plain, needed, f"prompts[{number}] with its verdict", "shorten the claim or its evidence")
            for label in labels:
                rows.append([*text, *lead, *label])
                starts.append(len(text) + len(lead))
                lengths.append(len(text))
        return rows, starts, lengths

    def _answers(self, prompt: ChatOrText) -> tuple[list[int], list[list[int]]]:
        """The lead's tokens, and each label's behind it."""
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
