"""Detection: how well a score tells false answers from right ones, against what their length alone tells."""

from truthkit.evaluation.tasks.detect.task import DETECT

__all__ = ["DETECT"]
