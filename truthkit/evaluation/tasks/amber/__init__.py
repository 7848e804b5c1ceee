"""AMBER: descriptions without inventions, and yes/no questions about objects, attributes and relations."""

from truthkit.evaluation.tasks.amber.task import AMBER

__all__ = ["AMBER"]
