"""Steering vectors: extracted from contrast pairs, kept with their provenance, applied in every mode of `generate`."""

from truthkit.steering.extraction.extract import extract
from truthkit.steering.extraction.pairs import Pair, read_pairs
from truthkit.steering.steer import Steering
from truthkit.steering.vector import SteeringVector, stacked

__all__ = ["Pair", "Steering", "SteeringVector", "extract", "read_pairs", "stacked"]
