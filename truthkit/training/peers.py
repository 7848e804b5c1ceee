"""Several processes on one training: each runs some rows of every step, and all sum their gradients."""

from __future__ import annotations

import torch

from truthkit.parallel import Shards


class Peers(Shards):
    """The place of this process among those that torchrun or `accelerate launch` started; alone, number 0 of 1."""

    def sum_into(self, tensor: torch.Tensor) -> None:
        """Replace `tensor` by the sum of all processes' tensors."""
        if self.count > 1:
            torch.distributed.all_reduce(tensor)

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
