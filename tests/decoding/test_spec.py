"""Decoders written as text."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pytest

import truthkit as tk
from tests.each import each
from tests.tiny import tiny
from truthkit.decoding.discovery import PLAIN, decoder_class, decoders
from truthkit.decoding.engine.controls import Control
from truthkit.decoding.engine.registry import FROM_PROMPT
from truthkit.decoding.spec import parse_spec, spec_of


@each(
    ("text", "name", "options"),
    [
        ("greedy", "greedy", {}),
        (" dola ", "dola", {}),
        ("lol:", "lol", {}),
        (
            "lol:omega=0.5,layers=14+18+22,refocus=true",
            "lol",
            {"omega": 0.5, "layers": [14, 18, 22], "refocus": True},
        ),
        ("dola:layers=-3, beta=1", "dola", {"layers": [-3], "beta": 1.0}),
        ("dola:layers=low,norm=False", "dola", {"layers": "low", "norm": False}),
        ("lol:refocus=none,dynamic=true", "lol", {"refocus": None, "dynamic": True}),
        ("lol:refocus=Be exact, be brief.,lam=2", "lol", {"refocus": "Be exact, be brief.", "lam": 2.0}),
        ("icd:amateur=some/folder,amateur_prompt=Lie", "icd", {"amateur": "some/folder", "amateur_prompt": "Lie"}),
        ("contrastive_search:top_k=8,penalty_alpha=0.4", "contrastive_search", {"top_k": 8, "penalty_alpha": 0.4}),
        ("cad:alpha=1", "cad", {"alpha": 1.0}),
        ("ritual:transform=crop", "ritual", {"transform": "crop"}),
        ("ritual:transform=crop+rotation,alpha=2", "ritual", {"transform": ["crop", "rotation"], "alpha": 2.0}),
        (
            'icd:amateur_prompt="Lie, lam=2, and +dola.",lam=1',
            "icd",
            {"amateur_prompt": "Lie, lam=2, and +dola.", "lam": 1.0},
        ),
        ('lol:refocus="Say \\"so\\"."', "lol", {"refocus": 'Say "so".'}),
        ('lol:refocus="So" he said', "lol", {"refocus": '"So" he said'}),
        ("m3id+vcd:noise_step=900", "m3id+vcd", {"m3id": {}, "vcd": {"noise_step": 900}}),
        ("lol:layers=1+2+dola", "lol+dola", {"lol": {"layers": [1, 2]}, "dola": {}}),
        ("vcd:alpha=1+vcd:alpha=2", "vcd+vcd", {"vcd": {"alpha": 1.0}, "vcd 2": {"alpha": 2.0}}),
        ("dola + cad + dola:beta=0", "dola+cad+dola", {"dola": {}, "cad": {}, "dola 2": {"beta": 0.0}}),
    ],
)
def test_names_and_converted_options(text: str, name: str, options: dict[str, Any]) -> None:
    spec = parse_spec(text)
    assert (spec.text, spec.name, spec.options) == (text.strip(), name, options)
    assert all(type(spec.options[key]) is type(value) for key, value in options.items())


@each("name", decoders())
def test_every_default_reads_back_as_itself(name: str) -> None:
    """No option of any decoder has an annotation that text cannot reach; but for amateur no text stands for None."""
    defaults = {
        parameter.name: parameter.default
        for parameter in inspect.signature(decoder_class(name)).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in FROM_PROMPT | {"amateur"}
    }
    assert {option: parse_spec(f"{name}:{option}={default}").options for option, default in defaults.items()} == {
        option: {option: default} for option, default in defaults.items()
    }


@each(
    ("text", "parts"),
    [
        ("LOL", ["no decoder 'LOL' (did you mean 'lol'?)", *PLAIN, *decoders()]),
        ("", ["no decoder ''", *PLAIN, *decoders()]),
        ("contrastive-search", ["(did you mean 'contrastive_search'?)"]),
        ("lol:omga=1", ["no option 'omga' (did you mean 'omega'?)", "amateur, amateur_prompt, layers, dynamic"]),
        ("cad:context=x", ["no option 'context'", "alpha, beta"]),
        ("greedy:beta=1", ["no option 'beta'; it has no options"]),
        ("dola:beta", ["'beta' of decoder 'dola' has no value; write beta=VALUE"]),
        ("dola:beta=", ["has no value"]),
        ("dola:beta=0.1,beta=0.2", ["'beta' of decoder 'dola' is given twice"]),
        ("dola:beta=high", ["'beta' of decoder 'dola' is 'high'; expected a number"]),
        ("dola:norm=1", ["expected true or false"]),
        ("contrastive_search:top_k=4.5", ["expected an integer"]),
        (
            "dola:layers=lo",
            ["'layers' of decoder 'dola' is 'lo'; expected 'low' or 'high' or 'all' or integers joined by +"],
        ),
        ("dola:beta=2", ["beta is 2.0; the plausibility constraint"]),
        ("cad+lol:beta=-0.1", ["beta is -0.1"]),
        ("icd:lam=nan", ["'lam' of decoder 'icd' is 'nan'; expected a number"]),
        ("dola+vdc", ["no decoder 'vdc' (did you mean 'vcd'?)"]),
    ],
)
def test_errors_name_what_is_accepted(text: str, parts: Sequence[str]) -> None:
    with pytest.raises(tk.ArgumentError) as caught:
        parse_spec(text)
    for part in parts:
        assert part in str(caught.value)


def test_build_binds_options_and_what_the_caller_supplies() -> None:
    model = tiny("llama")
    decoder = parse_spec("dola:layers=0+2,beta=0.3").build(model, None)
    assert isinstance(decoder, tk.DoLa)
    assert (decoder.layers, decoder.beta) == ((0, 2), 0.3)
    assert parse_spec("contrastive_search").build(model, None, top_k=7).top_k == 7  # type: ignore[attr-defined]
    assert isinstance(parse_spec("greedy").build(model, None), nullcontext)


def test_what_a_decoder_takes() -> None:
    taken = {name for name in (*PLAIN, *decoders()) if parse_spec(name).takes("amateur")}
    assert taken == {"icd", "lol"}
    assert parse_spec("cad").takes("context")


def test_values_out_of_range_are_refused_in_the_decoders_own_words() -> None:
    with pytest.raises(tk.ArgumentError) as of_decoder:
        tk.DoLa(tiny("llama"), beta=2.0)
    with pytest.raises(tk.ArgumentError) as of_spec:
        parse_spec("dola:beta=2")
    assert str(of_spec.value) == str(of_decoder.value)


@each(
    ("name", "options"),
    [
        ("icd", {"amateur_prompt": "Lie, beta=1, and lie."}),
        ("icd", {"amateur_prompt": 'Say "so", lam=0.'}),
        ("icd", {"amateur_prompt": '"Lie"'}),
        ("icd", {"amateur_prompt": "as greedy+dola does", "lam": "2"}),
        ("lol", {"refocus": "Two\nlines, dynamic=true", "layers": "1+2"}),
        ("ritual", {"transform": "crop+rotation"}),
    ],
)
def test_what_was_read_is_written_as_it_reads_back(name: str, options: dict[str, str]) -> None:
    spec = spec_of(name, options)
    assert parse_spec(spec.text) == spec
    both = parse_spec(f"{spec.text}+apc")
    assert [part.options for part in both.parts] == [spec.options, {}]
    assert parse_spec(both.text) == both


def test_controls() -> None:
    """Of one decoder its class's; of several all, the strictest constraint once."""
    names = {control.name: control.decoder for control in parse_spec("dola:beta=0.2").controls()}
    assert names == {"greedy": "greedy", "sampling": "greedy", "constraint-alone": "apc:beta=0.2"}
    assert parse_spec("greedy").controls() == parse_spec("sample").controls() == [Control("greedy", "greedy")]
    for text in ("dola:beta=0.05+icd:beta=0.3", "icd:beta=0.3+dola:beta=0.05"):
        (alone,) = (control for control in parse_spec(text).controls() if control.name == "constraint-alone")
        assert alone.decoder == "apc:beta=0.3"
    assert "constraint-alone" not in {control.name for control in parse_spec("dola:beta=0").controls()}
    for control in parse_spec("ritual+vcd").controls():
        parse_spec(control.decoder)


def test_sum_of_decoders() -> None:
    model = tiny("llama")
    spec = parse_spec("dola:layers=low+dola:layers=high,beta=0.3")
    both = spec.build(model, None)
    assert isinstance(both, tk.Together)
    assert both.layers == (1,)
    assert both.beta == 0.3
    assert spec.takes("layers")
    assert not spec.takes("images")


@pytest.mark.parametrize("text", ["dola+greedy", "contrastive_search+dola"])
def test_sums_of_what_is_no_decoder(text: str) -> None:
    with pytest.raises(tk.ArgumentError, match="cannot be combined"):
        parse_spec(text)


def test_options_from_fields_are_read_like_written_ones() -> None:
    assert spec_of("lol", {"layers": " 1+2 ", "omega": "0.5"}) == parse_spec("lol:layers=1+2,omega=0.5")
    assert spec_of("dola", {}) == parse_spec("dola")
    lie = "Lie, beta=1, and lie."
    assert spec_of("icd", {"amateur_prompt": lie}).options == {"amateur_prompt": lie}
    for name, options, message in (
        ("lola", {}, "did you mean 'lol'"),
        ("ritual+vcd", {}, "there is no decoder 'ritual.vcd'"),
        ("icd", {"lamb": "1"}, "did you mean 'lam'"),
        ("icd", {"lam": " "}, "has no value"),
        ("ritual", {"images": "x"}, "has no option 'images'"),
    ):
        with pytest.raises(tk.ArgumentError, match=message):
            spec_of(name, options)


def test_what_a_decoder_needs_and_draws() -> None:
    assert [parse_spec(text).needs_image for text in ("dola", "ritual", "dola+vcd")] == [False, True, True]
    assert [parse_spec(name).draws(sample) for name in ("greedy", "sample", "dola") for sample in (False, True)] == [
        False,
        False,
        True,
        True,
        False,
        True,
    ]
