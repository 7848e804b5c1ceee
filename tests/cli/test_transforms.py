"""`truthkit transforms`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from truthkit import cli
from truthkit.images.sheet import transform_sheet
from truthkit.images.transforms import TRANSFORMS, content_seed


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)
    return path


def test_sheet(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sheet.png"
    assert cli.main(["transforms", "--image", str(photo), "--out", str(out), "--seed", "3"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    with Image.open(photo) as image, Image.open(out) as sheet:
        assert np.array_equal(sheet, transform_sheet(image, seed=content_seed(image, "", 3)))


@pytest.mark.parametrize("ending", [".jpg", ".JPEG", ".webp"])
def test_other_formats(ending: str, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / f"sheet{ending}"
    assert cli.main(["transforms", "--image", str(photo), "--out", str(out)]) == 0
    with Image.open(out) as sheet:
        assert sheet.width > 800


@pytest.mark.parametrize(
    ("image", "out", "message"),
    [
        ("none.png", "sheet.png", "there is no image file 'none.png'"),
        ("http://x.org/a.png", "sheet.png", "download it first"),
        ("notes.txt", "sheet.png", "'notes.txt' is no image"),
        ("photo.png", "sheet.svg", "--out is 'sheet.svg'; expected .png"),
        ("photo.png", "none/sheet.png", "in a folder that exists"),
        ("photo.png", "photo.png", "--out is the image itself"),
        ("photo.png", "folder.png", "--out is 'folder.png', which is a folder"),
    ],
)
def test_bad_input(
    image: str,
    out: str,
    message: str,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("no image")
    Path("folder.png").mkdir()
    before = photo.read_bytes()
    assert cli.main(["transforms", "--image", image, "--out", out]) == 2
    assert message in capsys.readouterr().err
    assert photo.read_bytes() == before


def test_help_explains_every_transform(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["transforms", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in TRANSFORMS)
    assert "truthkit transforms --image photo.jpg" in shown
    assert cli.main(["transforms", "--out", "x.png"]) == 2
