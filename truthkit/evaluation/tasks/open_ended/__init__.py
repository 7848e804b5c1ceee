"""Open-ended continuation: repetition, diversity and coherence."""

from truthkit.evaluation.tasks.open_ended.task import OPEN_ENDED

__all__ = ["OPEN_ENDED"]
