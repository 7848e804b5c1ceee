"""Loading from a hub: one on loopback, which can fail in every way that a real one does."""

from __future__ import annotations

import json
import re
import shutil
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.models.folders import byte_tokenizer, gguf_file, text_folder
from tests.models.hub import Hub, serving
from tests.tiny import padded_batch, tiny
from truthkit.models import hub as hub_module
from truthkit.models import identity
from truthkit.models.hub import resolve


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and an adapter for it, to be copied."""
    from peft import LoraConfig, get_peft_model

    root = tmp_path_factory.mktemp("made")
    with torch.random.fork_rng():
        text_folder(root / "llama")
        torch.manual_seed(3)
        settings = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
        get_peft_model(tiny("llama", eos_token_id=2), settings).save_pretrained(root / "lora")
    return root


@pytest.fixture
def hub(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """`org/llama` and `org/lora`, on branch main."""
    for name in ("llama", "lora"):
        shutil.copytree(made / name, tmp_path / "hub/models/org" / name / "main")
    with serving(tmp_path / "hub", monkeypatch, tmp_path / "cache") as server:
        yield server


def place(hub: Hub, name: str, branch: str = "main", kind: str = "models") -> Path:
    """A branch's folder, a copy of org/llama's main where it is new."""
    folder = hub.root / kind / name / branch
    if not folder.exists():
        shutil.copytree(hub.root / "models/org/llama/main", folder)
    return folder


def other_weights(folder: Path) -> None:
    with torch.random.fork_rng():
        tiny("llama", seed=5, eos_token_id=2).save_pretrained(folder)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**padded_batch(7, 7)).logits


def refused(*arguments: Any, **options: Any) -> str:
    """The message, which is one of truthkit's and one line."""
    with pytest.raises(tk.TruthkitError) as caught:
        tk.load(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_commit_is_known(hub: Hub) -> None:
    model, tokenizer = tk.load("org/llama", adapter="org/lora")
    found = identity(model, tokenizer)
    assert (found["id"], found["commit"]) == ("org/llama", hub.commit("org/llama"))
    adapter = found["adapters"]["default"]
    assert (adapter["id"], adapter["commit"], adapter["active"]) == ("org/lora", hub.commit("org/lora"), True)
    assert model.config._commit_hash == hub.commit("org/llama")
    assert model.config._name_or_path == tokenizer.name_or_path == "org/llama"


def test_each_name_is_resolved_once_and_files_are_fetched_once(hub: Hub) -> None:
    tk.load("org/llama", adapter="org/lora")
    first = [line for line in hub.asked if "/api/" in line]
    assert first == ["GET /api/models/org/llama/revision/main", "GET /api/models/org/lora/revision/main"]
    hub.asked.clear()
    tk.load("org/llama", adapter="org/lora")
    assert hub.asked == first


def test_main_moves_while_it_is_loaded(hub: Hub) -> None:
    """Config, tokenizer and weights are of the commit that was first: the mutation happens after the first file."""
    folder, old = place(hub, "org/llama"), hub.commit("org/llama")
    kept = shutil.copytree(folder, hub.root / "models/org/llama/old")

    def fault(request: str) -> Any:
        if request.startswith("GET /org/llama") and hub.commit("org/llama") == old:
            other_weights(folder)

    hub.fault = fault
    model, _ = tk.load("org/llama")
    assert hub.commit("org/llama") != old
    assert identity(model)["commit"] == old == hub.commit("org/llama", kept.name)
    assert torch.equal(logits(model), logits(tiny("llama")))
    assert not torch.equal(logits(tk.load("org/llama")[0]), logits(model))


@pytest.mark.parametrize("way", ["argument", "name"])
def test_revision(hub: Hub, way: str) -> None:
    other_weights(place(hub, "org/llama", "v2"))
    main, _ = tk.load("org/llama")
    model, _ = tk.load("org/llama", revision="v2") if way == "argument" else tk.load("org/llama@v2")
    assert identity(model)["commit"] == hub.commit("org/llama", "v2")
    assert torch.equal(logits(model), logits(tiny("llama", seed=5)))
    assert not torch.equal(logits(model), logits(main))
    by_commit, _ = tk.load("org/llama", revision=hub.commit("org/llama", "v2"))
    assert torch.equal(logits(by_commit), logits(model))


def test_revisions_that_cannot_be(hub: Hub, made: Path) -> None:
    assert "has no such branch, tag or commit on the hub" in refused("org/llama", revision="v9")
    assert "give one of them" in refused("org/llama@a", revision="b")
    assert "leave it out" in refused(made / "llama", revision="v2")
    assert "leave it out" in refused(revision="v2")


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "PATIENCE", 0.5)


@pytest.mark.parametrize("fault", ["silent", "drop", 500, 429, "refuses"])
@pytest.mark.usefixtures("hurried")
def test_a_hub_that_does_not_answer_leaves_the_cache(hub: Hub, fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = logits(tk.load("org/llama", adapter="org/lora")[0])
    commit = hub.commit("org/llama")
    other_weights(place(hub, "org/llama"))
    hub.fault = lambda _request: fault
    if fault == "refuses":
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    hub.asked.clear()
    start = time.perf_counter()
    with pytest.warns(UserWarning, match=r"the hub cannot be asked \(.+\): org/\w+ is taken from the cache, at commit"):
        model, _ = tk.load("org/llama", adapter="org/lora")
    assert time.perf_counter() - start < 10
    assert len(hub.asked) <= (2 if isinstance(fault, int) else 1)
    assert torch.equal(logits(model), expected)
    assert identity(model)["commit"] == commit


def test_patience_is_five_seconds() -> None:
    assert hub_module.PATIENCE <= 5


@pytest.mark.usefixtures("hurried")
def test_a_hub_that_does_not_answer_and_nothing_in_the_cache(hub: Hub) -> None:
    hub.fault = lambda _request: "silent"
    said = refused("org/llama")
    assert "no answer in 0.5 seconds" in said or "timed out" in said
    assert "hf download org/llama --local-dir FOLDER" in said
    assert "adapter='org/lora' is neither a folder here nor to be had" in refused(
        hub.root / "models/org/llama/main", adapter="org/lora"
    )


@pytest.mark.usefixtures("hurried")
def test_a_hub_that_falls_silent_on_the_way(hub: Hub) -> None:
    hub.fault = lambda request: "silent" if "model.safetensors" in request else None
    assert "model.safetensors of org/llama could not be fetched" in refused("org/llama")
    hub.fault = lambda _request: None
    tk.load("org/llama")


def test_offline_by_wish(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = logits(tk.load("org/llama")[0])
    hub.asked.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert torch.equal(logits(tk.load("org/llama")[0]), expected)
    assert "HF_HUB_OFFLINE=1 forbids asking" in refused("org/llama", revision="v2")
    assert hub.asked == []


@pytest.mark.parametrize("access", ["private", "gated"])
def test_repositories_that_are_not_for_everyone(hub: Hub, made: Path, access: str) -> None:
    hub.access = {"org/llama": access, "org/lora": access}
    for said, name in ((refused("org/llama"), "org/llama"), (refused(made / "llama", adapter="org/lora"), "org/lora")):
        assert access in said
        assert f"{hub.url}/{name}" in said
        assert "hf auth login" in said
        assert "HF_TOKEN" in said


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_connection_that_is_cut(hub: Hub, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)  # between the attempts of huggingface_hub
    hub.fault = lambda request: ("cut", 0) if request.endswith(f"main/{file}") or request.endswith(f"/{file}") else None
    assert f"{file} of org/llama could not be fetched from the hub" in refused("org/llama")
    hub.fault = lambda _request: None
    assert torch.equal(logits(tk.load("org/llama")[0]), logits(tiny("llama")))


def test_an_adapter_whose_download_is_cut(hub: Hub, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    hub.fault = lambda request: ("cut", 10) if request.endswith("adapter_model.safetensors") else None
    assert "adapter_model.safetensors of org/lora could not be fetched" in refused(made / "llama", adapter="org/lora")


def test_quantised_files_only(hub: Hub) -> None:
    pytest.importorskip("gguf")
    folder = place(hub, "org/gguf")
    for file in folder.iterdir():
        file.unlink()
    gguf_file(folder / "model-f32.gguf", tiny("llama"))
    said = refused("org/gguf")
    assert "`hf download org/gguf model-f32.gguf`" in said


def test_things_that_are_no_model_or_no_adapter(hub: Hub, made: Path) -> None:
    assert "pass it as adapter=" in refused("org/lora")
    said = refused(made / "llama", adapter="org/llama")
    assert "adapter='org/llama' holds a model, not an adapter" in said
    assert "adapter='org/none'" in refused(made / "llama", adapter="org/none")
    (place(hub, "org/empty") / "config.json").unlink()
    assert "without config.json" in refused("org/empty")
    assert "no possible name on the hub" in refused("a name/with spaces/and more")


def test_no_tokenizer(hub: Hub) -> None:
    for file in place(hub, "org/bare").glob("tokenizer*"):
        file.unlink()
    assert "'org/bare' holds no tokenizer" in refused("org/bare")


@pytest.mark.parametrize("kind", ["BertModel", "BertForMaskedLM", "LlamaModel"])
def test_a_model_without_a_head_that_writes(hub: Hub, kind: str) -> None:
    import transformers

    folder = place(hub, "org/encoder")
    if kind == "LlamaModel":
        tiny("llama").model.save_pretrained(folder)
    else:
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        getattr(transformers, kind)(transformers.BertConfig(**sizes, vocab_size=128)).save_pretrained(folder)
    said = refused("org/encoder")
    assert f"is a {kind}, which is no text or image-text model that generates" in said


def test_weights_that_are_not_all_there(hub: Hub) -> None:
    from safetensors.torch import load_file, save_file

    file = place(hub, "org/partial") / "model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if "down_proj" in name)
    del weights[name]
    save_file(weights, file, {"format": "pt"})
    assert f"has no weights for {name}" in refused("org/partial")


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("ran"),))


def test_a_pickle_that_runs_code(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = place(hub, "org/evil")
    (folder / "model.safetensors").unlink()
    torch.save({"x": Evil()}, folder / "pytorch_model.bin")
    assert "never read. Use a copy in safetensors" in refused("org/evil")
    assert not (tmp_path / "ran").exists()


def test_an_adapter_that_runs_code(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made / "lora", tmp_path / "evil")
    (tmp_path / "evil" / "adapter_model.safetensors").unlink()
    torch.save({"x": Evil()}, tmp_path / "evil" / "adapter_model.bin")
    assert "never read. Use a copy in safetensors" in refused(made / "llama", adapter=tmp_path / "evil")
    assert not (tmp_path / "ran").exists()


def test_vectors_and_trainings_know_the_commit(hub: Hub, tmp_path: Path) -> None:
    from truthkit.training.chat import Example
    from truthkit.training.lora import train
    from truthkit.training.settings import TrainingSettings

    model, tokenizer = tk.load("org/llama")
    pairs = [(f"{word} is good", f"{word} is bad") for word in ("ab", "cd", "ef", "gh")]
    vector = tk.extract(model, tokenizer, pairs, layers=[1], held_out=0)
    assert vector.provenance["model"]["commit"] == hub.commit("org/llama")
    examples = [Example("ab?", "cd")]
    report = train(model, tokenizer, examples, tmp_path / "out", settings=TrainingSettings(steps=1, rank=1))
    assert report["model"]["commit"] == hub.commit("org/llama")
    assert hub.commit("org/llama") in (tmp_path / "out" / "README.md").read_text()


def test_pickled_weights(hub: Hub) -> None:
    folder = place(hub, "org/bin")
    (folder / "model.safetensors").unlink()
    torch.save(tiny("llama", eos_token_id=2).state_dict(), folder / "pytorch_model.bin")
    assert torch.equal(logits(tk.load("org/bin")[0]), logits(tiny("llama")))


def test_sharded_weights_and_nothing_else(hub: Hub) -> None:
    folder = place(hub, "org/shards")
    (folder / "model.safetensors").unlink()
    tiny("llama", eos_token_id=2).save_pretrained(folder, max_shard_size="30KB")
    (folder / "consolidated.safetensors").write_bytes(b"a copy for another program")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "config.json").write_text("{}")
    assert torch.equal(logits(tk.load("org/shards")[0]), logits(tiny("llama")))
    assert not [line for line in hub.asked if "consolidated" in line or "onnx" in line]


@pytest.mark.parametrize("content", ["[1]", '{"temperature": 0.', '{"watermarking_config": 3}', "7"])
def test_a_generation_config_that_cannot_be_read_is_said(hub: Hub, content: str) -> None:
    (place(hub, "org/odd") / "generation_config.json").write_text(content)
    with pytest.warns(UserWarning, match=r"generation_config\.json of 'org/odd' cannot be read .*defaults instead"):
        model, _ = tk.load("org/odd")
    assert model.generation_config.eos_token_id == 2


def path_to_delete(said: str) -> Path:
    found = re.search(r"delete (\S+) and", said)
    assert found, said
    return Path(found[1])


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_damaged_file_is_named_and_once_deleted_it_works(hub: Hub, file: str) -> None:
    commit = hub.commit("org/llama")
    tk.load("org/llama")
    blob = (resolve("org/llama").folder / file).resolve()
    blob.write_bytes(blob.read_bytes()[:100])
    said = refused("org/llama")
    assert path_to_delete(said) == blob
    path_to_delete(said).unlink()
    model, _ = tk.load("org/llama")
    assert identity(model)["commit"] == commit
    assert torch.equal(logits(model), logits(tiny("llama")))


def test_damaged_adapter_weights_likewise(hub: Hub, made: Path) -> None:
    tk.load(made / "llama", adapter="org/lora")
    blob = (resolve("org/lora").folder / "adapter_model.safetensors").resolve()
    blob.write_bytes(b"junk" * 9)
    path_to_delete(refused(made / "llama", adapter="org/lora")).unlink()
    tk.load(made / "llama", adapter="org/lora")


def test_code_of_a_repository_runs_when_asked_for_alone(hub: Hub, tmp_path: Path) -> None:
    folder = place(hub, "org/code")
    settings = json.loads((folder / "config.json").read_text())
    classes = {"AutoConfig": "odd.OddConfig", "AutoModelForCausalLM": "odd.OddModel"}
    (folder / "config.json").write_text(json.dumps(settings | {"model_type": "odd", "auto_map": classes}))
    (folder / "odd.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class OddConfig(LlamaConfig):\n    model_type = 'odd'\n"
        "class OddModel(LlamaForCausalLM):\n    config_class = OddConfig\n"
    )
    assert "trust_remote_code=True" in refused("org/code")
    assert not [line for line in hub.asked if "odd.py" in line]
    model, _ = tk.load("org/code", trust_remote_code=True)
    assert type(model).__name__ == "OddModel"
    assert torch.equal(logits(model), logits(tiny("llama")))


def test_nothing_is_said_when_all_is_well(hub: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    tk.load("org/llama")
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tk.load("org/llama")
    assert capfd.readouterr().out == ""


def test_tokenizer_names_survive(hub: Hub) -> None:
    _, tokenizer = tk.load("org/llama")
    assert tokenizer("ab")["input_ids"] == byte_tokenizer(eos_token="</s>")("ab")["input_ids"]
