"""CHAIR: the objects that a caption invents."""

from truthkit.evaluation.tasks.chair.task import CHAIR

__all__ = ["CHAIR"]
