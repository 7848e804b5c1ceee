"""The catalog agrees with the signatures, and says something about everything."""

from __future__ import annotations

import inspect

import pytest

from truthkit.decoding import DECODERS
from truthkit.decoding.catalog import DecoderInfo, catalog
from truthkit.decoding.spec import PLAIN, spec_of


def test_every_decoder_is_there() -> None:
    assert [decoder.name for decoder in catalog()] == [*PLAIN, *DECODERS]
    assert {decoder.name for decoder in catalog() if decoder.needs_image} == {"ritual", "ritual_plus", "vcd", "m3id"}
    assert {decoder.name for decoder in catalog() if decoder.needs_context} == {"cad"}


@pytest.mark.parametrize("decoder", catalog(), ids=lambda decoder: decoder.name)
def test_defaults_are_those_of_the_signature(decoder: DecoderInfo) -> None:
    assert decoder.summary.endswith(".")
    for option in decoder.options:
        assert len(option.help) > 10, option.name
        assert not option.help.startswith("as in ")
        default = inspect.signature(DECODERS[decoder.name]).parameters[option.name].default
        if default is not None:
            assert spec_of(decoder.name, {option.name: option.default}).options == {option.name: default}
        for choice in option.choices:
            spec_of(decoder.name, {option.name: choice})
