"""`truthkit models`: what is on this machine, where, and how to get more."""

from __future__ import annotations

import argparse
from typing import Any

from truthkit.files.writing import json_text

_EPILOG = """\
example:
  truthkit models --json
  truthkit models --verify
"""


def add_parser(subparsers: Any) -> None:
    """Add `models` to the command line."""
    parser = subparsers.add_parser(
        "models",
        help="what is bundled and cached, and how to get more",
        description="List the bundled models and those in the hub cache, and say how to get more.",
        epilog=_EPILOG,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument("--verify", action="store_true", help="read all files and compare them with their checksums")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the list; fails where `--verify` finds damage."""
    if args.verify:
        return _verify(as_json=args.json)
    bundled, hub = _bundled(), _hub_cache()
    if args.json:
        print(json_text({"bundled": bundled, "hub_cache": hub}))
        return 0
    print("Bundled (no hub needed)")
    for entry in bundled:
        default = ", the default" if entry["default"] else ""
        print(f"  {entry['name']}{default}: {entry['title']}, {entry['license']}")
        print(f"    {_state(entry)}")
    print("\nIn the hub cache")
    for entry in hub:
        print(f"  {entry['id']}: {entry['kind']}, {_size(entry['bytes'])} in {entry['path']}")
    if not hub:
        print("  nothing")
    print("\nMore")
    print('  tk.load("org/name")       any text or image-text model of the hub')
    print('  tk.load("path/to/model")  a folder that save_pretrained wrote')
    print('  tk.load("model.gguf")     a GGUF file (pip install "truthkit[gguf]")')
    print("  tk.load(..., adapter=A)   with a PEFT adapter, a folder or a hub id")
    return 0


def _verify(*, as_json: bool) -> int:
    """Read everything that is here: 0 where it is as it was written or fetched, 1 with the paths to delete."""
    from truthkit.models.bundled import BUNDLED, BundledModel
    from truthkit.models.store import converted_folder, damaged_blobs, is_complete

    folders = [converted_folder(model) for model in BUNDLED.values() if isinstance(model, BundledModel)]
    damaged = [folder for folder in folders if folder.is_dir() and not is_complete(folder, verify=True)]
    damaged += damaged_blobs()
    if as_json:
        print(json_text({"damaged": [str(path) for path in damaged]}))
    else:
        for path in damaged:
            print(f"damaged: {path}: delete it; the next load makes or fetches it anew")
        if not damaged:
            print("All files are as they were written or fetched.")
    return 1 if damaged else 0


def _bundled() -> list[dict[str, Any]]:
    """One record for each bundled model; `path` and `bytes` are None until it is converted, as a shipped one is."""
    from truthkit.models.bundled import BUNDLED, DEFAULT, ShippedModel
    from truthkit.models.store import converted_folder, is_complete

    records = []
    for model in BUNDLED.values():
        if isinstance(model, ShippedModel):
            folder, installed, converted, how_to_get = model.folder, True, True, "part of truthkit"
        else:
            folder, installed, how_to_get = converted_folder(model), model.source() is not None, model.ways_to_get()
            converted = is_complete(folder)
        records.append(
            {
                "name": model.name,
                "default": model.name == DEFAULT,
                "title": model.title,
                "license": model.license,
                "installed": installed,
                "converted": converted,
                "path": str(folder) if converted else None,
                "bytes": sum(file.stat().st_size for file in folder.iterdir()) if converted else None,
                "how_to_get": how_to_get,
            }
        )
    return records


def _hub_cache() -> list[dict[str, Any]]:
    """One record for each model or adapter repository in the hub cache, by name."""
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return []
    records = []
    for repo in sorted(repos, key=lambda repo: repo.repo_id):
        if repo.repo_type != "model":
            continue
        files = {file.file_name for revision in repo.revisions for file in revision.files}
        kind = "adapter" if "adapter_config.json" in files else "model"
        records.append({"id": repo.repo_id, "kind": kind, "path": str(repo.repo_path), "bytes": repo.size_on_disk})
    return records


def _state(entry: dict[str, Any]) -> str:
    if entry["converted"]:
        return f"ready: {_size(entry['bytes'])} in {entry['path']}"
    if entry["installed"]:
        return "installed; converted once, in about 15 seconds, when first loaded"
    return f"not here: {entry['how_to_get']}"


def _size(count: int) -> str:
    """Bytes for people, in decimal units."""
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"
