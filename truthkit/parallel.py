"""Several processes on one extraction, started by `accelerate launch` or torchrun: each reads some of the batches."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from truthkit.activations.moments import Moments
from truthkit.activations.spool import Spool

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

    def _gathered(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        tensor = tensor.to(self._device)
        parts = [torch.empty_like(tensor) for _ in range(self.count)]
        torch.distributed.all_gather(parts, tensor)
        return [part.cpu() for part in parts]

    def merged(self, mine: Moments) -> Moments:
        """All processes' moments, the same in every process: merged in the order of the processes."""
        counts = self._gathered(torch.tensor(mine.count))
        means = self._gathered(mine.mean)
        scatters = [None] * self.count if mine.scatter is None else self._gathered(mine.scatter)
        total = Moments(*mine.mean.shape, scatter=mine.scatter is not None)
        for count, mean, scatter in zip(counts, means, scatters, strict=True):
            part = Moments(0, 0)
            part.count, part.mean, part.scatter = int(count), mean, scatter
            total.merge(part)
        return total

    @contextmanager
    def summed(self, mine: Spool) -> Iterator[Spool]:
        """All processes' states: each has written its own rows, and zeros elsewhere."""
        with tempfile.TemporaryDirectory(prefix="truthkit-") as folder:
            first = mine.read(0)
            whole = Spool(Path(folder) / "states.bin", mine.layers, mine.rows, mine.features, first.dtype)
            for layer in range(mine.layers):
                states = mine.read(layer).to(self._device)
                torch.distributed.all_reduce(states)
                whole.write_layer(layer, states)
            try:
                yield whole
            finally:
                whole.close()
