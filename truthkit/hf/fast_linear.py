"""Linear layers for a handful of rows on a CPU, in float32.

Decoding multiplies every weight matrix by 1 to 8 rows. The matrix libraries are tuned for more: on many CPUs two or
three rows cost far more than one, and four cost less than three. The same product can be laid out in other ways without
copying a weight: as a batched product over blocks of output features, or with the rows padded to four. Which is fastest
depends on the CPU, the shape and the number of rows, so it is measured once for each, in a few hundredths of a second,
and kept for the process.

The arithmetic is the same float32 sum of products in another order, so logits may differ in the last bits, as they do
with any change of batch size.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
from torch import nn

from truthkit.errors import AttachError
from truthkit.hf.spread import is_spread
from truthkit.hf.wrapping import NO_COPY

Kernel = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Maps rows (m, in) and a weight (out, in) to (m, out)."""

MAX_ROWS = 8
_SMALLEST = 1 << 16
"""Weights with fewer elements cost less than the choice."""
_SAMPLE = 1 << 24
"""Elements of weights to time on: enough to come from memory and not from the processor's caches."""
_WORTHWHILE = 0.9
"""Another layout must take less than this share of the plain one's time, so that noise does not decide."""

_chosen: dict[tuple[int, int, int, int], Kernel] = {}


def _plain(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return nn.functional.linear(rows, weight)


def _blocked(block: int, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    blocks, inputs = weight.shape[0] // block, weight.shape[1]
    columns = rows.t().expand(blocks, inputs, len(rows))
    outputs = torch.bmm(weight.view(blocks, block, inputs), columns).view(weight.shape[0], len(rows))
    return outputs.t().contiguous()  # left transposed, the layout would spread to the cache and slow attention


def _padded(kernel: Kernel, to: int, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return kernel(nn.functional.pad(rows, (0, 0, 0, to - len(rows))), weight)[: len(rows)]


def _candidates(rows: int, outputs: int) -> list[Kernel]:
    kernels: list[Kernel] = [_plain]
    if block := next((size for size in (64, 48, 32, 16) if outputs % size == 0), None):
        kernels.append(functools.partial(_blocked, block))
    if to := next((size for size in (4, 8) if size > rows > 1), None):
        kernels += [functools.partial(_padded, kernel, to) for kernel in list(kernels)]
    return kernels


def _fastest(rows: int, weights: list[torch.Tensor]) -> Kernel:
    outputs, inputs = weights[0].shape
    x = torch.ones(rows, inputs)
    kernels = _candidates(rows, outputs)
    seconds = [float("inf")] * len(kernels)
    for _ in range(3):
        for i, kernel in enumerate(kernels):
            start = time.perf_counter()
            for weight in weights:
                kernel(x, weight)
            seconds[i] = min(seconds[i], time.perf_counter() - start)
    best = min(range(len(kernels)), key=seconds.__getitem__)
    return kernels[best] if seconds[best] < _WORTHWHILE * seconds[0] else kernels[0]


class _FastForward:
    """The `forward` of one linear layer, in its fastest layout.

    Args:
        module: the layer.
        alike: weights of the same shape, to measure on.
    """

    def __init__(self, module: nn.Linear, alike: list[torch.Tensor]):
        self._module, self._alike, self._original = module, alike, module.forward

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        weight, bias = self._module.weight, self._module.bias
        outputs, inputs = weight.shape
        count = rows.numel() // inputs
        if not 0 < count <= MAX_ROWS or rows.dtype != torch.float32 or torch.is_grad_enabled():
            return self._original(rows)
        key = (outputs, inputs, count, torch.get_num_threads())
        kernel = _chosen.get(key)
        if kernel is None:
            kernel = _chosen[key] = _fastest(count, self._alike)
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


@contextmanager
def fast_linear(model: nn.Module) -> Iterator[None]:
    """Run the linear layers of `model` in their fastest layout for few rows; nothing happens off the CPU or off
    float32. Nor where processes hold the model together: each would choose by its own clock, and their logits part.

    Forwards with gradients, or with more than `MAX_ROWS` rows times positions, take the ordinary path. On exit every
    layer is as it was.
    """
    linears = [] if is_spread(model) else [module for module in model.modules() if _eligible(module)]
    samples: dict[torch.Size, list[torch.Tensor]] = {}
    for module in linears:
        weights = samples.setdefault(module.weight.shape, [])
        if len(weights) * module.weight.numel() < _SAMPLE:
            weights.append(module.weight.detach())
    fast = {module: _FastForward(module, samples[module.weight.shape]) for module in linears}
    try:
        for module, forward in fast.items():
            module.__dict__["forward"] = forward
        yield
    finally:
        for module, forward in fast.items():
            if module.__dict__.get("forward") is forward:
                del module.__dict__["forward"]
