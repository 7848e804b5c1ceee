"""Several processes on one extraction, training or run, started by `accelerate launch` or torchrun."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where torchrun and the MPI launchers say how many processes there are."""


class Shards:
    """The place of this process among its peers; alone, number 0 of 1.

    Processes that together hold one model do the same work, and count as one.

    Args:
        group: of those that hold a model together with this one, None being all of them.
        together: whether there are such ones.

    Attributes:
        index, count: the share of the work, and how many there are.
        processes: how many processes there are.
        speaks: whether this one writes what comes out, being the first of its share.
    """

    def __init__(self, group: ProcessGroup | None = None, *, together: bool = False) -> None:
        self.index, self.count, self.processes, self.speaks = 0, 1, 1, True
        self._group = group
        self._device = torch.device("cpu")
        if together:
            self._join()
        elif any(int(os.environ.get(name, "1")) > 1 for name in _WORLD_SIZES):
            from accelerate import PartialState

            # Without cpu=True it would take a machine without GPU for a single process.
            state = PartialState(cpu=not torch.cuda.is_available())
            self.index, self.count = state.process_index, state.num_processes
            self.processes = self.count
            self._device = state.device if torch.distributed.get_backend() == "nccl" else self._device
        elif {"ACCELERATE_USE_CPU", "MASTER_PORT"} <= set(os.environ) and "WORLD_SIZE" not in os.environ:
            warnings.warn(
                "`accelerate launch --cpu` has started one process only: it starts several by --mpirun_hostfile. "
                "`torchrun --nproc_per_node N` does without MPI.",
                stacklevel=1,
            )

    def _join(self) -> None:
        """Take a place among processes that have met already, and count those of each group as one."""
        self.index, self.processes = torch.distributed.get_rank(), torch.distributed.get_world_size()
        if "nccl" in torch.distributed.get_backend():
            self._device = torch.device("cuda", torch.cuda.current_device())
        first = torch.distributed.get_global_rank(self._group, 0) if self._group is not None else 0
        firsts = sorted({int(one) for one in self.gathered(torch.tensor(first))})
        self.speaks = self.index == first
        self.index, self.count = firsts.index(first), len(firsts)

    def agreed(self, number: int) -> int:
        """What the first process of those that hold the model with this one says."""
        if self.count == self.processes:
            return number
        said = torch.tensor(number, device=self._device)
        first = torch.distributed.get_global_rank(self._group, 0) if self._group is not None else 0
        torch.distributed.broadcast(said, first, group=self._group)
        return int(said)

    def gathered(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Every process's tensor of that shape, in the order of the processes, on the CPU."""
        tensor = tensor.to(self._device)
        parts = [torch.empty_like(tensor) for _ in range(self.processes)]
        torch.distributed.all_gather(parts, tensor)
        return [part.cpu() for part in parts]

    def sum_into(self, tensor: torch.Tensor) -> None:
        """Replace `tensor`, which lies where the processes exchange tensors, by the sum of all processes' tensors."""
        if self.processes > 1:
            torch.distributed.all_reduce(tensor)

    def summed(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of all processes' tensors."""
        tensor = tensor.to(self._device)
        self.sum_into(tensor)
        return tensor

    def any(self, mine: bool) -> bool:
        """Whether it is so in any process."""
        if self.processes == 1:
            return mine
        flag = torch.tensor(int(mine), device=self._device)
        torch.distributed.all_reduce(flag)
        return bool(flag)

    def meet(self) -> None:
        """Go on when those that hold the model with this one are here."""
        if self.count < self.processes:
            torch.distributed.barrier(group=self._group)

    def wait(self) -> None:
        """Go on when all are here."""
        if self.processes > 1:
            torch.distributed.barrier()


def place() -> tuple[int, int]:
    """The number of this process and how many there are, as launchers say; nothing is started for it."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
