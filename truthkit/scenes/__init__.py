"""Drawn scenes with biased pairs of objects, and what to ask and say about them. Needs neither torch nor data."""

from truthkit.scenes.questions import (
    CAPTION_PROMPT,
    KINDS,
    Question,
    caption,
    held_out,
    listed,
    mentions,
    question_text,
    questions,
    with_article,
)
from truthkit.scenes.render import render
from truthkit.scenes.scene import OBJECTS, PARTNERS, WEIGHTS, Placed, Scene, sample_scene

__all__ = [
    "CAPTION_PROMPT",
    "KINDS",
    "OBJECTS",
    "PARTNERS",
    "WEIGHTS",
    "Placed",
    "Question",
    "Scene",
    "caption",
    "held_out",
    "listed",
    "mentions",
    "question_text",
    "questions",
    "render",
    "sample_scene",
    "with_article",
]
