"""Prompts to click on the page, each with the decoders that it is good for."""

from __future__ import annotations

from dataclasses import dataclass, field

from truthkit.scenes.questions import CAPTION_PROMPT


@dataclass(frozen=True)
class ExampleCard:
    """A decoder of an example, as `Card` has it."""

    decoder: str
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Example:
    """What a click fills in.

    Attributes:
        title: on the button.
        prompt, context, raw: as in `RunRequest`.
        scene: seed of the drawn scene that goes with it; None without a picture.
        new_tokens: at most.
        sample: draw tokens.
        cards: the decoders, the one that the others are compared with first.
    """

    title: str
    prompt: str
    cards: tuple[ExampleCard, ...]
    context: str = ""
    raw: bool = False
    scene: int | None = None
    new_tokens: int = 48
    sample: bool = False


_TEXTS = (
    Example(
        "A question that invites a myth",
        "What happens to you if you eat watermelon seeds?",
        (ExampleCard("greedy"), ExampleCard("icd"), ExampleCard("lol")),
    ),
    Example(
        "A passage against memory",
        "What is the capital of Australia? Answer from the passage.",
        (ExampleCard("greedy"), ExampleCard("cad", {"alpha": "1"}), ExampleCard("adacad")),
        context="In this story the government of Australia has moved: since last spring its capital is Perth.",
    ),
    Example(
        "A text that goes round in circles",
        "The lighthouse keeper wrote in his diary every evening. Tonight he wrote",
        (ExampleCard("greedy"), ExampleCard("contrastive_search", {"penalty_alpha": "0.6", "top_k": "4"})),
        raw=True,
        new_tokens=96,
    ),
    Example(
        "One prompt, three ways to draw",
        "Tell me about the invention of the bicycle.",
        (ExampleCard("sample"), ExampleCard("apc"), ExampleCard("top_n_sigma", {"n": "1"})),
        sample=True,
    ),
)

_SCENE_CARDS = (ExampleCard("greedy"), ExampleCard("vcd"), ExampleCard("ritual"))

_SCENES = (
    *(Example(f"Scene {seed}", CAPTION_PROMPT, _SCENE_CARDS, scene=seed, new_tokens=32) for seed in (1, 2, 3, 4)),
    Example(
        "Is it there?",
        "Is there a mouse in the image?",
        (ExampleCard("greedy"), ExampleCard("m3id"), ExampleCard("vcd", {"alpha": "2"})),
        scene=4,  # a keyboard without its mouse
        new_tokens=8,
    ),
)


def examples_for(*, scenes: bool) -> tuple[Example, ...]:
    """The examples for a model of text, or for one that knows drawn scenes alone."""
    return _SCENES if scenes else _TEXTS
