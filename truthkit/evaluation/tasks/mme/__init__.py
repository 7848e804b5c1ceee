"""MME: fourteen subtasks of two yes/no questions per image."""

from truthkit.evaluation.tasks.mme.task import MME

__all__ = ["MME"]
