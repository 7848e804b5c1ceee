"""Fact-checking: a verdict on each claim, and an explanation."""

from truthkit.evaluation.tasks.factcheck.task import FACTCHECK

__all__ = ["FACTCHECK"]
