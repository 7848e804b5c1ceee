"""Reading activations: wanted tokens of wanted layers, gathered inside the forward."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, Literal

import torch

from truthkit.activations.hooks import Hooked, OnStates, hook_states
from truthkit.activations.moments import Moments
from truthkit.activations.positions import Positions, Tokens, selected
from truthkit.errors import ArgumentError
from truthkit.hf.compiled import eagerly, is_compiled
from truthkit.hf.ownership import Block
from truthkit.hf.sites import decoder_blocks, image_token, input_device, resolve_layers, text_decoder
from truthkit.hf.spread import is_fully_sharded
from truthkit.hf.tails import first_tensor
from truthkit.text.tokens import padded

Reducer = Literal["keep", "mean"]


class ReachedDeepestLayer(Exception):
    """Raised inside a forward whose further layers nobody needs."""


class Capture(Hooked):
    """Activations of every forward in a `with` block; under `generate` in any mode, as steering sees the tokens.

    Args:
        model: any text or image-text model; PEFT wrappers are looked through.
        layers: layer numbers; None is all.
        positions: which tokens; see `truthkit.activations.positions`.
        site: "block" (block outputs, never the final norm's), "heads" or "mlp".
        reduce: "keep" every selected token; "mean" over each row's selected tokens; or `Moments` of as many layers,
            which is updated by every selected token and keeps nothing.
        processor: tokenizer or processor, for positions that look at characters.

    Attributes:
        prompt_lengths: as in `Steering`.
    """

    _untraceable = "reads every forward"

    def __init__(
        self,
        model: Any,
        layers: Sequence[int] | None = None,
        *,
        positions: Positions = "all",
        site: str = "block",
        reduce: Reducer | Moments = "keep",
        processor: Any = None,
    ):
        if not isinstance(reduce, Moments) and reduce not in ("keep", "mean"):
            raise ArgumentError(f"reduce is {reduce!r}; expected 'keep', 'mean' or a Moments.")
        super().__init__(model, layers, site, positions, processor)
        self.reduce = reduce
        self._values: dict[int, list[torch.Tensor]] = {layer: [] for layer in self.layers}
        self._rows: list[torch.Tensor] = []
        self._pending: dict[int, torch.Tensor] = {}

    def __getitem__(self, layer: int) -> torch.Tensor:
        """What was read at a layer: (tokens, features), or (rows, features) under "mean"; one forward after another."""
        (layer,) = resolve_layers([layer], len(decoder_blocks(self.model)))
        if not self._values.get(layer):
            raise ArgumentError(f"nothing was captured at layer {layer}; captured layers are {list(self.layers)}.")
        return torch.cat(self._values[layer])

    @property
    def rows(self) -> torch.Tensor:
        """The batch row of each entry of `self[layer]`, (entries,), int64."""
        return torch.cat(self._rows)

    def _begin_forward(self) -> None:
        self._chosen = selected(self.positions, self._tracker.tokens)
        rows = self._chosen.any(dim=1) if self.reduce == "mean" else self._chosen
        self._rows.append(rows.nonzero()[:, 0])

    def _on_states(self, layer: int) -> OnStates:
        def take(hidden: torch.Tensor) -> None:
            chosen = self._chosen.to(hidden.device)
            hidden = hidden.detach().view(*chosen.shape, -1)  # OPT's MLP sees one long row
            if self.reduce == "mean":
                self._values[layer].append(mean_of_selected(hidden, chosen)[chosen.any(dim=1)])
            elif self.reduce == "keep":
                self._values[layer].append(hidden[chosen])
            else:
                self._collect(layer, hidden[chosen])

        return take

    def _collect(self, layer: int, states: torch.Tensor) -> None:
        assert isinstance(self.reduce, Moments)
        self._pending[layer] = states
        if len(self._pending) == len(self.layers):
            self.reduce.update(torch.stack([self._pending.pop(at).cpu() for at in self.layers]))


def mean_of_selected(hidden: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """The mean over each row's chosen tokens; (rows, width, features) and (rows, width) to (rows, features).

    Computed in float32, or float64 for float64 activations. A row with one chosen token gets exactly that token's
    state; a row with none gets zeros.
    """
    counts = chosen.sum(dim=1)
    if bool((counts <= 1).all()):
        picked = hidden[torch.arange(len(hidden), device=hidden.device), chosen.long().argmax(dim=1)]
        return wide(picked) * counts[:, None]
    weights = chosen / counts.clamp_min(1)[:, None]
    states = wide(hidden)
    return torch.bmm(weights[:, None].to(states.dtype), states)[:, 0]


def wide(hidden: torch.Tensor) -> torch.Tensor:
    """`hidden` in float32, or unchanged if it is float64."""
    return hidden if hidden.dtype == torch.float64 else hidden.float()


def read_texts(
    model: Any,
    texts: Sequence[Sequence[int]],
    prompts: Sequence[int],
    layers: Sequence[int],
    *,
    positions: Positions = "last",
    site: str = "block",
    processor: Any = None,
    inputs: Mapping[str, torch.Tensor] | None = None,
) -> torch.Tensor:
    """One forward over a batch of texts: per layer and text the mean state of its selected tokens.

    There is no output head in it, and nothing after the deepest layer. Texts are padded on the right, where a causal
    language model needs no mask, so the fast attention path is taken.

    Args:
        model: the plain model.
        texts: token ids of each text.
        prompts: how many tokens of each text are prompt.
        layers: layer numbers.
        positions: which tokens; see `truthkit.activations.positions`.
        site: "block", "heads" or "mlp".
        processor: tokenizer or processor, for positions that look at characters.
        inputs: more that the model is given, as the images of a text that is alone in its batch.

    Returns:
        (layers, texts, features), float32 (float64 for a float64 model), on the model's device.

    Raises:
        ArgumentError: `positions` selects nothing in one of the texts.
    """
    ids, number, real = _padded(texts)
    tokens_read = Tokens(
        number=number,
        real=real,
        prompt=torch.tensor(prompts)[:, None],
        given=real.sum(dim=1, keepdim=True),
        ids=ids,
        text=[list(one) for one in texts],
        processor=processor,
        image_token=image_token(model),
        memory={},
    )
    chosen = selected(positions, tokens_read)
    if not bool(chosen.any(dim=1).all()):
        row = int(chosen.any(dim=1).long().argmin())
        raise ArgumentError(
            f"positions={positions!r} selects no token in a text of {len(texts[row])} tokens, of which {prompts[row]} "
            "are prompt; read other positions, or give the text a prompt or an answer that has them."
        )
    wanted = resolve_layers(layers, len(decoder_blocks(model)))
    device = input_device(model)
    read: list[torch.Tensor] = []
    chosen = chosen.to(device)

    def take(layer: int, hidden: torch.Tensor) -> None:
        states = mean_of_selected(hidden.view(*chosen.shape, -1), chosen.to(hidden.device))
        if not read:
            read.append(states.new_empty(len(wanted), *states.shape, device=device))
        for at, one in enumerate(wanted):
            if one == layer:
                read[0][at] = states.to(device)

    _visit(model, ids, wanted, take, site=site, inputs=inputs)
    return read[0]


def visit_texts(
    model: Any,
    texts: Sequence[Sequence[int]],
    layers: Sequence[int],
    visit: Callable[[int, torch.Tensor, torch.Tensor], None],
    *,
    last: Callable[[torch.Tensor, torch.Tensor], None] | None = None,
) -> None:
    """One forward over a batch of texts that calls `visit(layer, states, real)` with the outputs of decoder blocks.

    As in `read_texts` there is no output head, nothing after the deepest layer, and padding on the right.

    Args:
        model: the plain model.
        texts: token ids of each text.
        layers: layer numbers.
        visit: is given a non-negative layer number, states (texts, width, features), and which of the positions
            hold a token, (texts, width).
        last: is given what the text decoder hands to the output head, and where tokens are.
    """
    ids, _, real = _padded(texts)

    def pass_on(layer: int, hidden: torch.Tensor) -> None:
        visit(layer, hidden, real.to(hidden.device))

    def pass_last(states: torch.Tensor) -> None:
        if last is not None:
            last(states, real.to(states.device))

    wanted = resolve_layers(layers, len(decoder_blocks(model)))
    _visit(model, ids, wanted, pass_on, last=None if last is None else pass_last)


def _padded(texts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids padded on the right, token numbers, and which are real; (texts, width) each."""
    ids, mask = padded(texts, side="right")
    return ids, torch.arange(ids.shape[1]).expand(len(texts), -1), mask.bool()


def _visit(
    model: Any,
    ids: torch.Tensor,
    layers: Sequence[int],
    visit: Callable[[int, torch.Tensor], None],
    *,
    site: str = "block",
    inputs: Mapping[str, torch.Tensor] | None = None,
    last: Callable[[torch.Tensor], None] | None = None,
) -> None:
    blocks = decoder_blocks(model)
    given = {**(inputs or {}), "input_ids": ids.to(input_device(model))}

    def stop(_module: Any, _args: Any, output: Any) -> None:
        if last is not None:
            last(output.last_hidden_state if hasattr(output, "last_hidden_state") else first_tensor(output))
        if not runs_out:
            raise ReachedDeepestLayer

    owner, runs_out = Block("read_texts"), is_fully_sharded(model)  # FSDP2 takes its weights apart at the end
    with ExitStack() as stack, eagerly(is_compiled(model, model)), torch.no_grad():
        for layer in set(layers):
            stack.callback(hook_states(blocks[layer], site, partial(visit, layer), owner).remove)
        end = blocks[max(layers)] if last is None else text_decoder(model)
        stack.callback(end.register_forward_hook(owner.only_here(stop)).remove)
        with suppress(ReachedDeepestLayer):
            runs = model if inputs or not _needs_images(model) else model.get_decoder()
            runs(**given, use_cache=False)


def _needs_images(model: Any) -> bool:
    """Whether the model takes no text without an image, as InstructBLIP."""
    images = inspect.signature(model.forward).parameters.get("pixel_values")
    return images is not None and images.default is images.empty


__all__ = ["Capture", "mean_of_selected", "read_texts", "visit_texts"]
