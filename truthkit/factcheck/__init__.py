"""Fact-checking and REFLEX: claims, dialogues, verdicts, style and substance vectors, explanations."""
