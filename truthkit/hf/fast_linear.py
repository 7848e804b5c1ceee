"""Linear layers for a handful of rows on a CPU, in float32.

Decoding multiplies every weight matrix by 1 to 16 rows. The matrix libraries are tuned for more: on many CPUs two or
three rows cost far more than one, and four cost less than three. The same product can be laid out in other ways without
copying a weight: the weight times the rows as columns, whole or in blocks of output features, the rows times such
blocks, or with the rows padded. Which is fastest depends on the CPU, the shape and the number of rows, so it is
measured once for each, in about a tenth of a second, and kept for the process. Above 16 rows no layout beat the
libraries' own by enough.

The arithmetic is the same float32 sum of products in another order, so logits may differ in the last bits, as they do
with any change of batch size.
"""

from __future__ import annotations

import bisect
import functools
import time
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
_BLOCKS = (64, 16)
"""Output features in a block of rows times weight; 64 and 16 win on different CPUs."""

_chosen: dict[tuple[int, int, int, int], Kernel] = {}


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


def _candidates(rows: int, outputs: int) -> list[Kernel]:
    by_columns = [(_blocks_by_columns, _BLOCKS[0])]
    by_rows = [(_rows_by_blocks, size) for size in _BLOCKS if rows > 1]
    in_blocks = [functools.partial(_in_blocks, *one) for one in (*by_columns, *by_rows) if one[1] <= outputs]
    padded = [functools.partial(_padded, to) for to in (4, 8) if to > rows > 1][:1]
    return [_plain, _columns, *in_blocks, *padded]


def _fastest(rows: int, weights: list[torch.Tensor]) -> Kernel:
    outputs, inputs = weights[0].shape
    if rows > 8:  # where less time goes into reading the weights
        weights = weights[: max(len(weights) // 4, 1)]
    x = torch.ones(rows, inputs)
    kernels = _candidates(rows, outputs)
    seconds = dict.fromkeys(kernels, float("inf"))
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter  # other processes do not count
    for _ in range(3):
        best = min(seconds.values())
        for kernel in kernels:
            if seconds[kernel] == float("inf") or seconds[kernel] < _HOPELESS * best:
                start = clock()
                for weight in weights:
                    kernel(x, weight)
                seconds[kernel] = min(seconds[kernel], clock() - start)
    fastest = min(kernels, key=seconds.__getitem__)
    return fastest if seconds[fastest] < _WORTHWHILE * seconds[_plain] else _plain


class _FastForward:
    """The `forward` of one linear layer, in its fastest layout.

    Args:
        module: the layer.
        alike: weights of the same shape, to measure on.
    """

    def __init__(self, module: nn.Linear, alike: list[torch.Tensor]):
        self._module, self._alike, self._original = module, alike, module.forward

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_compiling():  # the compiler has layouts of its own, and nothing can be timed in a graph
            return self._original(rows)
        weight, bias = self._module.weight, self._module.bias
        outputs, inputs = weight.shape
        count = rows.numel() // inputs
        if not 0 < count <= MAX_ROWS or rows.dtype != torch.float32 or torch.is_grad_enabled():
            return self._original(rows)
        measured_at = _MEASURED_AT[bisect.bisect_left(_MEASURED_AT, count)]
        key = (outputs, inputs, measured_at, torch.get_num_threads())
        kernel = _chosen.get(key)
        if kernel is None:
            kernel = _chosen[key] = _fastest(measured_at, self._alike)
        output = kernel(rows.reshape(count, inputs), weight)
        if bias is not None:
            output = output + bias
        return output.reshape(*rows.shape[:-1], outputs)

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


Kept = dict[nn.Module, _FastForward]
"""What stands in place of each layer's `forward`."""


class FastLinear:
    """The linear layers of `model` with another `forward` each, to be put on as often as one likes (`running`).

    Args:
        model: the plain model.
        kept: see `fast_linear`.
    """

    def __init__(self, model: nn.Module, kept: Kept | None = None):
        kept = {} if kept is None else kept
        linears = [] if is_spread(model) else [module for module in model.modules() if _eligible(module)]
        samples: dict[torch.Size, list[torch.Tensor]] = {}
        for module in linears:
            weights = samples.setdefault(module.weight.shape, [])
            if len(weights) * module.weight.numel() < _SAMPLE:
                weights.append(module.weight.detach())
        self._fast: Kept = {one: kept.get(one) or _FastForward(one, samples[one.weight.shape]) for one in linears}
        kept.update(self._fast)

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


def fast_linear(model: nn.Module, kept: Kept | None = None) -> AbstractContextManager[None]:
    """Run the linear layers of `model` in their fastest layout for few rows; nothing happens off the CPU or off
    float32. Nor where processes hold the model together: each would choose by its own clock, and their logits part.

    Forwards with gradients, or with more than `MAX_ROWS` rows times positions, take the ordinary path. On exit every
    layer is as it was.

    Args:
        model: the plain model.
        kept: of earlier blocks, where compiled code knows it and is not to be made anew.
    """
    return FastLinear(model, kept).running()
