"""FACTOR: is the true completion of a text likelier than three false ones."""

from truthkit.evaluation.tasks.factor.task import FACTOR

__all__ = ["FACTOR"]
