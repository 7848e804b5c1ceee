"""Several processes on one extraction, training or run, started by `accelerate launch` or torchrun."""

from __future__ import annotations

import os
import warnings

import torch

_WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where torchrun and the MPI launchers say how many processes there are."""


class Shards:
    """The place of this process among its peers; alone, number 0 of 1."""

    def __init__(self) -> None:
        self.index, self.count = 0, 1
        self._device = torch.device("cpu")
        if any(int(os.environ.get(name, "1")) > 1 for name in _WORLD_SIZES):
            from accelerate import PartialState

            # Without cpu=True it would take a machine without GPU for a single process.
            state = PartialState(cpu=not torch.cuda.is_available())
            self.index, self.count = state.process_index, state.num_processes
            self._device = state.device if torch.distributed.get_backend() == "nccl" else self._device
        elif {"ACCELERATE_USE_CPU", "MASTER_PORT"} <= set(os.environ) and "WORLD_SIZE" not in os.environ:
            warnings.warn(
                "`accelerate launch --cpu` has started one process only: it starts several by --mpirun_hostfile. "
                "`torchrun --nproc_per_node N` does without MPI.",
                stacklevel=1,
            )

    def gathered(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Every process's tensor of that shape, in the order of the processes, on the CPU."""
        tensor = tensor.to(self._device)
        parts = [torch.empty_like(tensor) for _ in range(self.count)]
        torch.distributed.all_gather(parts, tensor)
        return [part.cpu() for part in parts]

    def sum_into(self, tensor: torch.Tensor) -> None:
        """Replace `tensor`, which lies where the processes exchange tensors, by the sum of all processes' tensors."""
        if self.count > 1:
            torch.distributed.all_reduce(tensor)

    def summed(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of all processes' tensors."""
        tensor = tensor.to(self._device)
        self.sum_into(tensor)
        return tensor

    def any(self, mine: bool) -> bool:
        """Whether it is so in any process."""
        if self.count == 1:
            return mine
        flag = torch.tensor(int(mine), device=self._device)
        torch.distributed.all_reduce(flag)
        return bool(flag)

    def wait(self) -> None:
        """Go on when all are here."""
        if self.count > 1:
            torch.distributed.barrier()


def place() -> tuple[int, int]:
    """The number of this process and how many there are, as launchers say; nothing is started for it."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
