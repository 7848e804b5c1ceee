"""What a decoding method is: the views that it compares, and how their logits combine.

A decoder only describes. Entered in a `with` block it makes a `Session`, whose hooks let all views run in the batch of
one forward and combine their logits before `generate` sees them. Hugging Face's `generate` runs unmodified between the
hooks, so every mode of it comes out right: the combination is upstream of beams, warpers, streamers and assisted
verification.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from truthkit.decoding.engine.controls import Control, combined
from truthkit.decoding.engine.method import DecodingMethod
from truthkit.decoding.engine.options import check_beta
from truthkit.decoding.engine.prompt_exits import PromptExit
from truthkit.decoding.engine.session import Session
from truthkit.decoding.engine.view import AttentionEdit, View, ViewLogits
from truthkit.decoding.engine.view_group import ViewGroup, check_same_vocabulary
from truthkit.errors import ArgumentError, ModelError
from truthkit.hf.padding import neutral_to_padding
from truthkit.hf.wrapping import language_half, plain_model

if TYPE_CHECKING:
    from truthkit.hf.wrapping import GenerativeModel


class Decoder(DecodingMethod, ABC):
    """A decoding method for one model; `with decoder:` attaches it, as often as you like, one time after the other.

    It does not change once it is built: what arises while decoding belongs to the session.

    Args:
        model: the model whose `generate` (or forward) is to be changed; PEFT and `torch.compile` wrappers are looked
            through.
        views: the auxiliary views, in the order in which `combine` takes them after the main one.
        layers: early exits to read in the main view and in every view with `exits=True`.
        beta: adaptive plausibility constraint by the main view, in (0, 1]; 0 turns it off.
        norm: pass early exits through the final norm.
        attention: how the main view looks at its images.
        prompt_exits: early exits of the main view to read at all tokens of the prompt, for `prompt_entropies`.

    Attributes:
        front: the plain model, whose `generate` is called.
        model: its part that runs the loop; mostly `front` itself.
        compiled: whether `torch.compile` is around it.
        views: all of them, the main one first.
        groups: the views by model, those of `model` first.
        of_whole_prompt: whether what it does depends on all of a prompt, so that no part of it can be read apart.
        steers: whether it changes states of the forward that `generate` itself runs.

    Raises:
        ArgumentError, ModelError, NotAvailableError: see the methods' own docstrings.
    """

    of_whole_prompt = False
    steers = False

    def __init__(
        self,
        model: Any,
        views: Sequence[View] = (),
        *,
        layers: Sequence[int] = (),
        beta: float = 0.0,
        norm: bool = True,
        attention: Sequence[AttentionEdit] = (),
        prompt_exits: Sequence[PromptExit] = (),
    ):
        self.front: GenerativeModel = plain_model(model)
        self.compiled = hasattr(model, "_orig_mod")
        self.model: GenerativeModel = language_half(self.front)
        if getattr(self.model.config, "is_encoder_decoder", False):
            raise ModelError(
                f"{type(self.model).__name__} is an encoder-decoder; truthkit decodes decoder-only models."
            )
        self.beta = check_beta(beta)
        if any(view.prompt and view.model is None for view in views) and not neutral_to_padding(self.model):
            views = [replace(view, model=self.front) if view.prompt and view.model is None else view for view in views]
        self.views = (View("main", exits=bool(layers), attention=tuple(attention)), *views)
        self.layers, self.norm, self.prompt_exits = tuple(layers), norm, tuple(prompt_exits)
        own = [view for view in self.views if view.model is None]
        others = [self._elsewhere(view) for view in self.views if view.model is not None]
        main = ViewGroup(self.model, own, layers, norm=norm, vision=self.front, prompt_exits=self.prompt_exits)
        self.groups = (main, *others)

    def _elsewhere(self, view: View) -> ViewGroup:
        """The group of a view in another model; its exits sit at the same relative depth."""
        other = plain_model(view.model)
        check_same_vocabulary(self.model, other)
        depth, depth_here = (m.config.get_text_config(decoder=True).num_hidden_layers for m in (other, self.model))
        layers = [max(round((layer % depth_here + 1) * depth / depth_here) - 1, 0) for layer in self.layers]
        return ViewGroup(language_half(other), [view], layers, norm=self.norm, vision=other)

    strengths: ClassVar[frozenset[str]] = frozenset({"beta"})
    """Options by which `combine` and the plausibility constraint go and nothing else does: see `ByRow`."""

    gated: ClassVar[bool] = False
    """Whether it acts in some rows and steps only, which `fires` names."""

    rests: bool = False
    """Whether `fires` needs the main view alone, so that views with a forward of their own can wait until it does."""

    def fires(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor | None:
        """Of a decoder with a gate: in which rows and positions it acts, shape (batch, positions), bool."""
        return None

    @abstractmethod
    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        """The method's scores, shape (batch, positions, vocabulary), before the plausibility constraint.

        Scores may differ from log-probabilities by a constant per row and position.
        """

    def beside(self, session: Session) -> Sequence[AbstractContextManager[Any]]:
        """What else is on the model while the decoder is: blocks that are entered and left with its session."""
        return ()

    def __add__(self, other: Decoder) -> Decoder:
        """Both decoders at once; see `Together`, whose own beta stays."""
        parts = [part for one in (self, other) for part in getattr(one, "decoders", (one,))]
        given = [one.beta for one in (self, other) if isinstance(one, Together) and "beta" in one.options]
        return Together(*parts, beta=max(self.beta, other.beta) if given else None)

    def __enter__(self) -> Session:
        session = Session(self)
        session.open()
        self.__dict__["_session"] = session
        return session

    def __exit__(self, *exception: object) -> None:
        self.__dict__.pop("_session").close(*exception)


class Together(Decoder):
    """Combine decoders of one model, as in `tk.RITUAL(...) + tk.VCD(...)`.

        s = l + Σ_m (s_m − l),   then the strictest of the decoders' plausibility constraints

    Each decoder adds what it changes in the model's own logits, so a term such as RITUAL's `alpha · l(T(V))` or VCD's
    `alpha · (l(V) − l(V_noisy))` comes out as it stands in its formula. RITUAL with VCD or M3ID was reported, but the
    released code can't do it: the form is ours.

    Args:
        decoders: two or more for the same model.
        beta: plausibility cut-off in (0, 1], 0 for none; by default the largest of theirs.

    Raises:
        ArgumentError: fewer than two, or for different models.
    """

    def __init__(self, *decoders: Decoder, beta: float | None = None):
        if len(decoders) < 2 or any(decoder.front is not decoders[0].front for decoder in decoders):
            raise ArgumentError("Together takes two or more decoders that were built for the same model.")
        self.decoders = decoders
        self.of_whole_prompt = any(decoder.of_whole_prompt for decoder in decoders)
        self.steers = any(decoder.steers for decoder in decoders)
        first = decoders[0]
        if any(decoder.norm != first.norm for decoder in decoders if decoder.layers):
            raise ArgumentError("decoders that read early exits with and without the final norm cannot be combined.")
        super().__init__(
            first.front,
            [view for decoder in decoders for view in decoder.views[1:]],
            layers=sorted({layer for decoder in decoders for layer in decoder.layers}),
            beta=max(decoder.beta for decoder in decoders) if beta is None else beta,
            norm=next((decoder.norm for decoder in decoders if decoder.layers), True),
            attention=[edit for decoder in decoders for edit in decoder.views[0].attention],
            prompt_exits=sorted({one for decoder in decoders for one in decoder.prompt_exits}),
        )
        self.compiled = any(decoder.compiled for decoder in decoders)

    def beside(self, session: Session) -> Sequence[AbstractContextManager[Any]]:
        return [one for decoder in self.decoders for one in decoder.beside(session)]

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        rest, scores = iter(views), main.logits
        for decoder in self.decoders:
            own = [self._as_seen_by(decoder, next(rest)) for _ in decoder.views[1:]]
            scores = scores + (decoder.combine(self._as_seen_by(decoder, main), *own) - main.logits)
        return scores

    def _as_seen_by(self, decoder: Decoder, view: ViewLogits) -> ViewLogits:
        """The view with the early exits that `decoder` asked for."""
        exits, entropies = view.exits, view.prompt_entropies
        if exits is not None and decoder.layers != self.layers:
            exits = exits[[self.layers.index(layer) for layer in decoder.layers]] if decoder.layers else None
        if entropies is not None and decoder.prompt_exits != self.prompt_exits:
            own = [self.prompt_exits.index(one) for one in decoder.prompt_exits]
            entropies = entropies[own] if own else None
        return ViewLogits(view.logits, exits, view.step, entropies)

    @classmethod
    def controls(cls, **options: Any) -> tuple[Control, ...]:
        """Those of its `decoders`, every kind once; see `combined`."""
        return combined(type(decoder).controls(**decoder.options) for decoder in options["decoders"])

    @property
    def spec(self) -> str:
        if "beta" in self.options:
            raise ArgumentError(
                f"beta={self.beta} was given to Together, which cannot be written; give it to one of the decoders."
            )
        return "+".join(decoder.spec for decoder in self.decoders)

    def __repr__(self) -> str:
        beta = [f"beta={value}" for value in self.options.values()]
        return f"Together({', '.join([*map(repr, self.decoders), *beta])})"
