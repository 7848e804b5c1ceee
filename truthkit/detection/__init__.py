"""Detectors of false answers: a score for each answer, and for its tokens where a method has them.

A higher score means: more likely false. `truthkit.detection.detector` is the frame, each detector one module.
"""
