"""truthkit-vllm has formulas and options of its own, as it is installed without truthkit: they are truthkit's."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.conftest import ROOT
from tests.each import each
from truthkit.decoding.discovery import decoder_class
from truthkit.decoding.engine import early_exits
from truthkit.decoding.engine.arithmetic import plausible
from truthkit.decoding.engine.view import ViewLogits
from truthkit.decoding.spec import options_of, parse_spec

WRITTEN = (
    "dola",
    "dola:layers=low,beta=0,norm=false",
    "dola:layers=3+1+-2",
    "sled",
    "sled:layers=high,evolution_rate=2.5,evolution_scale=500,steps=1,evolution_lower_bound=-7,norm=True",
    "sled:evolution_rate=0,evolution_scale=1",
    "deco",
    "deco:layers=none,alpha=-1.5,top_p=0.3",
    "deco:layers=all,top_p=1,top_k=500,norm=false",
    "deco:top_p=1,top_k=0",
    "cad:alpha=1.5,beta=0.2",
    "icd:lam=0.5,beta=0",
    "icd:amateur=prompt",
)
ELSEWHERE = {"icd": {"amateur_prompt"}}
"""Options that a request has in vLLM, not the decoder."""


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package's modules that need neither vLLM nor an engine."""
    folder = ROOT / "integrations" / "vllm"
    if not folder.is_dir():
        pytest.skip("integrations/vllm is not in this checkout")
    monkeypatch.syspath_prepend(folder)
    return SimpleNamespace(
        **{name: importlib.import_module(f"truthkit_vllm.{name}") for name in ("layers", "scores", "spec")}
    )


def logits(*shape: int, seed: int, dtype: torch.dtype) -> torch.Tensor:
    """Some tame, some of an exit without norm, all but certain of one token."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(*shape, generator=generator, dtype=torch.float64) * 4
    made[..., ::2, :] *= 25
    return made.to(dtype)


@each("written, dtype", [(written, dtype) for written in WRITTEN for dtype in (torch.float32, torch.float64)])
def test_scores(vllm: Any, written: str, dtype: torch.dtype) -> None:
    name, options = vllm.spec.decoder(written)
    defaults = {key: parameter.default for key, parameter in options_of(name).items()}
    theirs = SimpleNamespace(**defaults | parse_spec(written).options)
    formula = {key: value for key, value in options.items() if key not in ("layers", "norm", "amateur")}
    main, other, exits = (logits(*shape, 6, 101, seed=i, dtype=dtype) for i, shape in enumerate([(), (), (5,)]))
    main[:, 7] = -torch.inf  # a token that the model's head rules out
    if name in vllm.spec.EXITS:
        found = getattr(vllm.scores, name)(main, exits, **formula)
        views = [ViewLogits(main[:, None], exits[:, :, None])]
    else:
        found = getattr(vllm.scores, name)(main, other, **formula)
        views = [ViewLogits(main[:, None]), ViewLogits(other[:, None])]
    combined = decoder_class(name).combine(theirs, *views)  # type: ignore[arg-type]
    torch.testing.assert_close(found, plausible(combined, main[:, None], getattr(theirs, "beta", 0.0))[:, 0])


def test_options(vllm: Any) -> None:
    for name, known in vllm.spec.DECODERS.items():
        wanted = {key: one.default for key, one in options_of(name).items() if key not in ELSEWHERE.get(name, ())}
        assert known.defaults == wanted
        assert known.readers.keys() == wanted.keys()


@pytest.mark.parametrize("written", WRITTEN)
def test_options_are_read_alike(vllm: Any, written: str) -> None:
    name, options = vllm.spec.decoder(written)
    for key, value in parse_spec(written).options.items():
        assert options[key] == (tuple(value) if isinstance(value, list) else value), (name, key)


def test_layers(vllm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for count in range(2, 100):
        monkeypatch.setattr(early_exits, "decoder_blocks", lambda _model, count=count: range(count))
        names: list[str | Sequence[int]] = ["low", "high", "all", (0, -1, 0)]
        for name in names:
            assert vllm.layers.exit_layers(name, count) == early_exits.named_layers(None, name)
        assert vllm.layers.exit_layers(None, count) == early_exits.layers_at_depth(None, 20 / 32, 28 / 32, 9)
