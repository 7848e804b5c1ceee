"""MemoTrap: does a model do as it is told where that leads away from a text known by heart."""

from truthkit.evaluation.tasks.memotrap.task import MEMOTRAP

__all__ = ["MEMOTRAP"]
