"""Models of which each process holds a part: by tensor parallelism, or by FSDP2's `fully_shard`.

Both keep their weights as DTensors. Under tensor parallelism a layer computes with its part, and what it takes or gives
may be a part too; under FSDP2 the whole weights are brought together for as long as a layer runs, and every process
must run as many forwards as the others.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeGuard

import torch
from torch import nn

from truthkit.errors import ModelError
from truthkit.parallel import Shards

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor


WAITING = (
    "a processor's forwards end with its own rows, and the other processes would wait for more; use `with "
    "{}(model, ...):` instead."
)
"""Why no processor that runs the model goes with FSDP2."""


_PLACES: weakref.WeakKeyDictionary[nn.Module, Shards] = weakref.WeakKeyDictionary()


def is_spread(model: nn.Module) -> bool:
    """Whether several processes hold `model` together, so that all of them must run it alike.

    Raises:
        ModelError: each has some of its layers alone.
    """
    refuse_pipelines(model)
    return is_fully_sharded(model) or any(True for _ in _shardings(model))


def is_fully_sharded(model: nn.Module) -> bool:
    """Whether weights of `model` are FSDP2's, which each process gathers at every forward."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return False
    from torch.distributed.fsdp import FSDPModule

    return any(isinstance(module, FSDPModule) for module in model.modules())


def refuse_pipelines(model: Any) -> None:
    """Raises:
    ModelError: each process has some of the layers of `model` alone (transformers' pipeline parallelism).
    """
    distribution: Any = getattr(getattr(model, "config", None), "distributed_config", None)
    if (size := getattr(distribution, "pp_size", None)) is not None and size > 1:
        raise ModelError(
            f"{type(model).__name__} was loaded with pp_size={size}, so no process has all of its layers to act on; "
            'load it with tp_plan="auto".'
        )


def refuse_fully_sharded(model: nn.Module, what: str) -> None:
    """Raise if the weights of `model` are FSDP2's.

    Args:
        model: the plain model.
        what: what cannot be done with it, and what can instead.

    Raises:
        ModelError: they are.
    """
    if is_fully_sharded(model):
        raise ModelError(f"the weights of {type(model).__name__} are sharded by fully_shard (FSDP2): {what}")


def shards(model: nn.Module) -> Shards:
    """The place of this process among those that share work; the ones that together hold `model` count as one."""
    if not is_spread(model):
        return Shards()
    if (known := _PLACES.get(model)) is None:  # to find it all processes must ask
        known = _PLACES[model] = Shards(None if is_fully_sharded(model) else _group(model), together=True)
    return known


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor, of which the processes may hold parts; then all of them must ask for it."""
    return tensor.full_tensor() if _is_dtensor(tensor) else tensor


def here(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that this process holds; mostly all of it."""
    return tensor.to_local() if _is_dtensor(tensor) else tensor


def like(weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """`bias`, (out,), spread over the processes as the outputs of a linear layer with `weight`, (out, in), are."""
    if not _is_dtensor(weight):
        return bias
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    placements = [Shard(0) if one == Shard(0) else Replicate() for one in weight.placements]
    return distribute_tensor(bias, weight.device_mesh, placements, src_data_rank=None)


class Split(NamedTuple):
    """How a linear layer lies over the processes.

    Attributes:
        by: its input features, so that parts of its outputs are summed, or its output features.
        mesh: of the processes, in one dimension.
    """

    by: Literal["in", "out"]
    mesh: DeviceMesh

    def part(self, states: torch.Tensor, dim: int = -1) -> torch.Tensor:
        """The part of `states` along one dimension that is this process's."""
        width = states.shape[dim]
        size = -(-width // self.mesh.size())
        start = min(self.mesh.get_local_rank() * size, width)
        return states.narrow(dim, start, min(size, width - start))

    def gathered(self, states: torch.Tensor, width: int) -> torch.Tensor:
        """All processes' parts of the last dimension, which is `width` in all, one behind the other."""
        from torch.distributed.tensor import DTensor, Shard

        shape = torch.Size([*states.shape[:-1], width])
        stride = torch.empty(shape, device="meta").stride()
        placed = DTensor.from_local(
            states.contiguous(), self.mesh, [Shard(states.dim() - 1)], run_check=False, shape=shape, stride=stride
        )
        return placed.full_tensor()

    def summed(self, states: torch.Tensor) -> torch.Tensor:
        """The sum of all processes' `states`."""
        states = states.contiguous()
        torch.distributed.all_reduce(states, group=self.mesh.get_group())
        return states


def split_of(module: nn.Module) -> Split | None:
    """How a layer is split by tensor parallelism; None where it is whole.

    Raises:
        ModelError: it is split otherwise than by its inputs or its outputs.
    """
    weight = getattr(getattr(module, "base_layer", module), "weight", None)
    if not _is_dtensor(weight):
        return None
    dims = [dim for dim, place in enumerate(weight.placements) if not place.is_replicate()]
    if not dims:
        return None
    from torch.distributed.tensor import Shard

    place, mesh = weight.placements[dims[0]], weight.device_mesh
    if len(dims) > 1 or type(place) is not Shard or weight.dim() != 2:
        raise ModelError(
            f"{type(module).__name__} is spread over processes by {tuple(weight.placements)}, and only layers split by "
            "their inputs or by their outputs can be worked on; load the model without tp_plan."
        )
    axis = mesh if mesh.ndim == 1 else mesh[(mesh.mesh_dim_names or ())[dims[0]]]
    return Split("out" if place.dim % 2 == 0 else "in", axis)


def _is_dtensor(tensor: object) -> TypeGuard[DTensor]:
    if type(tensor) in (torch.Tensor, nn.Parameter) or "torch.distributed.tensor" not in sys.modules:
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def _shardings(model: nn.Module) -> Iterator[tuple[DeviceMesh, int]]:
    """The mesh, and its dimension, of every weight of which processes hold parts."""
    for parameter in model.parameters():
        if _is_dtensor(parameter):
            mesh = parameter.device_mesh
            for dim, place in enumerate(parameter.placements):
                if not place.is_replicate() and mesh.size(dim) > 1:
                    yield mesh, dim


def _group(model: nn.Module) -> ProcessGroup:
    """Of the processes that hold `model` together.

    Raises:
        ModelError: its weights are spread over several groups, as with expert parallelism beside tensor parallelism.
    """
    groups = {mesh.get_group(dim) for mesh, dim in _shardings(model)}
    if len(groups) > 1:
        raise ModelError(
            f"the weights of {type(model).__name__} are spread over {len(groups)} groups of processes; load it with "
            "tp_plan alone."
        )
    return groups.pop()
