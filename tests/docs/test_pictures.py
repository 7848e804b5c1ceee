"""The pictures of README and documentation: small, there, and made by a script that says what it lacks."""

from __future__ import annotations

import importlib.util
import io
import random
import sys
from types import ModuleType

import pytest
from PIL import Image

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    path = ROOT / "docs" / "tools" / "pictures.py"
    sys.path.insert(0, str(path.parent))  # as Python does for a script
    try:
        spec = importlib.util.spec_from_file_location("docs_pictures", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def test_without_a_browser(
    pictures: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert pictures.main(["report"]) == 1
    assert "no headless browser on PATH; install Chromium, as one of chromium, " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        pictures.main(["aap"])
    assert "there is no picture 'aap'; expected report or app" in capsys.readouterr().err


def test_pictures_are_made_small(pictures: ModuleType) -> None:
    rng = random.Random(0)
    image = Image.frombytes("RGB", (300, 300), rng.randbytes(270_000))
    content = io.BytesIO()
    image.save(content, "png")
    assert content.tell() > pictures.MOST_BYTES
    with Image.open(io.BytesIO(pictures.small(content.getvalue()))) as made:
        assert made.size == image.size
    plain = io.BytesIO()
    Image.new("RGB", (50, 50), "red").save(plain, "png")
    with Image.open(io.BytesIO(pictures.small(plain.getvalue()))) as made:
        assert made.mode == "RGB"


@pytest.mark.parametrize("name", ["report", "report-items", "app"])
def test_committed_pictures(name: str, pictures: ModuleType) -> None:
    path = ROOT / "docs" / "assets" / f"{name}.png"
    assert path.stat().st_size <= pictures.MOST_BYTES
    with Image.open(path) as picture:
        assert picture.width == 1280
