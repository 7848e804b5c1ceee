"""ARO on drawn scenes in the released files' form, against plain forwards; and its shuffles and scores by hand."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import truthkit as tk
from truthkit import cli
from truthkit.decoding.spec import parse_spec
from truthkit.evaluation.report.rescore import rescore
from truthkit.evaluation.running.asking import Asking
from truthkit.evaluation.running.runs import run
from truthkit.evaluation.tasks.aro import ARO, scorer
from truthkit.evaluation.tasks.aro.shuffles import WAYS, cleaned, shuffled, tagger
from truthkit.evaluation.tasks.aro.task import score_files
from truthkit.images.reading import read_image
from truthkit.images.regions import region, split_region
from truthkit.scenes.questions import held_out
from truthkit.scenes.render import render
from truthkit.text.encode import encode_prompts, written_prompts

Box = dict[str, int]
WHOLE: Box = {"bbox_x": 0, "bbox_y": 0, "bbox_w": 64, "bbox_h": 64}


def images(folder: Path, count: int = 3) -> list[Any]:
    """Scenes in `images`, as `0.jpg` and so on, without loss."""
    scenes = held_out(count, seed=4)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number, scene in enumerate(scenes):
        render(scene).save(folder / f"images/{number}.jpg", "PNG")
    return scenes


def pair(number: int, true: str, false: str, box: Box = WHOLE, **fields: Any) -> dict[str, Any]:
    fields = fields or {"relation_name": "beside"}
    return (
        {"image_id": str(number), "image_path": f"{number}.jpg", **box}
        | fields
        | {
            "true_caption": true,
            "false_caption": false,
        }
    )


def relations(folder: Path) -> Path:
    """A file as visual_genome_relation.json, with a part of every image."""
    records = []
    for number, scene in enumerate(images(folder)):
        name, absent = scene.names[0], next(one for one in ("kite", "cup", "fork", "dog") if one not in scene.names)
        box = {"bbox_x": 4 * number, "bbox_y": 2, "bbox_w": 50, "bbox_h": 70}
        for relation in ("to the left of", "on"):
            captions = (f"there is a {name} {relation} it", f"there is a {absent} {relation} it")
            records.append(pair(number, *captions, box, relation_name=relation, predicate_id=1, object_1_attributes=[]))
    return saved(folder / "visual_genome_relation.json", records)


def orders(folder: Path, *captions: str) -> Path:
    """A file as coco_karpathy_test.json."""
    images(folder, 2)
    records = [{"image": f"{number}.jpg", "caption": list(captions)} for number in range(2)]
    return saved(folder / "coco_karpathy_test.json", records)


def saved(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


@pytest.fixture(scope="module")
def scene_vlm() -> Any:
    return tk.load("scene-vlm")


@pytest.fixture
def nltk(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = pytest.importorskip("nltk", reason="the extra eval is not installed")
    monkeypatch.setattr(module.data, "path", [*module.data.path, str(shared_data / "data/nltk_data")])


def plain(model: Any, processor: Any, image: Image.Image, prompt: str, caption: str) -> float:
    """The oracle: one forward over image, prompt and caption."""
    (text,) = written_prompts(processor, [prompt], [1])
    start = encode_prompts(processor, [prompt], [[image]])["input_ids"].shape[1]
    whole = processor(images=[image], text=f"{text} {caption}", add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        log_p = model(**whole, use_cache=False).logits[0].log_softmax(-1)
    ids = whole["input_ids"][0]
    return sum(float(log_p[at - 1, ids[at]]) for at in range(start, len(ids)))


# -- a run -------------------------------------------------------------------------------------------------------------


def test_relations_in_a_run(scene_vlm: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Crops by box; gone on with after a cut; scored again from the folder and from a file of its scores."""
    data = relations(tmp_path)
    task = ARO.task(data, prompt="Describe the image.")
    assert task.items[2].images == (f"{tmp_path}/images/1.jpg#xywh=4,2,50,70",)
    asking = Asking(*scene_vlm, parse_spec("greedy"), {})
    whole = run(task, asking, tmp_path / "whole", model_name="scenes", units=ARO.units)
    right = []
    for record, item in zip(json.loads(data.read_text()), task.items, strict=True):
        x, y, width, height = (record[f"bbox_{name}"] for name in "xywh")
        crop = Image.open(tmp_path / "images" / record["image_path"]).convert("RGB").crop((x, y, x + width, y + height))
        names = ("true_caption", "false_caption")
        expected = [plain(*scene_vlm, crop, "Describe the image.", record[name]) for name in names]
        assert asking.choose([item])[0] == pytest.approx(expected, abs=1e-4)
        right.append(expected[0] > expected[1])
    assert whole["metrics"]["accuracy_vg_relation"] == sum(right) / len(right)
    assert whole["metrics"]["macro_vg_relation"] == pytest.approx(sum(right) / len(right))
    run(task, asking, tmp_path / "parts", model_name="scenes")
    records = tmp_path / "parts/records.jsonl"
    records.write_text("\n".join(records.read_text().splitlines()[:2]) + "\n")
    assert run(task, asking, tmp_path / "parts", model_name="scenes")["metrics"] == whole["metrics"]
    lines = [json.loads(line) for line in (tmp_path / "whole/items.jsonl").read_text().splitlines()]
    assert rescore(lines, whole["config"]).metrics == whole["metrics"]
    assert lines[0]["images"] == [f"{tmp_path}/images/0.jpg#xywh=0,2,50,70"]
    answers = tmp_path / "scores.jsonl"
    answers.write_text("".join(json.dumps({"scores": line["log_probs"]}) + "\n" for line in lines))
    assert score_files(answers, data).metrics == whole["metrics"]
    assert cli.main(["score", "aro", str(answers), "--data", str(data), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["categories"].keys() == {"on", "to the left of"}
    assert cli.main(["score", "aro", str(tmp_path / "whole")]) == 0


def test_a_contrast_and_its_controls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = relations(tmp_path), tmp_path / "runs"
    command = ["eval", "aro", "--data", str(data), "--model", "scene-vlm", "--out", str(out), "--limit", "3"]
    assert cli.main([*command, "--decoder", "vcd:alpha=9,beta=0", "--controls"]) == 0
    summaries = {path.parent.name: json.loads(path.read_text()) for path in out.glob("*/summary.json")}
    assert summaries.keys() == {"decoder", "greedy"}
    assert "raw_accuracy" in summaries["decoder"]["metrics"]
    assert "raw_accuracy" not in summaries["greedy"]["metrics"]
    assert summaries["greedy"]["units"]["accuracy"] == "share"
    assert cli.main(["report", str(out), "--out", str(tmp_path / "r.html")]) == 0
    assert "data:image/" in (tmp_path / "r.html").read_text()
    assert cli.main(["compare", str(out / "greedy"), str(out / "decoder")]) == 0
    capsys.readouterr()


def test_orders_in_a_run(scene_vlm: Any, tmp_path: Path, nltk: None) -> None:
    data = orders(
        tmp_path, "A red dog and a small cat sit on the old grass.", "Two men ride a bicycle, near a big lake"
    )
    task = ARO.task(data)
    assert [len(item.choices) for item in task.items] == [5] * 4
    summary = run(task, Asking(*scene_vlm, parse_spec("greedy"), {}), tmp_path / "run", model_name="scenes")
    assert {f"above_{way}" for way in WAYS} | {"accuracy", "accuracy_coco_order"} == summary["metrics"].keys()
    assert summary["n"]["above_trigrams"] == 4
    other = ARO.task(data, shuffle_seed=1)
    assert [item.choices[0] for item in other.items] == [item.choices[0] for item in task.items]
    assert [item.choices for item in other.items] != [item.choices for item in task.items]
    assert [item.choices for item in ARO.task(data).items] == [item.choices for item in task.items]


# -- shuffles ----------------------------------------------------------------------------------------------------------


def test_cleaned() -> None:
    assert cleaned('A "big" Dog; it\'s on the *sofa*.  No!\n') == "a big dog it's on the sofa no"
    assert cleaned(" ".join(map(str, range(50)))).split() == [str(number) for number in range(30)]


def test_shuffles(shared_data: Path, nltk: None) -> None:
    """Real captions; what may move is told by the tags, and everything else stays where it is."""
    tag = tagger()
    path = shared_data / "data/coco_caps_boxes_80/caps_boxes_coco2014_val_80.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()[:20]]
    captions = [cleaned(caption) for record in records for caption in record["captions"]]
    assert len(captions) == 100
    for caption in captions:
        words, found = caption.split(), shuffled(caption, tag, seed=3)
        assert found == shuffled(caption, tag, seed=3)
        tags = tag([word.strip(",'") or word for word in words])
        moving = {
            "nouns_and_adjectives": [one.startswith(("NN", "JJ")) for one in tags],
            "all_but_nouns_and_adjectives": [not one.startswith(("NN", "JJ")) for one in tags],
        }
        for way, text in found.items():
            other = text.split()
            assert sorted(other) == sorted(words)
            assert other != words
            for word, new, moves in zip(words, other, moving.get(way, [True] * len(words)), strict=True):
                assert moves or word == new
        for start in range(0, len(words), 3):
            within = found["within_trigrams"].split()[start : start + 3]
            assert sorted(within) == sorted(words[start : start + 3])
        for start in range(0, len(words), 3):
            assert f" {' '.join(words[start : start + 3])} " in f" {found['trigrams']} "


def test_captions_that_no_shuffle_can_change(tmp_path: Path, nltk: None) -> None:
    data = orders(tmp_path, "Cat.", "dog dog dog dog", "a red dog on a blue mat")
    with pytest.warns(UserWarning, match="4 captions are left out, which no shuffle can change"):
        task = ARO.task(data)
    assert [item.id for item in task.items] == ["coco_order 3", "coco_order 6"]
    with pytest.raises(tk.ArgumentError, match="no caption can be put into another order; expected some of two words"):
        ARO.task(orders(tmp_path, "Cat."))


# -- scores ------------------------------------------------------------------------------------------------------------


def test_scores_by_hand() -> None:
    rng = random.Random(0)
    questions, rows = [], []
    for number in range(60):
        group = ("on", "in", "rare")[min(number // 25, 2)]
        questions.append(scorer.Question(f"q{number}", "vg_attribution", f"{number % 9}.jpg", ("a", "b"), (), group))
        rows.append([rng.choice((-1.0, -2.0)), rng.choice((-1.5, -2.0, None))])
    score = scorer.score(questions, rows, raw=[[0.0, 1.0]] * 60)
    right = [one > (-9e9 if other is None else other) for one, other in rows]
    assert score.metrics["accuracy"] == pytest.approx(sum(right) / 60)
    assert score.metrics["macro_vg_attribution"] == pytest.approx((sum(right[:25]) + sum(right[25:50])) / 50)
    assert score.metrics["raw_accuracy"] == 0
    assert score.sizes["macro_vg_attribution"] == 50
    assert scorer.by_group(score).keys() == {"on", "in"}
    low, high = score.intervals(resamples=300)["macro_vg_attribution"]
    assert low < score.metrics["macro_vg_attribution"] < high


def test_ties_and_what_was_cut_off() -> None:
    one = scorer.Question("1", "vg_relation", "1.jpg", ("a", "b"), (), "on")
    tie = scorer.score([one, one], [[-1.0, -1.0], [None, None]])
    assert tie.metrics["accuracy"] == 0
    assert (tie.config["unscored"], tie.items[0]["prediction"]) == (2, None)


def test_foreign_scores(tmp_path: Path) -> None:
    data = saved(tmp_path / "visual_genome_relation.json", [pair(0, "a", "b"), pair(1, "c", "d")])
    answers = tmp_path / "s.jsonl"
    answers.write_text('{"id": "vg_relation 2", "scores": {"d": -3, "c": -1}}\n')
    assert score_files(answers, data).metrics["accuracy"] == 1
    order = saved(tmp_path / "flickr30k_val.json", [{"image": "1.jpg", "caption": ["A dog.", "Two cats sit."]}])
    answers.write_text(
        '{"id": "flickr_order 2", "scores": {"sit cats Two": -9, "Two cats sit.": -8, "sit Two cats": -7}}'
    )
    assert score_files(answers, order).items[0]["above"] == [True, False]
    answers.write_text('{"scores": [-1, -2, -3]}\n{"scores": [-1, -2]}\n')
    assert score_files(answers, order).metrics == {"accuracy": 1, "accuracy_flickr_order": 1}
    for line, message in (
        ('{"id": "vg_relation 3", "scores": [0, 1]}', "id 'vg_relation 3' is none of the 2 questions"),
        ('{"scores": [0, 1]}', "s.jsonl has 1 records for 2 questions; give all of them the 'id'"),
        ('{"id": "vg_relation 1", "scores": [0]}', r"'scores' is \[0\]; expected numbers, two"),
        ('{"id": "vg_relation 1", "scores": [0, 1, 2]}', "expected numbers, two"),
        ('{"id": "vg_relation 1", "scores": {"a": 1}}', "no score of 'b', a caption of vg_relation 1"),
        ('{"id": "vg_relation 1", "scores": ["x", 1]}', "a score is 'x'; expected a finite number"),
        ('{"id": "vg_relation 1"}', "'scores' is None"),
        ('{"id": "vg_relation 1", "scores": [0, 1]}\n' * 2, "vg_relation 1 was scored before"),
    ):
        answers.write_text(line)
        with pytest.raises(tk.ArgumentError, match=message):
            score_files(answers, data)


# -- parts of images, and bad input ------------------------------------------------------------------------------------


def test_parts_of_images(tmp_path: Path) -> None:
    """Pillow's own crop, also where a box reaches over the edge; halves are rounded as it rounds them."""
    images(tmp_path, 1)
    path = str(tmp_path / "images/0.jpg")
    whole = Image.open(path).convert("RGB")
    for box in ((3, 4, 20, 30), (40, 40, 50, 50), (-5, -5, 20, 20), (0.5, 1.5, 10, 10)):
        x, y, width, height = box
        expected = whole.crop((x, y, x + width, y + height))
        assert read_image(region(path, *box)).tobytes() == expected.tobytes()
    assert split_region("a#b.jpg") == ("a#b.jpg", None)
    assert split_region(region("a.jpg", 1, 2, 3, 4)) == ("a.jpg", (1, 2, 4, 6))
    with pytest.raises(tk.ArgumentError, match=r"a part that lies outside of the image, \(64, 64\) pixels"):
        read_image(region(path, 64, 0, 5, 5))


GOOD = pair(0, "a", "b")


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"x": 1}], "no 'relation_name', 'attributes' or 'caption'; its fields are x"),
        ([GOOD | {"bbox_w": "wide"}], "'bbox_w' of d.json, record 1 is 'wide'; expected a finite number"),
        ([{k: v for k, v in GOOD.items() if k != "bbox_h"}], "d.json, record 1 has no 'bbox_h'"),
        (
            [GOOD | {"bbox_x": 64}],
            r"the box \(64, 0, 128, 64\) lies outside of 0.jpg, which has 64 x 64 pixels",
        ),
        ([GOOD | {"bbox_w": 0}], r"the box \(0, 0, 0, 64\) lies outside"),
        ([GOOD | {"true_caption": "b"}], "its true and its false caption are the same, 'b'"),
        ([GOOD | {"true_caption": 3}], "'true_caption' is 3; expected text"),
        ([pair(0, "a", "b", attributes=["red"])], r"'attributes' is \['red'\]; expected two"),
        ([{"image": "0.jpg", "caption": "a"}], "'caption' of d.json, record 1 is 'a'; expected a list"),
        ([{"image": "0.jpg", "caption": ["..."]}], r"the caption '\.\.\.' has no words"),
        ([], "d.json has no records"),
    ],
)
def test_wrong_data(records: Any, message: str, tmp_path: Path) -> None:
    images(tmp_path, 1)
    with pytest.raises(tk.ArgumentError, match=message):
        ARO.task(saved(tmp_path / "d.json", records))


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(tk.NotAvailableError, match=r"has none of ARO's files: visual_genome_relation\.json"):
        ARO.task(tmp_path)
    data = saved(tmp_path / "visual_genome_relation.json", [pair(7, "a", "b")])
    with pytest.raises(tk.ArgumentError, match="aro asks about images; pass their folder with --images"):
        ARO.task(data)
    images(tmp_path, 1)
    with pytest.raises(tk.NotAvailableError, match=r"has no image 7\.jpg"):
        ARO.task(tmp_path)
    (tmp_path / "images/7.jpg").write_bytes(b"no image")
    with pytest.raises(tk.ArgumentError, match="is no image that Pillow"):
        ARO.task(data)
