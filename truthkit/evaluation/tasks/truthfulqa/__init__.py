"""TruthfulQA: multiple choice, and written answers."""

from truthkit.evaluation.tasks.truthfulqa.task import TRUTHFULQA
from truthkit.evaluation.tasks.truthfulqa.task_written import TRUTHFULQA_GENERATION

__all__ = ["TRUTHFULQA", "TRUTHFULQA_GENERATION"]
