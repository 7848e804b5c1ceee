"""What a decoder is, from its class: name, options, and what the docstring says of them.

A class is described from its module's source, so that its options are known before torch is imported; one that exists
already, as in a notebook, is described by itself.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import Parameter
from typing import Any, Literal, get_args, get_origin

from truthkit.decoding.source import Found, Source, read_source
from truthkit.errors import ArgumentError

_ENTRY = re.compile(r"^ {4}([\w, ]+): (.+(?:\n {8}.+)*)", re.MULTILINE)
_BASE = ("truthkit.decoding.engine.decoder", "Decoder")


@dataclass(frozen=True)
class Described:
    """A decoder's class, as its source says.

    Attributes:
        name: as in `DecoderSpec`.
        module, class_name: where the class is.
        parameters: its keyword-only parameters, with evaluated annotations; a default that is no literal is its text.
        summary: the docstring's first paragraph.
        help: the docstring's words on each parameter.
        choices: words that a parameter takes: those of its `Literal`, those that the docstring has in double quotes,
            and those in a constant that it names.
        sees_images: whether it compares images.
        combines: whether it is a `Decoder`, which can be combined with others.
    """

    name: str
    module: str
    class_name: str
    parameters: dict[str, Parameter]
    summary: str
    help: dict[str, str]
    choices: dict[str, tuple[str, ...]]
    sees_images: bool
    combines: bool


def classes_with_a_name(module: str) -> list[str]:
    """The classes of a module that state a `name`, in their order."""
    source = _source(module)
    return [name for name, node in source.classes.items() if "name" in _stated(node)]


def described(module: str, class_name: str) -> Described:
    """The decoder `class_name` of `module`, which is not imported, unless there is no source.

    Raises:
        ModuleNotFoundError, SyntaxError: the module cannot be read.
        ArgumentError: it has no such class, or that states no `name`.
    """
    if read_source(module) is None:
        from importlib import import_module

        if (found := getattr(import_module(module), class_name, None)) is None:
            raise ArgumentError(f"{module} has no {class_name}")
        return described_class(found)
    source = _source(module)
    found_class = source.find(ast.Name(class_name))
    if found_class is None or not isinstance(found_class.node, ast.ClassDef):
        raise ArgumentError(f"{module} has no class {class_name}")
    line = list(_line(found_class))
    stated = [_stated(node) for _, node in line]
    name = stated[0].get("name")
    if not isinstance(name, str):
        raise ArgumentError(f'{class_name} in {module} states no name, as in `name = "mine"`')
    parameters = next((_parameters(*one) for one in line if _init(one[1])), {})
    return _put_together(
        name,
        found_class.source.module,
        class_name,
        parameters,
        [(its, inspect.cleandoc(ast.get_docstring(node) or "")) for its, node in line],
        sees_images=bool(next((one["sees_images"] for one in stated if "sees_images" in one), False)),
        combines=any(_is_engine(its, base) for its, node in line for base in node.bases),
    )


def described_class(decoder: type) -> Described:
    """A class that has been imported, by its signature and docstring.

    Raises:
        ArgumentError: it states no `name`.
    """
    if not isinstance(name := vars(decoder).get("name"), str):
        raise ArgumentError(f"{decoder.__name__} states no name")
    try:
        signature = inspect.signature(decoder, eval_str=True)
    except NameError:  # an annotation that is known to type checkers only
        signature = inspect.signature(decoder)
    return _put_together(
        name,
        decoder.__module__,
        decoder.__qualname__,
        {key: one for key, one in signature.parameters.items() if one.kind is Parameter.KEYWORD_ONLY},
        [(None, inspect.cleandoc(owner.__doc__ or "")) for owner in decoder.__mro__[:-1]],
        sees_images=bool(getattr(decoder, "sees_images", False)),
        combines=hasattr(decoder, "combine"),
    )


def _put_together(
    name: str,
    module: str,
    class_name: str,
    parameters: dict[str, Parameter],
    docs: Sequence[tuple[Source | None, str]],
    *,
    sees_images: bool,
    combines: bool,
) -> Described:
    entries = {key: _entry(docs, key) for key in parameters}
    return Described(
        name=name,
        module=module,
        class_name=class_name,
        parameters=parameters,
        summary=_plain(docs[0][1].split("\n\n")[0]),
        help={key: _plain(words) for key, (_, words) in entries.items()},
        choices={key: _choices(parameters[key].annotation, *entry) for key, entry in entries.items()},
        sees_images=sees_images,
        combines=combines,
    )


def _source(module: str) -> Source:
    if (source := read_source(module)) is None:
        raise ModuleNotFoundError(f"{module} has no source")
    return source


def _line(found: Found) -> Iterator[tuple[Source, ast.ClassDef]]:
    """The class and its bases, as far as their source is known; the engine's own base ends it."""
    source, node = found
    if not isinstance(node, ast.ClassDef):
        return
    yield source, node
    for base in node.bases:
        if not _is_engine(source, base) and (further := source.find(base)) is not None:
            yield from _line(further)


def _is_engine(source: Source, base: ast.expr) -> bool:
    """Whether a class's base is `Decoder` itself."""
    return source.origin(base) == _BASE or (
        (found := source.find(base)) is not None and found.source.module == _BASE[0]
    )


def _stated(node: ast.ClassDef) -> dict[str, Any]:
    """The literals that a class's body states by a plain name."""
    values: dict[str, Any] = {}
    for statement in node.body:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=value))
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=value))
            ):
                values[name] = value
    return values


def _init(node: ast.ClassDef) -> ast.FunctionDef | None:
    return next((one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)


def _parameters(source: Source, node: ast.ClassDef) -> dict[str, Parameter]:
    init = _init(node)
    assert init is not None
    return {
        one.arg: Parameter(
            one.arg,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if default is None else _default(source, default),
            annotation=source.annotation(one.annotation) if one.annotation else Any,
        )
        for one, default in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)
    }


def _default(source: Source, node: ast.expr) -> Any:
    try:
        return source.value(node)
    except (ValueError, ModuleNotFoundError, SyntaxError):
        return ast.unparse(node)


def _entry(docs: Sequence[tuple[Source | None, str]], option: str) -> tuple[Source | None, str]:
    """The docstring's words on an option, and where they stand; where they say "as in" the base class, the base's."""
    for source, text in docs:
        for names, words in _ENTRY.findall(text):
            if option in re.split(r",\s*", names) and not words.startswith("as in "):
                return source, words
    return None, ""


def _choices(annotation: Any, source: Source | None, words: str) -> tuple[str, ...]:
    literal = [
        word for one in (annotation, *get_args(annotation)) if get_origin(one) is Literal for word in get_args(one)
    ]
    if literal:
        return tuple(word for word in literal if isinstance(word, str))
    quoted = re.findall(r'"(\w+)"', words)
    listed = re.findall(r"`([\w.]*[A-Z_]{3,})`", words) if source else []
    for name in listed:
        assert source is not None
        module, _, constant = name.rpartition(".")
        where = read_source(module) if module.startswith("truthkit.") else source
        quoted += where.keys(ast.Name(constant)) if where else ()
    return tuple(dict.fromkeys(quoted))


def _plain(words: str) -> str:
    return " ".join(words.replace("`", "").split())
