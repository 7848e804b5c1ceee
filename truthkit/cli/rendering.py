"""Answers and traces for people: side by side in a terminal, plain lines in a pipe.

Model output is data. It never becomes markup (it enters rich as `Text` only), nor does it reach the terminal as a
control sequence (`printable`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from truthkit.printable import printable as printable

if TYPE_CHECKING:
    from truthkit.cli.side_by_side import Shown
    from truthkit.generation.answers import Answer
    from truthkit.generation.explain import Candidate, Step

PART_MARK = "‖"
_NARROWEST_TABLE = 60
_NARROWEST_COLUMN = 36


def split_at_parting(tokenizer: Any, shown: Shown) -> tuple[str, str]:
    """The answer's printable text, up to where it parts from the first answer and from there on."""
    text = shown.answer.text
    if shown.parts_at is None:
        return printable(text), ""
    shared = tokenizer.decode(shown.answer.token_ids[: shown.parts_at], skip_special_tokens=True)
    pairs = enumerate(zip(text, shared, strict=False))
    cut = next((i for i, (one, other) in pairs if one != other), len(shared))  # a token may end within a character
    return printable(text[:cut]), printable(text[cut:])


def show_answers(console: Console, tokenizer: Any, question: str, answers: Sequence[Shown]) -> None:
    """Print one question's answers, in the widest form that fits `console`."""
    if not console.is_terminal or console.width < _NARROWEST_TABLE:
        _show_plainly(console, tokenizer, question, answers)
        return
    across = console.width >= len(answers) * _NARROWEST_COLUMN
    table = Table(
        title=Text(printable(question), style="bold"), title_justify="left", expand=True, show_lines=not across
    )
    bodies = [_highlighted(tokenizer, shown) for shown in answers]
    if across:
        for shown in answers:
            table.add_column(Text(shown.label), footer=Text(_figures(shown), style="dim"), ratio=1)
        table.show_footer = True
        table.add_row(*bodies)
    else:
        table.add_column("decoder", width=min(22, max(len(shown.label) for shown in answers)))
        table.add_column("answer", ratio=1)
        table.add_column("tokens/s", justify="right")
        table.add_column("parts at", justify="right")
        for shown, body in zip(answers, bodies, strict=True):
            table.add_row(Text(shown.label), body, _speed(shown.answer), _parting(shown))
    console.print(table)


_HEADS = ("view, and its layers", "nats", "its likeliest tokens, with their probabilities")
_LEGEND = """\
*              the token is not the main view's own choice
nats           what a view adds to the token's lead over that choice, above 0 towards the token; combined is the whole
               lead, before the plausibility constraint, interaction what of it no single view has
main exits 16  early exits of the main view, behind layer 16
%              a token's probability in the view, of several exits in their mean, combined after the constraint
"""


def show_trace_legend(console: Console) -> None:
    """Print what the lines of `show_trace` say, and in which units."""
    console.print(Text(_LEGEND, style="dim"), soft_wrap=True)


def show_trace(console: Console, label: str, steps: Sequence[Step], share: float | None = None) -> None:
    """Print a trace: for each token the views' top candidates, marked where the choice is not the main view's own.

    `share` is that of the steps in which a gate fired, where there is one.
    """
    pushed = sum(step.pushed_by is not None for step in steps)
    tokens, are = "token" if len(steps) == 1 else "tokens", "is" if pushed == 1 else "are"
    title = f"{label}, token by token: {pushed} of {len(steps)} {tokens} {are} not the main view's choice"
    title += "" if share is None else f"; the gate fired in {share:.0%} of the steps"
    console.print(Text(title, style="bold"), soft_wrap=True)
    console.print(Text(f"       {_HEADS[0]:<24} {_HEADS[1]:>7}  {_HEADS[2]}", style="dim underline"), soft_wrap=True)
    for number, step in enumerate(steps, start=1):
        line = Text(f"{number:4} {'*' if step.pushed_by else ' '} {quoted(step.token)}")
        if step.pushed_by:
            line.stylize("bold yellow")
            line.append(f"  instead of {quoted(step.main_choice.token)}, pushed by {step.pushed_by}")
        console.print(line, soft_wrap=True)
        for view in step.views:
            name = f"{view.name} {_ranges(view.layers)}" if view.layers else view.name
            push = f"{view.contribution:+.2f}" if view.contribution is not None else ""
            console.print(_candidate_line(name, push, view.candidates), soft_wrap=True)
        if len(step.views) > 1:
            if step.interaction:
                console.print(_candidate_line("interaction", f"{step.interaction:+.2f}", ()), soft_wrap=True)
            lead = "" if step.lead is None else f"{step.lead:+.2f}"
            console.print(_candidate_line("combined", lead, step.combined), soft_wrap=True)
    console.print()


def quoted(token: str) -> str:
    """A token on one line, with its spaces visible."""
    return "'" + printable(token).replace("\n", "\\n").replace("\t", "\\t") + "'"


@contextmanager
def working(message: str) -> Iterator[None]:
    """Say on a terminal's standard error what takes long."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(message):
        yield


def _show_plainly(console: Console, tokenizer: Any, question: str, answers: Sequence[Shown]) -> None:
    lines = [printable(question), ""]
    for shown in answers:
        shared, own = split_at_parting(tokenizer, shown)
        mark = "" if shown.parts_at is None else PART_MARK
        lines += [f"{shown.label}  [{_figures(shown)}]", f"{shared}{mark}{own}{_ending(shown.answer)}", ""]
    console.print(Text("\n".join(lines)), soft_wrap=True)


def _highlighted(tokenizer: Any, shown: Shown) -> Text:
    shared, own = split_at_parting(tokenizer, shown)
    return Text.assemble(shared, (own, "yellow"), (_ending(shown.answer), "dim"))


def _ending(answer: Answer) -> str:
    return "" if answer.finished else " …"


def _figures(shown: Shown) -> str:
    parting = _parting(shown)
    return f"{_speed(shown.answer)} tokens/s" + (f", parts at {parting}" if parting else "")


def _speed(answer: Answer) -> str:
    return "–" if answer.tokens_per_second is None else f"{answer.tokens_per_second:.1f}"


def _parting(shown: Shown) -> str:
    return "" if shown.parts_at is None else f"token {shown.parts_at + 1}"


def _candidate_line(name: str, push: str, candidates: Sequence[Candidate]) -> Text:
    best = "  ".join(f"{quoted(candidate.token)} {candidate.probability:.1%}" for candidate in candidates)
    return Text(f"       {name:<24} {push:>7}  {best}", style="dim")


def _ranges(layers: Sequence[int]) -> str:
    if len(layers) > 3:
        return f"{layers[0]}..{layers[-1]}"
    return "+".join(map(str, layers))
