"""The house: imports point down its floors, and nothing imports in a circle. Read from the source, nothing is run.

Imports inside functions and those for type checkers count too: what they need they know.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT

FLOORS = (
    (
        "errors",
        "interrupt",
        "printable",
        "markup",
        "token_page",
        "output",
        "parallel",
        "plugins",
        "progress",
        "written",
        "lazy",
    ),
    ("files", "figures", "text", "hf", "statistics", "images", "serving"),
    ("models", "scenes", "activations", "decoding"),
    ("steering", "likelihood", "generation"),
    ("training", "factcheck", "detection"),
    ("evaluation",),
    ("study",),
    ("app", "endpoint", "cli", "lm_eval", "inspect_ai", "lmms_eval"),
)
"""Rooms of the package from the ground up; a room imports from its own floor and from those below."""

INSIDE = {
    "truthkit.decoding": (("engine",), ("methods", "contrastive_search", "opera"), ("spec", "catalog")),
    "truthkit.evaluation": (("running",), ("tasks",), ("report",)),
}
"""Floors within a room."""

Edges = dict[str, set[str]]


def modules(folder: Path) -> dict[str, Path]:
    """All modules of a package by dotted name."""
    return {
        ".".join(path.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(folder.rglob("*.py"))
    }


def imports(known: dict[str, Path]) -> Edges:
    """For every module those of the package that it imports, wherever in its source."""
    edges: Edges = {}
    for module, path in known.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            targets: list[str] = []
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                targets = [name if name in known else node.module for name in names]
            edges.setdefault(module, set()).update(name for name in targets if name in known and name != module)
    return edges


def loops(edges: Edges) -> list[set[str]]:
    """Modules that reach each other (Tarjan's strongly connected components of more than one)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    found: list[set[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        path.append(node)
        for other in sorted(edges[node]):
            if other not in order:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in path:
                low[node] = min(low[node], order[other])
        if low[node] == order[node]:
            loop = {path.pop()}
            while node not in loop:
                loop.add(path.pop())
            if len(loop) > 1:
                found.append(loop)

    for node in edges:
        if node not in order:
            visit(node)
    return found


def between(edges: Edges, package: str) -> Iterator[tuple[str, str, str]]:
    """The imports from one room of a package to another: both rooms, and which module imports which."""
    depth = package.count(".") + 1
    for module, targets in edges.items():
        for target in targets:
            rooms = [name.split(".")[depth] for name in (module, target) if name.startswith(f"{package}.")]
            if len(rooms) == 2 and rooms[0] != rooms[1]:
                yield rooms[0], rooms[1], f"{module} imports {target}"


def against(edges: Edges, package: str, floors: tuple[tuple[str, ...], ...]) -> list[str]:
    """The imports that point upwards; rooms without a floor are left out."""
    height = {room: number for number, floor in enumerate(floors) for room in floor}
    return [
        text
        for here, there, text in between(edges, package)
        if here in height and there in height and height[there] > height[here]
    ]


def mutual(edges: Edges, package: str) -> set[frozenset[str]]:
    """Pairs of rooms that import each other."""
    pairs = {(here, there) for here, there, _ in between(edges, package)}
    return {frozenset(pair) for pair in pairs if pair[::-1] in pairs}


KNOWN = modules(ROOT / "truthkit")
EDGES = imports(KNOWN)


def test_every_room_has_a_floor() -> None:
    rooms = {name.split(".")[1] for name in KNOWN if "." in name}
    assert rooms - {room for floor in FLOORS for room in floor} == set()


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert loops(EDGES) == []


def test_no_two_rooms_import_each_other() -> None:
    assert {package: mutual(EDGES, package) for package in ("truthkit", *INSIDE)} == {
        package: set() for package in ("truthkit", *INSIDE)
    }


def test_imports_point_down() -> None:
    assert against(EDGES, "truthkit", FLOORS) == []
    assert [text for package, floors in INSIDE.items() for text in against(EDGES, package, floors)] == []


def test_what_is_wrong_is_found(tmp_path: Path) -> None:
    """A package made up of every fault: a loop through a function's import, a pair of rooms, an upward import."""
    sources = {
        "house/__init__.py": "",
        "house/low/__init__.py": "",
        "house/low/a.py": "def late():\n    from house.high import b\n",
        "house/high/__init__.py": "",
        "house/high/b.py": "from house.low.a import late\n",
        "house/high/c.py": "import house.high.b\n",
    }
    for name, text in sources.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    edges = imports(modules(tmp_path / "house"))
    assert loops(edges) == [{"house.low.a", "house.high.b"}]
    assert mutual(edges, "house") == {frozenset({"low", "high"})}
    assert against(edges, "house", (("low",), ("high",))) == ["house.low.a imports house.high.b"]
