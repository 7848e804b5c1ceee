"""The catalog, read from sources, agrees with the classes themselves, and says something about everything."""

from __future__ import annotations

import inspect
import subprocess
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.each import each
from tests.test_package import imported_after
from truthkit.decoding.catalog import DecoderInfo, catalog
from truthkit.decoding.described import Described, described, described_class
from truthkit.decoding.discovery import PLAIN, decoder_class, decoders
from truthkit.decoding.source import submodules
from truthkit.decoding.spec import kinds, spec_of
from truthkit.errors import ArgumentError


def test_every_decoder_is_there() -> None:
    names = [decoder.name for decoder in catalog()]
    assert names == [*PLAIN, *decoders()]
    own = {"apc", "cad", "contrastive_search", "dola", "icd", "lol", "m3id", "opera", "ritual", "ritual_plus", "vcd"}
    assert own <= set(names)
    assert {decoder.name for decoder in catalog() if decoder.needs_image} >= {"ritual", "ritual_plus", "vcd", "m3id"}
    assert {decoder.name for decoder in catalog() if decoder.needs_context} == {"adacad", "cad", "coiecd"}


def test_every_method_is_found_by_its_file() -> None:
    """A module of `methods` without a decoder is one that the others share."""
    without = set(submodules("truthkit.decoding.methods")) - {one.module for one in decoders().values()}
    assert without <= {"truthkit.decoding.methods.amateur"}


@each("name", decoders())
def test_the_source_says_what_the_class_does(name: str) -> None:
    """The oracle: the imported class, its signature evaluated by Python."""
    read, of_class = decoders()[name], described_class(decoder_class(name))
    assert (read.name, read.module, read.class_name) == (of_class.name, of_class.module, of_class.class_name)
    assert (read.summary, read.help) == (of_class.summary, of_class.help)
    assert (read.sees_images, read.combines) == (of_class.sees_images, of_class.combines)
    assert list(read.parameters) == list(of_class.parameters)
    for key, parameter in read.parameters.items():
        assert parameter.default == of_class.parameters[key].default
        assert kinds(parameter.annotation) == kinds(of_class.parameters[key].annotation)


@each("decoder", catalog())
def test_defaults_are_those_of_the_signature(decoder: DecoderInfo) -> None:
    assert decoder.summary.endswith(".")
    for option in decoder.options:
        assert len(option.help) > 10, option.name
        assert not option.help.startswith("as in ")
        default = inspect.signature(decoder_class(decoder.name)).parameters[option.name].default
        if default is not None:
            assert spec_of(decoder.name, {option.name: option.default}).options == {option.name: default}
        for choice in option.choices:
            spec_of(decoder.name, {option.name: choice})


def test_choices_are_those_of_the_type_or_of_the_docstring() -> None:
    choices = {(one.name, option.name): option.choices for one in catalog() for option in one.options}
    assert choices["dola", "layers"] == choices["lol", "layers"] == ("low", "high", "all")
    six = ("horizontal_flip", "vertical_flip", "rotation", "color_jitter", "gaussian_blur", "crop")
    assert set(choices["ritual", "transform"]) == set(choices["ritual_plus", "transform"]) == {"random", *six}
    assert choices["icd", "lam"] == ()


def test_torch_is_not_needed_to_check_and_describe() -> None:
    code = """
from truthkit.decoding.catalog import catalog
from truthkit.decoding.spec import parse_spec
catalog(); parse_spec("ritual:alpha=2+vcd"); parse_spec("lol:layers=low,refocus=true")
try: parse_spec("dola:beta=2")
except ValueError: pass
"""
    assert imported_after(code).isdisjoint({"torch", "transformers", "numpy"})


PLUG_IN = '''
from __future__ import annotations
import collections.abc as abc
from typing import TYPE_CHECKING, Annotated, Literal, Optional
import truthkit as tk
from truthkit import Decoder
from truthkit.decoding.engine.options import Beta as Cut, check_beta
from .settings import DEFAULT, Many
from .base import Base
if TYPE_CHECKING:
    from nowhere import Thing
raise RuntimeError("this was run")
WORDS = ("one", "two")

class Mine(Base):
    """Mine.

    Args:
        word: "x" or one of `WORDS`.
    """
    name = "mine"
    def __init__(self, model, processor=None, *, many: Many = None, cut: Cut = 0.1, mode: "Literal['a', 'b']" = "a",
                 thing: Thing | None = None, word: str = DEFAULT, share: Annotated[Optional[float], check_beta] = 1.0,
                 names: abc.Sequence[str] = (), made: int = len("ab"), needed: bool, **rest): ...

class Other(tk.Decoder):
    name: str = "other"

class Nameless(Decoder): ...
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any) -> str:
    """A package whose modules fail when they are run."""
    name = f"plug_{abs(hash(request.node.name))}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError")
    (folder / "decoder.py").write_text(PLUG_IN)
    (folder / "settings.py").write_text(
        "import torch\nMany = int | list[int] | None\nDEFAULT = 'three'\nLoop = Loop | None"
    )
    (folder / "base.py").write_text(
        "from truthkit.decoding.engine.decoder import Decoder\nclass Base(Decoder):\n"
        '    """Base.\n\n    Args:\n        many: so many.\n    """\n    sees_images = True\n'
    )
    (folder / "bad.py").write_text("class Bad(:")
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_class_is_read_without_being_run(package: str) -> None:
    mine = described(f"{package}.decoder", "Mine")
    assert (mine.name, mine.summary, mine.sees_images, mine.combines) == ("mine", "Mine.", True, True)
    annotations = {key: parameter.annotation for key, parameter in mine.parameters.items()}
    assert annotations["many"] == int | list[int] | None
    assert annotations["mode"] == typing.Literal["a", "b"]
    assert annotations["thing"] == typing.Any | None
    assert annotations["names"] == Sequence[str]
    assert annotations["needed"] is bool
    defaults = {key: parameter.default for key, parameter in mine.parameters.items()}
    assert defaults | {"needed": None} == {
        "many": None, "cut": 0.1, "mode": "a", "thing": None, "word": "three", "share": 1.0, "names": (),
        "made": "len('ab')", "needed": None,
    }  # fmt: skip
    assert defaults["needed"] is inspect.Parameter.empty
    assert (mine.choices["mode"], mine.choices["word"]) == (("a", "b"), ("x", "one", "two"))
    assert (mine.help["many"], mine.help["cut"]) == ("so many.", "")
    other = described(f"{package}.decoder", "Other")
    assert (other.name, other.combines, other.sees_images, other.parameters) == ("other", True, False, {})


@each(
    ("place", "error", "message"),
    [
        ("decoder:Nameless", ArgumentError, "states no name"),
        ("decoder:Nobody", ArgumentError, "has no class Nobody"),
        ("missing:Mine", ModuleNotFoundError, "there is no module"),
        ("bad:Bad", SyntaxError, "invalid syntax"),
    ],
)
def test_what_cannot_be_described(package: str, place: str, error: type[Exception], message: str) -> None:
    module, _, name = place.partition(":")
    with pytest.raises(error, match=message):
        described(f"{package}.{module}", name)


def test_without_a_source_the_module_is_imported(package: str, tmp_path: Path) -> None:
    (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / package / "whole.py").write_text(
        "class Whole:\n    'Whole.'\n    name = 'whole'\n    def __init__(self, model, *, a: int = 3): ..."
    )
    code = "import py_compile; py_compile.compile('whole.py', cfile='whole.pyc')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path / package, check=True)
    (tmp_path / package / "whole.py").unlink()
    whole: Described = described(f"{package}.whole", "Whole")
    assert (whole.name, whole.summary, whole.parameters["a"].default, whole.combines) == ("whole", "Whole.", 3, False)
