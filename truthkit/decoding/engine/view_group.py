"""Views that share the forwards of one model, and whether they can: what is known of them before there is a prompt."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from truthkit.decoding.engine.adapter import Adapter
from truthkit.decoding.engine.early_exits import EarlyExits
from truthkit.decoding.engine.image_inputs import image_encoder
from truthkit.decoding.engine.image_rows import ImageRows
from truthkit.decoding.engine.prompt_exits import PromptExit, PromptExits
from truthkit.decoding.engine.view import View
from truthkit.errors import ModelError
from truthkit.hf.attention import check_readable
from truthkit.hf.branches import takes_branches
from truthkit.hf.sites import output_head, text_decoder
from truthkit.hf.trees import takes_trees

_PLACES_BY_MASK = {"bloom", "mpt", "mamba2"}
"""Model types without position ids in which padding on the left moves nothing."""


class ViewGroup:
    """One model and the views that run as rows of its batch; a description that does not change.

    Args:
        model: the plain model.
        views: the views; in the group of the decoder's own model the first one is the main view.
        layers: early exits to read in the views with `exits=True`.
        norm: see `EarlyExits`.
        vision: the model with the vision tower, where it is not `model` itself.
        prompt_exits: early exits of the first view to read at all of the prompt.

    Raises:
        ArgumentError, NotAvailableError: a layer or an adapter that is not there.
        ModelError: this model cannot have these views.
    """

    def __init__(
        self,
        model: Any,
        views: Sequence[View],
        layers: Sequence[int] = (),
        *,
        norm: bool = True,
        vision: Any = None,
        prompt_exits: Sequence[PromptExit] = (),
    ):
        self.model, self.views = model, tuple(views)
        self.vision = model if vision is None else vision
        self.exit_views = tuple(i for i, view in enumerate(views) if view.exits and layers)
        self.layers = tuple(layers) if self.exit_views else ()
        self.same_prompt = all(view.prompt is None for view in views)
        self.edits_attention = any(view.attention for view in views)
        self.parameters = tuple(inspect.signature(model.forward).parameters)
        self.takes_positions = "position_ids" in self.parameters
        self.takes_logits_to_keep = "logits_to_keep" in self.parameters
        self.image_rows()
        self.adapters = tuple((i, Adapter(self.vision, view.adapter)) for i, view in enumerate(views) if view.adapter)
        for _, adapter in self.adapters:
            self._check_sees_alike(adapter)
        if self.edits_attention and image_encoder(self.vision) is None:
            raise ModelError(
                f"{type(self.vision).__name__} has no get_image_features, as a text-only model or one that sees images "
                "through cross-attention: there are no image tokens to attend to. Use a model that puts its images "
                "among the tokens."
            )
        if self.edits_attention:
            check_readable(text_decoder(model))
        self._exits = EarlyExits(model, self.layers, norm=norm) if self.layers else None
        self._prompt_exits = PromptExits(model, prompt_exits)
        if not (self.same_prompt or self.takes_positions or model.config.model_type in _PLACES_BY_MASK):
            raise ModelError(
                f"{type(model).__name__} takes no position_ids, so views whose prompts differ in length cannot be "
                "lined up; use views with the same prompt (an adapter, early exits)."
            )
        if self._exits and any(self._exits.head in adapter.modules for _, adapter in self.adapters):
            raise ModelError(
                "the amateur's adapter changes the output head, through which early exits of all views pass; use "
                "omega=0 in LOL, or an adapter that leaves the head alone."
            )

    def check_unchanged(self) -> None:
        """Raises:
        ModelError: the model was given another output head or vocabulary since, or attention that knows no views.
        """
        attention = str(text_decoder(self.model).config._attn_implementation)
        if attention.startswith("paged|"):
            raise ModelError(
                f"{type(self.model).__name__} runs {attention!r} attention, which reads neither generate's masks nor "
                "its cache, only those of generate_batch; call model.set_attn_implementation("
                f"{attention.removeprefix('paged|')!r}) first."
            )
        if self._exits and self._exits.head is not output_head(self.model):
            raise ModelError(
                f"the output head of {type(self.model).__name__} was replaced since the decoder was built (as by "
                "resize_token_embeddings); build the decoder again."
            )

    def image_rows(self) -> ImageRows:
        """For the images of a session."""
        return ImageRows(self.vision, [view.images for view in self.views])

    def exits(self) -> EarlyExits | None:
        """For the early exits of a session, where there are some."""
        return None if self._exits is None else self._exits.anew()

    def prompt_exits(self) -> PromptExits:
        """For the early exits that a session reads at all of its prompts."""
        return self._prompt_exits.anew()

    @property
    def takes_trees(self) -> bool:
        """Whether forwards that go on from a cache may be trees (`truthkit.hf.trees`)."""
        if self.edits_attention or self._prompt_exits:  # what is read first ends where no prompt does
            return False
        counted_along_the_row = not self.same_prompt and hasattr(self.vision.base_model, "get_rope_index")
        return takes_trees(self.model) and not counted_along_the_row

    @property
    def takes_branches(self) -> bool:
        """Whether rows may go on from rows that were read (`truthkit.hf.branches`)."""
        return not self.edits_attention and takes_branches(self.model)

    def _check_sees_alike(self, adapter: Adapter) -> None:
        """Raise if an adapter changes how images are seen, which is settled before there are rows of views."""
        if image_encoder(self.vision) is None:
            return
        of_text = {*self.model.get_decoder().modules(), self.model.get_output_embeddings()}
        if others := adapter.modules - of_text:
            names = sorted(name for name, module in self.vision.named_modules() if module in others)
            raise ModelError(
                f"adapter {adapter.name!r} adapts the vision tower too ({names[0]} and {len(names) - 1} more), but all "
                "views read one encoding of the images. Load it as a model of its own, amateur=tk.load(..., "
                "adapter=...), which costs a second forward."
            )


def check_same_vocabulary(main: Any, other: Any) -> None:
    """Raise unless both models' logits have one vocabulary size.

    Raises:
        ModelError: they differ.
    """
    sizes = [model.config.get_text_config(decoder=True).vocab_size for model in (main, other)]
    if sizes[0] != sizes[1]:
        raise ModelError(
            f"the amateur's vocabulary has {sizes[1]} tokens and the model's {sizes[0]}: their logits cannot be "
            "compared. If both have the same tokenizer, and one is padded with unused rows, make them alike with "
            f"amateur.resize_token_embeddings({sizes[0]}); else use an amateur with the same tokenizer."
        )
