"""Data sets fetched from a hub on loopback."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import truthkit as tk
from tests.evaluation.running.test_hub import parquet, pope_rows
from tests.models.hub import Hub, serving
from truthkit.evaluation.running.hub import fetch, source_of
from truthkit.evaluation.tasks import benchmarks
from truthkit.evaluation.tasks.mme import scorer as mme
from truthkit.evaluation.tasks.pope import scorer as pope
from truthkit.models import hub as hub_module

FILE = "data/test-00000-of-00001.parquet"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """`org/pope` in POPE's layout."""
    datasets = pytest.importorskip("datasets", reason="the extra eval is not installed")
    monkeypatch.setenv("TRUTHKIT_CACHE", str(tmp_path / "truthkit"))
    datasets.disable_progress_bars()
    parquet(pope_rows(), tmp_path / "hub/datasets/org/pope/main" / FILE)
    with serving(tmp_path / "hub", monkeypatch, tmp_path / "cache") as server:
        monkeypatch.setattr("datasets.config.HF_ENDPOINT", server.url)
        monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "arrow")
        yield server


def questions(text: str = "hub:org/pope") -> list[Any]:
    return pope.read_questions(fetch(text, benchmarks()["pope"].hub))


def main(hub: Hub) -> Path:
    return hub.root / "datasets/org/pope/main" / FILE


def test_fetched_once_and_again_when_main_moves(hub: Hub) -> None:
    first = fetch("hub:org/pope", benchmarks()["pope"].hub)
    commit = hub.commit("org/pope", kind="datasets")
    assert first.parent.name.endswith(commit[:16])
    assert source_of(first) == {"repository": "org/pope", "commit": commit}
    assert source_of(main(hub)) is None
    hub.asked.clear()
    assert fetch("hub:org/pope", benchmarks()["pope"].hub) == first
    assert hub.asked == ["GET /api/datasets/org/pope/revision/main"]
    parquet(pope_rows()[:2], main(hub))
    assert len(questions()) == 2
    assert len(pope.read_questions(first)) == 4


def test_revision(hub: Hub) -> None:
    parquet(pope_rows()[:3], hub.root / "datasets/org/pope/v2" / FILE)
    assert len(questions("hub:org/pope@v2")) == 3
    assert len(questions()) == 4
    with pytest.raises(tk.ArgumentError, match="the data set 'org/pope' has no such branch, tag or commit"):
        questions("hub:org/pope@v9")


@pytest.mark.parametrize("converted", [True, False])
@pytest.mark.parametrize("fault", ["silent", 500, "drop"])
def test_a_hub_that_does_not_answer(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Any, converted: bool
) -> None:
    """The folder that truthkit made, or, where that was deleted, the files in the hub cache."""
    monkeypatch.setattr(hub_module, "PATIENCE", 0.5)
    expected = questions()
    if not converted:
        fetch("hub:org/pope", benchmarks()["pope"].hub).parent.rename(tmp_path / "gone")
    hub.fault = lambda _request: fault
    hub.asked.clear()
    with pytest.warns(UserWarning, match=r"the hub cannot be asked \(.+\): org/pope is taken from the cache"):
        assert questions() == expected
    assert len(hub.asked) == 1


def test_what_was_made_before_outlives_the_hubs_cache(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = questions()
    (tmp_path / "cache").rename(tmp_path / "gone")
    monkeypatch.setattr(hub_module, "PATIENCE", 0.5)
    hub.fault = lambda _request: "silent"
    with pytest.warns(UserWarning, match=r"the hub cannot be asked .+ What was fetched before is read: "):
        assert questions() == expected
    with pytest.raises(tk.NotAvailableError, match="at revision 'v2' is neither here nor in the hub cache"):
        questions("hub:org/pope@v2")


@pytest.mark.parametrize("access", ["private", "gated"])
def test_data_that_is_not_for_everyone(hub: Hub, access: str) -> None:
    hub.access = {"org/pope": access}
    with pytest.raises(tk.NotAvailableError) as caught:
        questions()
    assert access in str(caught.value)
    assert f"{hub.url}/datasets/org/pope" in str(caught.value)
    assert "hf auth login" in str(caught.value)


def test_a_damaged_file_is_named_and_once_deleted_it_works(hub: Hub, tmp_path: Path) -> None:
    whole = main(hub).read_bytes()
    expected = questions()
    fetch("hub:org/pope", benchmarks()["pope"].hub).parent.rename(tmp_path / "gone")
    (tmp_path / "arrow").rename(tmp_path / "gone-too")
    (blob,) = (path.resolve() for path in (tmp_path / "cache").rglob("*.parquet"))
    blob.write_bytes(whole[:-200])
    with pytest.raises(tk.NotAvailableError, match="damaged") as caught:
        questions()
    found = re.search(r"delete (\S+) and", str(caught.value))
    assert found
    assert Path(found[1]) == blob
    blob.unlink()
    assert [question.text for question in questions()] == [question.text for question in expected]


def test_one_repository_for_two_tasks(hub: Hub) -> None:
    rows = [row | {"question_id": f"artwork/{row['question_id']}", "category": "artwork"} for row in pope_rows()]
    parquet(rows, main(hub))
    as_pope, as_mme = (fetch("hub:org/pope", benchmarks()[task].hub) for task in ("pope", "mme"))
    assert as_pope != as_mme
    assert len(pope.read_questions(as_pope)) == len(mme.read_questions(as_mme)) == 4
