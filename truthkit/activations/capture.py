"""Reading activations: wanted tokens of wanted layers, gathered inside the forward."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any, Literal

import torch
from torch import nn

from truthkit.activations.compiled import guarded_compilation, refuse_compiled
from truthkit.activations.moments import Moments
from truthkit.activations.positions import Positions, Tokens, check_positions, selected
from truthkit.activations.sites import decoder_blocks, resolve_layers, site_module
from truthkit.activations.tracking import Tracker
from truthkit.decoding.attach import plain_model
from truthkit.errors import ArgumentError

Reducer = Literal["keep", "mean"]


class ReachedDeepestLayer(Exception):
    """Raised inside a forward whose further layers nobody needs."""


class Taps:
    """Hooks that hand each wanted layer's activations (rows, width, features) to `take(layer, hidden)`.

    Args:
        model: the plain model.
        layers: layer numbers.
        site: "block", "heads" or "mlp".
        stop: raise `ReachedDeepestLayer` after the deepest of the layers.
    """

    def __init__(self, model: Any, layers: Sequence[int], site: str, *, stop: bool):
        blocks = decoder_blocks(model)
        self.layers = resolve_layers(layers, len(blocks))
        self._sites = {layer: site_module(blocks[layer], site) for layer in self.layers}
        self._deepest = blocks[max(self.layers)] if stop else None
        self._site = site

    def attach(self, stack: ExitStack, take: Any) -> None:
        """Put the hooks on; `stack` takes them off."""
        for layer, module in self._sites.items():
            if self._site == "heads":
                stack.callback(module.register_forward_pre_hook(_giving_input(take, layer)).remove)
            else:
                stack.callback(module.register_forward_hook(_giving_output(take, layer)).remove)
        if self._deepest is not None:
            stack.callback(self._deepest.register_forward_hook(_stop).remove)


def _giving_output(take: Any, layer: int) -> Any:
    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        take(layer, output[0] if isinstance(output, tuple) else output)

    return hook


def _giving_input(take: Any, layer: int) -> Any:
    def hook(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        take(layer, args[0])

    return hook


def _stop(*_hook_arguments: Any) -> None:
    raise ReachedDeepestLayer


class Capture:
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
        self._given, self.model = model, plain_model(model)
        if layers is None:
            layers = range(len(decoder_blocks(self.model)))
        if not isinstance(reduce, Moments) and reduce not in ("keep", "mean"):
            raise ArgumentError(f"reduce is {reduce!r}; expected 'keep', 'mean' or a Moments.")
        self.positions, self.reduce = check_positions(positions, processor), reduce
        self._taps = Taps(self.model, layers, site, stop=False)
        self.layers = self._taps.layers
        self._tracker = Tracker(self.model, processor, self._begin_forward)
        self._values: dict[int, list[torch.Tensor]] = {layer: [] for layer in self.layers}
        self._rows: list[torch.Tensor] = []
        self._pending: dict[int, torch.Tensor] = {}
        self._stack = ExitStack()

    @property
    def prompt_lengths(self) -> Sequence[int] | None:
        return self._tracker.prompt_lengths

    @prompt_lengths.setter
    def prompt_lengths(self, lengths: Sequence[int] | None) -> None:
        self._tracker.prompt_lengths = lengths

    def __enter__(self) -> Capture:
        refuse_compiled(self._given, self.model)
        with ExitStack() as stack:
            self._tracker.attach(stack)
            self._taps.attach(stack, self._take)
            stack.enter_context(guarded_compilation())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

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

    def _take(self, layer: int, hidden: torch.Tensor) -> None:
        chosen = self._chosen.to(hidden.device)
        hidden = hidden.detach().view(*chosen.shape, -1)  # OPT's MLP sees one long row
        if self.reduce == "mean":
            rows = chosen.any(dim=1)
            self._values[layer].append(mean_of_selected(hidden, chosen)[rows])
        elif self.reduce == "keep":
            self._values[layer].append(hidden[chosen])
        else:
            self._collect(layer, hidden[chosen])

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
) -> torch.Tensor:
    """One forward over a batch of texts: per layer and text the mean state of its selected tokens.

    There is no output head in it, and nothing after the deepest layer. Texts are padded on the right, where a causal
    model needs no mask, so the fast attention path is taken.

    Args:
        model: the plain model.
        texts: token ids of each text.
        prompts: how many tokens of each text are prompt.
        layers: layer numbers.
        positions: which tokens; see `truthkit.activations.positions`.
        site: "block", "heads" or "mlp".
        processor: tokenizer or processor, for positions that look at characters.

    Returns:
        (layers, texts, features), float32 (float64 for a float64 model), on the model's device.

    Raises:
        ArgumentError: `positions` selects nothing in one of the texts.
    """
    device = model.get_input_embeddings().weight.device
    lengths = torch.tensor([[len(ids)] for ids in texts])
    width = int(lengths.max())
    ids = torch.tensor([[*tokens, *[tokens[-1]] * (width - len(tokens))] for tokens in texts])
    number = torch.arange(width).expand(len(texts), -1)
    real = number < lengths
    image = getattr(model.config, "image_token_id", None) or getattr(model.config, "image_token_index", None)
    tokens_read = Tokens(
        number, real, torch.tensor(prompts)[:, None], lengths, ids, [list(one) for one in texts], processor, image, {}
    )
    chosen = selected(positions, tokens_read)
    if not bool(chosen.any(dim=1).all()):
        row = int(chosen.any(dim=1).long().argmin())
        raise ArgumentError(
            f"positions={positions!r} selects no token in a text of {len(texts[row])} tokens, of which {prompts[row]} "
            "are prompt."
        )
    taps = Taps(model, layers, site, stop=True)
    read: dict[int, torch.Tensor] = {}
    chosen = chosen.to(device)

    def take(layer: int, hidden: torch.Tensor) -> None:
        read[layer] = mean_of_selected(hidden.view(*chosen.shape, -1), chosen.to(hidden.device))

    with ExitStack() as stack, torch.no_grad():
        taps.attach(stack, take)
        with suppress(ReachedDeepestLayer):
            model(input_ids=ids.to(device), use_cache=False)
    return torch.stack([read[layer].to(device) for layer in taps.layers])


__all__ = ["Capture", "mean_of_selected", "read_texts"]
