"""What Inspect reads at its start (entry point `inspect_ai`): the name, and where the rest is once it is asked for."""

from __future__ import annotations

from inspect_ai.model import ModelAPI, modelapi


@modelapi(name="truthkit")
def truthkit() -> type[ModelAPI]:
    """The provider `truthkit/MODEL`."""
    from truthkit.inspect_ai.provider import TruthkitAPI

    return TruthkitAPI
