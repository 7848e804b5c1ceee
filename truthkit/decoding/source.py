"""Python modules read without being run: their classes, constants and imports, and what annotations mean.

Names are followed through imports, from module to module. What cannot be known without running code is `Any`.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union

REAL = ("typing", "collections.abc", "truthkit.decoding.engine.options")
"""Modules that are imported for what their names stand for; none of them is heavy."""

_DEEPEST = 20
"""Names that are followed one after the other; more are a circle."""


class Found(NamedTuple):
    """A class or a constant's value, and the module in which it stands."""

    source: Source
    node: ast.AST


class Source:
    """A module's text in pieces.

    Attributes:
        module: its dotted name.
        classes: its classes by name.
        constants: the values of its assignments by name.
        imports: names with the module that each is from, and the name there; None for the module itself.
    """

    def __init__(self, module: str, text: str, *, package: bool = False):
        self.module = module
        self._package = module if package else module.rpartition(".")[0]
        self.classes: dict[str, ast.ClassDef] = {}
        self.constants: dict[str, ast.expr] = {}
        self.imports: dict[str, tuple[str, str | None]] = {}
        for statement in _statements(ast.parse(text).body):
            match statement:
                case ast.ClassDef(name=name):
                    self.classes[name] = statement
                case (
                    ast.Assign(targets=[target], value=value) | ast.AnnAssign(target=target, value=ast.expr() as value)
                ):
                    self._assign(target, value)
                case ast.Import(names=names):
                    for alias in names:
                        name = alias.asname or alias.name.partition(".")[0]
                        self.imports[name] = (alias.name if alias.asname else name, None)
                case ast.ImportFrom(names=names):
                    for alias in names:
                        self.imports[alias.asname or alias.name] = (self._origin(statement), alias.name)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        match target, value:
            case ast.Name(id=name), _:
                self.constants[name] = value
            case ast.Tuple(elts=targets), ast.Tuple(elts=values) if len(targets) == len(values):
                for one, its in zip(targets, values, strict=True):
                    self._assign(one, its)

    def _origin(self, statement: ast.ImportFrom) -> str:
        if not statement.level:
            return statement.module or ""
        base = self._package.split(".")[: len(self._package.split(".")) - statement.level + 1]
        return ".".join([*base, statement.module] if statement.module else base)

    def origin(self, node: ast.AST) -> tuple[str, str] | None:
        """The module and the name that a name or `module.name` stands for, as far as this module says."""
        match node:
            case ast.Name(id=name) if name in self.imports:
                module, its = self.imports[name]
                return (module, its) if its is not None else None
            case ast.Name(id=name):
                return self.module, name
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name in self.imports:
                module, its = self.imports[name]
                return (module if its is None else f"{module}.{its}", attribute)
        return None

    def find(self, node: ast.AST) -> Found | None:
        """The class or constant that a name stands for, here or where it is imported from; None if that is unknown."""
        source: Source | None = self
        for _ in range(_DEEPEST):
            if source is None or (place := source.origin(node)) is None:
                return None
            module, name = place
            if module != source.module:
                source = read_source(module) if module.partition(".")[0] not in sys.stdlib_module_names else None
            elif found := source.classes.get(name) or source.constants.get(name):
                return Found(source, found)
            else:
                return None
            node = ast.Name(name)
        return None

    def value(self, node: ast.AST) -> Any:
        """A literal, or that of the constant which is named.

        Raises:
            ValueError: it is neither.
        """
        match node:
            case ast.Name() | ast.Attribute():
                if (found := self.find(node)) is None or isinstance(found.node, ast.ClassDef):
                    raise ValueError(f"{ast.unparse(node)} is no constant")
                return found.source.value(found.node)
        return ast.literal_eval(node)

    def keys(self, node: ast.AST) -> tuple[str, ...]:
        """The words in the constant that is named, a dictionary's keys or a tuple's entries; () if it is neither."""
        found = self.find(node)
        match found and found.node:
            case ast.Dict(keys=listed) | ast.Tuple(elts=listed) | ast.List(elts=listed):
                words = [one.value for one in listed if isinstance(one, ast.Constant)]
                return tuple(word for word in words if isinstance(word, str))
        return ()

    def annotation(self, node: ast.AST | None, depth: int = 0) -> Any:
        """The type that an annotation stands for, with `object` for our own classes and `Any` for others."""
        if depth > _DEEPEST:
            return Any
        try:
            return self._type(node, depth + 1)
        except (TypeError, ValueError, SyntaxError):
            return Any

    def _type(self, node: ast.AST | None, depth: int) -> Any:
        match node:
            case ast.Constant(value=None):
                return None
            case ast.Constant(value=str() as text):
                return self.annotation(ast.parse(text, mode="eval").body, depth)
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return Union[self.annotation(left, depth), self.annotation(right, depth)]  # noqa: UP007 - of None too
            case ast.Subscript(value=base, slice=inner):
                outer = self.annotation(base, depth)
                parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
                if outer is Literal:
                    return Literal[tuple(map(ast.literal_eval, parts))]
                if outer is Annotated:
                    return Annotated[tuple(self.annotation(part, depth) for part in parts)]
                return outer if outer is Any else outer[tuple(self.annotation(part, depth) for part in parts)]
            case ast.List(elts=parts):
                return [self.annotation(part, depth) for part in parts]
            case ast.Name() | ast.Attribute():
                return self._named(node, depth)
        return Any

    def _named(self, node: ast.Name | ast.Attribute, depth: int) -> Any:
        module, name = self.origin(node) or ("", "")
        if module in REAL:
            return getattr(import_module(module), name, Any)
        if module == self.module and name not in self.classes and name not in self.constants:
            return getattr(builtins, name, Any)
        ours = module.partition(".")[0] in ("truthkit", self.module.partition(".")[0])  # torch's source is large
        if not ours or (found := self.find(node)) is None:
            return Any
        if isinstance(found.node, ast.ClassDef):
            return object
        return found.source.annotation(found.node, depth)


@cache
def read_source(module: str) -> Source | None:
    """A module's source; None where there is no text of it, as for what is compiled.

    A package's stub is read in the place of its `__init__`. No module is imported for it, the packages around it
    included.

    Raises:
        ModuleNotFoundError: there is no such module.
        SyntaxError: it is not Python.
    """
    spec = _located(module)
    if spec is None:
        raise ModuleNotFoundError(f"there is no module {module!r}")
    stub = Path(spec.origin or "").with_suffix(".pyi")
    if spec.submodule_search_locations is not None and stub.name == "__init__.pyi" and stub.is_file():
        text: str | None = stub.read_text(encoding="utf-8")
    else:
        text = getattr(spec.loader, "get_source", lambda _name: None)(module)
    return None if text is None else Source(module, text, package=spec.submodule_search_locations is not None)


def submodules(package: str) -> list[str]:
    """The modules of a package, by name, without importing it."""
    import pkgutil

    spec = _located(package)
    places = (spec and spec.submodule_search_locations) or ()
    return sorted(f"{package}.{module.name}" for module in pkgutil.iter_modules(list(places)))


def _located(module: str) -> ModuleSpec | None:
    name, *rest = module.split(".")
    spec = importlib.util.find_spec(name)
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, spec.submodule_search_locations)
    return spec


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """A module's statements, those under `if` and `try` included."""
    for statement in body:
        match statement:
            case ast.If(body=inner, orelse=other):
                yield from _statements([*inner, *other])
            case ast.Try(body=inner, handlers=handlers, orelse=other):
                yield from _statements([*inner, *other, *(one for handler in handlers for one in handler.body)])
            case _:
                yield statement
