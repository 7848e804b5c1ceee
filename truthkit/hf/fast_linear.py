"""Linear layers for a handful of rows on a CPU, in float32.

Decoding multiplies every weight matrix by 1 to 16 rows. The matrix libraries are tuned for more: on many CPUs two or
three rows cost far more than one, and four cost less than three. The same product can be laid out in other ways without
copying a weight: the weight times the rows as columns, whole or in blocks of output features, the rows times such
blocks, or with the rows padded. Which is fastest depends on the CPU, the shape and the number of rows, so it is
measured once for each, in about a tenth of a second, and kept for the process. Above 16 rows no layout beat the
libraries' own by enough. Where a forward is traced, the layout is chosen, and if need be measured, while the trace is
made, and is part of the graph.

The arithmetic is the same float32 sum of products in another order, so logits may differ in the last bits, as they do
with any change of batch size.
"""

from __future__ import annotations

import functools
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeGuard

import torch
from torch import nn

from truthkit.errors import AttachError
from truthkit.hf.spread import is_spread
from truthkit.hf.wrapping import NO_COPY

Kernel = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Maps rows (m, in) and a weight (out, in) to (m, out)."""

MAX_ROWS = 16
_SMALLEST = 1 << 16
"""Weights with fewer elements cost less than the choice."""
_SAMPLE = 1 << 24
"""Elements of weights to time on: enough to come from memory and not from the processor's caches."""
_WORTHWHILE = 0.9
"""Another layout must take less than this share of the plain one's time, so that noise does not decide."""
_HOPELESS = 1.3
"""A layout that once took this many times as long as the best is not tried again."""
_MEASURED_AT = (1, 2, 3, 4, 6, 8, 12, MAX_ROWS)
"""For how many rows there is a choice; numbers in between take that of the next one."""

_chosen: dict[tuple[int, int, int, int], str] = {}


def _plain(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return nn.functional.linear(rows, weight)


def _columns(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    # left transposed, the layout would spread to the cache and slow attention
    return torch.mm(weight, rows.t()).t().contiguous()


def _blocks_by_columns(rows: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    columns = rows.t().expand(len(blocks), rows.shape[1], len(rows))
    return torch.bmm(blocks, columns).view(-1, len(rows)).t().contiguous()


def _rows_by_blocks(rows: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    outputs = torch.bmm(rows.expand(len(blocks), *rows.shape), blocks.transpose(1, 2))
    return outputs.transpose(0, 1).reshape(len(rows), -1)


def _in_blocks(kernel: Kernel, size: int, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """`kernel` takes the weight as (blocks, size, in); what is left over goes the plain way."""
    whole = len(weight) // size * size
    outputs = kernel(rows, weight[:whole].view(-1, size, weight.shape[1]))
    return outputs if whole == len(weight) else torch.cat([outputs, _plain(rows, weight[whole:])], dim=1)


def _padded(to: int, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return _plain(nn.functional.pad(rows, (0, 0, 0, to - len(rows))), weight)[: len(rows)]


_PLAIN = "plain"
_LAYOUTS: dict[str, Kernel] = {
    _PLAIN: _plain,
    "columns": _columns,
    "blocks of 64 by columns": functools.partial(_in_blocks, _blocks_by_columns, 64),
    "rows by blocks of 64": functools.partial(_in_blocks, _rows_by_blocks, 64),
    "rows by blocks of 16": functools.partial(_in_blocks, _rows_by_blocks, 16),
    "padded to 4": functools.partial(_padded, 4),
    "padded to 8": functools.partial(_padded, 8),
}


def _candidates(rows: int, outputs: int) -> list[str]:
    blocks = [(64, "blocks of 64 by columns")]
    if rows > 1:  # 64 and 16 win on different CPUs
        blocks += [(64, "rows by blocks of 64"), (16, "rows by blocks of 16")]
    padded = [f"padded to {to}" for to in (4, 8) if to > rows > 1][:1]
    return [_PLAIN, "columns", *(name for size, name in blocks if size <= outputs), *padded]


def _fastest(rows: int, weights: list[torch.Tensor]) -> str:
    outputs, inputs = weights[0].shape
    if rows > 8:  # where less time goes into reading the weights
        weights = weights[: max(len(weights) // 4, 1)]
    x = torch.ones(rows, inputs)
    names = _candidates(rows, outputs)
    seconds = dict.fromkeys(names, float("inf"))
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter  # other processes do not count
    for _ in range(3):
        best = min(seconds.values())
        for name in names:
            if seconds[name] == float("inf") or seconds[name] < _HOPELESS * best:
                kernel, start = _LAYOUTS[name], clock()
                for weight in weights:
                    kernel(x, weight)
                seconds[name] = min(seconds[name], clock() - start)
    fastest = min(names, key=seconds.__getitem__)
    return fastest if seconds[fastest] < _WORTHWHILE * seconds[_PLAIN] else _PLAIN


def _measured_at(count: int) -> int:
    """A loop, of which a trace with an unknown `count` keeps only between which two numbers it lies."""
    for rows in _MEASURED_AT[:-1]:
        if count <= rows:
            return rows
    return MAX_ROWS


class _FastForward:
    """The `forward` of one linear layer, in its fastest layout.

    Args:
        module: the layer.
        alike: layers to measure on, with weights of the same shape.
    """

    def __init__(self, module: nn.Linear, alike: list[nn.Linear]):
        self._module, self._alike, self._original = module, alike, module.forward

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        weight, bias = self._module.weight, self._module.bias
        outputs, inputs = weight.shape
        count = rows.numel() // inputs
        if not 0 < count <= MAX_ROWS or rows.dtype != torch.float32 or torch.is_grad_enabled():
            return self._original(rows)
        kernel = _LAYOUTS[self._layout(_measured_at(count), outputs, inputs)]
        output = kernel(rows.reshape(count, inputs), weight)
        if bias is not None:
            output = output + bias
        return output.reshape(*rows.shape[:-1], outputs)

    @torch.compiler.assume_constant_result  # a trace calls it, and keeps what it returns
    def _layout(self, rows: int, outputs: int, inputs: int) -> str:
        key = (outputs, inputs, rows, torch.get_num_threads())
        if (name := _chosen.get(key)) is None:
            weights = [one.weight.detach() for one in self._alike if one.weight.shape == (outputs, inputs)]
            name = _chosen[key] = _fastest(rows, weights or [self._module.weight.detach()])
        return name

    def __deepcopy__(self, _memo: Any) -> Any:
        raise AttachError(NO_COPY.format("forward"))


def _eligible(module: nn.Module) -> TypeGuard[nn.Linear]:
    if type(module) is not nn.Linear or "forward" in module.__dict__:
        return False
    weight = module.weight
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and weight.is_contiguous()
        and weight.numel() >= _SMALLEST
    )


_KEPT: weakref.WeakKeyDictionary[nn.Module, dict[nn.Module, _FastForward]] = weakref.WeakKeyDictionary()
"""By model, what stands in place of each layer's `forward`: the same in all blocks, or code would be compiled again."""


class FastLinear:
    """The linear layers of `model` with another `forward` each, to be put on as often as one likes (`running`).

    Args:
        model: the plain model.
    """

    def __init__(self, model: nn.Module):
        linears = [] if is_spread(model) else [module for module in model.modules() if _eligible(module)]
        samples: dict[torch.Size, list[nn.Linear]] = {}
        for module in linears:
            alike = samples.setdefault(module.weight.shape, [])
            if len(alike) * module.weight.numel() < _SAMPLE:
                alike.append(module)
        kept = _KEPT.get(model, {})
        self._fast: dict[nn.Module, _FastForward] = {
            one: kept.get(one) or _FastForward(one, samples[one.weight.shape]) for one in linears
        }
        _KEPT[model] = self._fast

    @contextmanager
    def running(self) -> Iterator[None]:
        """See `fast_linear`."""
        put = [(module, forward) for module, forward in self._fast.items() if "forward" not in module.__dict__]
        try:
            for module, forward in put:
                module.__dict__["forward"] = forward
            yield
        finally:
            for module, forward in put:
                if module.__dict__.get("forward") is forward:
                    del module.__dict__["forward"]


def fast_linear(model: nn.Module) -> AbstractContextManager[None]:
    """Run the linear layers of `model` in their fastest layout for few rows; nothing happens off the CPU or off
    float32. Nor where processes hold the model together: each would choose by its own clock, and their logits part.

    Forwards with gradients, or with more than `MAX_ROWS` rows times positions, take the ordinary path. On exit every
    layer is as it was.

    Args:
        model: the plain model.
    """
    return FastLinear(model).running()
