"""Questions about a passage that contradicts what a model remembers: does it answer as the passage says."""

from truthkit.evaluation.tasks.context_qa.task import CONTEXT_QA

__all__ = ["CONTEXT_QA"]
