"""HaluEval's questions: does a model tell a right answer from a hallucinated one."""

from truthkit.evaluation.tasks.halueval.task import HALUEVAL

__all__ = ["HALUEVAL"]
