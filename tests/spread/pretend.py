"""Two devices where there is none: tensors that say they are on `pretend:0` or `pretend:1`, computed on the CPU.

An operation over tensors of different devices raises, as it would on two GPUs. `install` changes torch for the rest of
the process, so it belongs in one of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

CPU = torch.device("cpu")
_INDEXING = ("aten.index.Tensor", "aten.index_put_.default", "aten.index_put.default", "aten._index_put_impl_.default")
_aten = torch.ops.aten


class There(torch.Tensor):
    """A tensor on a pretended device; `inner` holds its numbers."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor, device: torch.device) -> There:
        made: There = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=device,
            requires_grad=False,
        )
        made.inner = inner
        return made

    def __repr__(self, **_options: Any) -> str:  # type: ignore[override]
        return f"There({self.inner!r}, {self.device})"

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.inner.tolist()

    def numpy(self, *_args: Any, **_options: Any) -> Any:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy")


class _Everywhere(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Constants(TorchFunctionMode):
    """`torch.tensor(..., device=...)`, which fills the memory of its device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            return func(*args, **kwargs | {"device": CPU}).to(kwargs["device"])
        if func is torch.Tensor.new_tensor and isinstance(args[0], There):
            made = torch.tensor(args[1], dtype=kwargs.get("dtype") or args[0].dtype)
            return made.to(kwargs.get("device") or args[0].device)
        return func(*args, **kwargs)


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    flat, spec = tree_flatten((args, kwargs))
    tensors = [one for one in flat if isinstance(one, torch.Tensor)]
    there = [one for one in tensors if isinstance(one, There)]
    asked = None if kwargs.get("device") is None else torch.device(kwargs["device"])
    plain = [one.inner if isinstance(one, There) else CPU if isinstance(one, torch.device) else one for one in flat]
    inner_args, inner_kwargs = tree_unflatten(plain, spec)
    if func is _aten._to_copy.default:
        made = _computed(func, inner_args, inner_kwargs | {"device": CPU, "non_blocking": False})
        return _placed(made.clone(), asked or tensors[0].device)
    if func is _aten.copy_.default:
        _computed(func, inner_args[:2], {})
        return args[0]
    _check_together(str(func), args, tensors, there)
    made = _computed(func, inner_args, inner_kwargs)
    known = {id(one.inner): one for one in there}
    device = there[0].device if there else asked or CPU

    def placed(one: Any) -> Any:
        if not isinstance(one, torch.Tensor):
            return one
        return known[id(one)] if id(one) in known else _placed(one, device)

    return tree_map(placed, made)


def _check_together(name: str, args: Any, tensors: list[torch.Tensor], there: list[There]) -> None:
    """Raise where torch would: tensors of several devices, but for numbers and for indices that are on the CPU."""
    indices = [id(one) for one in tree_flatten(args[1])[0]] if name in _INDEXING and isinstance(args[0], There) else []
    apart = {one.device for one in tensors if there and one.dim() and not (id(one) in indices and one.device == CPU)}
    if len(apart) > 1:
        raise RuntimeError(f"{name} over {[(tuple(one.shape), str(one.device)) for one in tensors]}")


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    with no_dispatch():
        return func(*args, **kwargs)


def _placed(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    return tensor if device.type == "cpu" else There(tensor, device)


def install() -> None:
    """Make torch know the device type."""
    _setup_privateuseone_for_python_backend("pretend")


@contextmanager
def pretending() -> Iterator[None]:
    """Tensors can be made on and moved to the pretended devices in this block, and mixed no longer."""
    with _Everywhere(), _Constants():
        yield


def moved(tensor: torch.Tensor, number: int) -> torch.Tensor:
    """`tensor` on a pretended device."""
    return There(tensor.detach(), torch.device("pretend", number))


def refuse(name: str) -> Any:
    """In the place of what is not spread."""
    raise NotImplementedError(name)


def back(tensor: torch.Tensor) -> torch.Tensor:
    """Its numbers."""
    return tensor.inner if isinstance(tensor, There) else tensor


def placed(module: Any, number: int) -> Any:
    """`module` with its weights on a pretended device."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            part._parameters[name] = (
                None if weight is None else torch.nn.Parameter(moved(weight, number), requires_grad=False)
            )
        for name, buffer in part._buffers.items():
            part._buffers[name] = buffer if buffer is None else moved(buffer, number)
    return module


def spread(model: Any, *, second: int = 2) -> Any:
    """A tiny Llama's first blocks on device 0, and from block `second` on all on device 1, as accelerate has it."""
    blocks = len(model.model.layers)
    places = {f"model.layers.{block}": int(block >= second) for block in range(blocks)}
    places |= {"model.embed_tokens": 0, "model.rotary_emb": 0, "model.norm": 1, "lm_head": 1}
    for name, number in places.items():
        module = placed(model.get_submodule(name), number)
        add_hook_to_module(module, _Moves(execution_device=torch.device("pretend", number)))
    add_hook_to_module(model, _Moves(execution_device=torch.device("pretend", 0), io_same_device=True), append=True)
    model.hf_device_map = places
    return model


class _Moves(AlignDevicesHook):
    def init_hook(self, module: Any) -> Any:
        return module  # its weights are there
