"""POPE: is this object in the image; the scorer, the sampler, the task."""
