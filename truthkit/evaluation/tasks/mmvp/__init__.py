"""MMVP: pairs of images that CLIP takes for alike, with one question on both."""

from truthkit.evaluation.tasks.mmvp.task import MMVP

__all__ = ["MMVP"]
