"""Several copies of a model, each held by some of the processes together."""

from __future__ import annotations

from dataclasses import dataclass

from transformers.distributed.configuration_utils import DistributedConfig


@dataclass(repr=False)
class Copies(DistributedConfig):
    """`dp_replicate_size` copies that know nothing of each other; transformers would have FSDP keep them alike."""

    @property
    def dp_size(self) -> int:
        """As of one copy alone."""
        return 1
