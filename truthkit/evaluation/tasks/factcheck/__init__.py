"""Fact-checking: verdicts on claims, and explanations."""
