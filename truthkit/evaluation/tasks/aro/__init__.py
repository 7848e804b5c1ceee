"""ARO: is the true caption of an image likelier than one with its relation, attributes or order changed."""

from truthkit.evaluation.tasks.aro.task import ARO

__all__ = ["ARO"]
