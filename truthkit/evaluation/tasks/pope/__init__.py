"""POPE: is an object in the image, yes or no."""

from truthkit.evaluation.tasks.pope.task import POPE

__all__ = ["POPE"]
