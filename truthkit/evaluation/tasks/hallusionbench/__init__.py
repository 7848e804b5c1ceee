"""HallusionBench: yes/no questions on figures, on edited figures, and on none."""

from truthkit.evaluation.tasks.hallusionbench.task import HALLUSIONBENCH

__all__ = ["HALLUSIONBENCH"]
