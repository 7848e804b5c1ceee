"""Intervals, paired tests, and scores as functions of totals."""
