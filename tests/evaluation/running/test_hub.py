"""Benchmarks in the hub's layout, as downloads of it lie in a folder: they become the files that the scorers read."""

from __future__ import annotations

import io
import json
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import truthkit as tk
from truthkit import cli
from truthkit.evaluation.running.hub import fetch
from truthkit.evaluation.tasks import benchmarks
from truthkit.evaluation.tasks.mme import scorer as mme
from truthkit.evaluation.tasks.pope import scorer as pope
from truthkit.evaluation.tasks.truthfulqa import choices as truthfulqa


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    datasets = pytest.importorskip("datasets", reason="the extra eval is not installed")
    monkeypatch.setenv("TRUTHKIT_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()
    return tmp_path / "cache" / "data"


def picture(seed: int, form: str = "JPEG") -> bytes:
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(content, form)
    return content.getvalue()


def parquet(rows: list[dict[str, Any]], path: Path) -> None:
    import datasets

    path.parent.mkdir(parents=True, exist_ok=True)
    table = datasets.Dataset.from_list(rows)
    if "image" in rows[0]:
        table = table.cast_column("image", datasets.Image())
    table.to_parquet(str(path))


def pope_rows() -> list[dict[str, Any]]:
    return [
        {
            "id": str(number),
            "question_id": str(number),
            "question": f"Is there a {word} in the image?",
            "answer": ("yes", "no")[number % 2],
            "image_source": f"COCO_val2014_{number // 2:012}",
            "image": {"bytes": picture(number // 2), "path": None},
            "category": ("random", "popular")[number // 2 % 2],
        }
        for number, word in enumerate(["dog", "cat", "cup", "bed"])
    ]


def test_pope(tmp_path: Path, cache: Path) -> None:
    parquet(pope_rows(), tmp_path / "hub" / "data" / "test-00000-of-00001.parquet")
    data = fetch(f"hub:{tmp_path / 'hub'}", benchmarks()["pope"].hub)
    questions = pope.read_questions(data)
    assert [(q.id, q.text, q.label, q.category) for q in questions] == [
        (row["question_id"], row["question"], row["answer"], row["category"]) for row in pope_rows()
    ]
    task = benchmarks()["pope"].task(data)
    assert len({item.key for item in task.items}) == 4
    for item, row in zip(task.items, pope_rows(), strict=True):
        assert Path(item.images[0]).read_bytes() == row["image"]["bytes"]
        assert Path(item.images[0]).name == row["image_source"] + ".jpg"
    assert task.score(range(4), ["Yes.", "No.", "Yes.", "No."]).metrics["accuracy"] == 1
    assert [path.name.startswith(".") for path in cache.iterdir()] == [False]


def test_mme_images_of_the_same_name_in_two_subtasks(tmp_path: Path) -> None:
    rows = [
        {
            "question_id": f"{subtask}/0001.png",
            "image": {"bytes": picture(seed, "PNG"), "path": None},
            "question": f"Is it {seed}? Please answer yes or no.",
            "answer": answer,
            "category": subtask,
        }
        for seed, subtask in enumerate(("artwork", "code_reasoning"))
        for answer in ("Yes", "No")
    ]
    parquet(rows, tmp_path / "hub" / "data" / "test-00000-of-00001.parquet")
    task = benchmarks()["mme"].task(fetch(f"hub:{tmp_path / 'hub'}", benchmarks()["mme"].hub))
    assert [Path(item.images[0]).read_bytes() for item in task.items] == [row["image"]["bytes"] for row in rows]
    assert [q.label for q in mme.read_questions(task.data[0])] == ["yes", "no"] * 2
    assert task.score(range(4), ["yes", "no", "yes", "yes"]).metrics == {
        "perception": 200,
        "cognition": 50,
        "artwork": 200,
        "code_reasoning": 50,
    }


def test_hallusionbench_in_two_splits(tmp_path: Path) -> None:
    """Figures of the same last name in two subcategories, and questions without one."""
    rows: list[dict[str, Any]] = [
        {
            "category": category,
            "subcategory": subcategory,
            "visual_input": shown,
            "set_id": "0",
            "figure_id": figure,
            "question_id": "0",
            "question": f"Is it {subcategory}?",
            "gt_answer": "1",
            "filename": name,
        }
        for category, subcategory, shown, figure, name in (
            ("VD", "map", "1", "0", "./VD/map/0_0.png"),
            ("VD", "ocr", "1", "0", "./VD/ocr/0_0.png"),
            ("VS", "map", "0", "0", None),
        )
    ]
    seen = [row | {"image": {"bytes": picture(seed, "PNG"), "path": None}} for seed, row in enumerate(rows[:2])]
    parquet(seen, tmp_path / "hub/data/image-00000-of-00001.parquet")
    parquet(rows[2:], tmp_path / "hub/data/non_image-00000-of-00001.parquet")
    task = benchmarks()["hallusionbench"].task(fetch(f"hub:{tmp_path / 'hub'}", benchmarks()["hallusionbench"].hub))
    assert [[Path(path).read_bytes() for path in item.images] for item in task.items] == [
        *([row["image"]["bytes"]] for row in seen),
        [],
    ]
    assert task.score(range(3), ["Yes", "Yes", "No"]).metrics["accuracy"] == 2 / 3


def truthfulqa_folder(folder: Path) -> Path:
    choices = {"choices": ["No.", "Yes", "Maybe"], "labels": [1, 0, 0]}
    many = {"choices": ["No.", "Never", "Yes", "Maybe"], "labels": [1, 1, 0, 0]}
    parquet(
        [{"question": "Do, or don't, they?", "mc1_targets": choices, "mc2_targets": many}],
        folder / "multiple_choice" / "validation-00000-of-00001.parquet",
    )
    parquet(
        [
            {
                "type": "Adversarial",
                "category": "Myths",
                "question": "Do, or don't, they?",
                "best_answer": "No",
                "correct_answers": ["No", 'They "never" do'],
                "incorrect_answers": ["Yes", "Maybe"],
                "source": "",
            }
        ],
        folder / "generation" / "validation-00000-of-00001.parquet",
    )
    configs = [
        {"config_name": name, "data_files": [{"split": "validation", "path": f"{name}/validation-*"}]}
        for name in ("generation", "multiple_choice")
    ]
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
    return folder


def test_truthfulqa_has_both_forms(tmp_path: Path) -> None:
    data = fetch(f"hub:{truthfulqa_folder(tmp_path / 'hub')}", benchmarks()["truthfulqa"].hub)
    (official,) = truthfulqa.read_questions(data)
    assert official.choices == ("No.", "Yes", "Maybe", "Never")
    (authors,) = truthfulqa.read_questions(data, protocol="authors")
    assert authors.choices == ("No.", "Yes.", "Maybe.", 'They "never" do.')
    assert benchmarks()["truthfulqa-generation"].task(data).items[0].prompt.endswith("Q: Do, or don't, they?\nA:")


def test_fetched_once_and_again_when_it_changes(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "hub"
    parquet(pope_rows(), folder / "data" / "test-00000-of-00001.parquet")
    first = fetch(f"hub:{folder}", benchmarks()["pope"].hub)
    parquet(pope_rows()[:2], folder / "data" / "test-00000-of-00001.parquet")
    assert fetch(f"hub:{folder}", benchmarks()["pope"].hub) != first
    monkeypatch.setattr("truthkit.evaluation.running.hub._rows", None)
    assert len(pope.read_questions(fetch(f"hub:{folder}", benchmarks()["pope"].hub))) == 2


def test_an_interrupted_download_leaves_nothing(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(*_args: Any, **_options: Any) -> Any:
        yield pope_rows()[0]
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("truthkit.evaluation.running.hub._rows", rows)
        (tmp_path / "hub").mkdir()
        with pytest.raises(KeyboardInterrupt):
            fetch(f"hub:{tmp_path / 'hub'}", benchmarks()["pope"].hub)
    assert list(cache.iterdir()) == []
    parquet(pope_rows(), tmp_path / "hub" / "data" / "test-00000-of-00001.parquet")
    assert len(pope.read_questions(fetch(f"hub:{tmp_path / 'hub'}", benchmarks()["pope"].hub))) == 4


def test_a_download_that_was_cut_off(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "hub" / "data" / "test-00000-of-00001.parquet"
    parquet(pope_rows(), path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(tk.NotAvailableError, match=rf"is damaged, cut off perhaps: delete {path} and"):
        fetch(f"hub:{tmp_path / 'hub'}", benchmarks()["pope"].hub)
    assert list(cache.iterdir()) == []


def without(name: str) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != name} for row in pope_rows()]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (without("answer"), "row 1: no column 'answer'; its columns are id, question_id"),
        (without("image"), "row 1: no column 'image'"),
        ([row | {"image": {"bytes": b"", "path": None}} for row in pope_rows()], "the column 'image' holds no image"),
        ([row | {"image_source": "../../x"} for row in pope_rows()], r"'../../x' is no name for an image"),
        ([row | {"answer": "perhaps"} for row in pope_rows()], "label is 'perhaps'; expected 'yes' or 'no'"),
    ],
)
def test_other_columns(rows: list[dict[str, Any]], message: str, tmp_path: Path) -> None:
    parquet(rows, tmp_path / "hub" / "data" / "test-00000-of-00001.parquet")
    with pytest.raises(tk.ArgumentError, match=message):
        benchmarks()["pope"].task(fetch(f"hub:{tmp_path / 'hub'}", benchmarks()["pope"].hub))


def test_no_network(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """One attempt, of which the message says what to do instead; `datasets` by itself tries for half a minute."""

    def refused(*_args: Any, **_options: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    start = time.perf_counter()
    code = cli.main(["eval", "pope", "--data", "hub", "--out", str(tmp_path / "run")])
    assert time.perf_counter() - start < 10
    assert code == 1
    error = capsys.readouterr().err
    assert "hf download lmms-lab/POPE --repo-type dataset --local-dir FOLDER" in error
    assert "--data hub:FOLDER" in error
    assert not (tmp_path / "run").exists()


def test_offline_by_wish_and_never_downloaded(tmp_path: Path) -> None:
    with pytest.raises(tk.NotAvailableError, match=r"'nobody/nothing' is neither here .* --data hub:FOLDER"):
        fetch("hub:nobody/nothing", benchmarks()["pope"].hub)


def test_tasks_that_are_not_on_the_hub(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["eval", "factor", "--data", "hub", "--out", str(tmp_path / "run")]) == 2
    assert "the data of factor is not on the hub" in capsys.readouterr().err
