"""What people write, made into plain values: YAML, `${NAME}`, durations, sizes.

Decides what a text means and where it was written, never whether the value is a good one: that is `config_model`
(types) and `config_checks` (rules). Called by `config` alone. It never touches the process's environment: the variables
come in as a mapping.

Variables are expanded inside scalars *after* YAML was parsed, so that a value with YAML syntax in it stays one string.
The alternative, expanding the whole text first, would let a password with a `#` or a line break change the structure.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import TypeAlias

import yaml

from dualtrack.errors import Problem

Where: TypeAlias = tuple[str | int, ...]

_VARIABLE = re.compile(r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\}|\$\{")
_REFERENCE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-)?\}")
_QUOTED = re.compile(r"'[^']{2,}'")

_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*(ms|s|m|h|d)")
_MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([kmgt]i?b|b)?", re.IGNORECASE)
_BYTES = {"b": 1} | {
    f"{prefix}{suffix}": base**power
    for power, prefix in enumerate("kmgt", start=1)
    for suffix, base in (("b", 1000), ("ib", 1024))
}


@dataclass(slots=True)
class Document:
    """A file as read: its values, what stood there for each scalar before expansion, and what was wrong so far."""

    tree: dict[str, object] = field(default_factory=dict)
    written: dict[Where, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def dotted(where: Where) -> str:
    """Write a path as people read it: `allowed_hosts[0]`, `backends.azureml.auth.token`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).lstrip(".")


def is_reference(text: str) -> bool:
    """Say whether the whole text is one variable, without a default that would itself be a value."""
    return _REFERENCE.fullmatch(text) is not None


def read(text: str, environ: Mapping[str, str]) -> Document:
    """Parse YAML and expand variables. Whatever is wrong is in the document's `problems`; nothing is raised."""
    document = Document()
    if _is_unreadable(text, document):
        return document
    loader = yaml.SafeLoader(text)
    try:
        _read_top(loader, document, environ)
    except yaml.MarkedYAMLError as error:
        document.problems.append(_syntax(error, text))
    except RecursionError:
        document.problems.append(_problem((), "is nested too deeply", "write it flat"))
    finally:
        loader.dispose()
    return document


def _is_unreadable(text: str, document: Document) -> bool:
    """Note characters that YAML forbids; PyYAML would quote them, and what surrounds them, in its own error."""
    found = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if found is None:
        return False
    line = text.count("\n", 0, found.start()) + 1
    document.problems.append(
        Problem(
            path=f"line {line}",
            value=f"U+{ord(found.group()):04X}",
            message="holds a character that YAML does not allow",
            fix="remove it, or write it as an escape in double quotes",
        )
    )
    return True


def _read_top(loader: yaml.SafeLoader, document: Document, environ: Mapping[str, str]) -> None:
    node = loader.get_single_node()
    if isinstance(node, yaml.MappingNode):
        _Reader(loader, document, environ).fill(document.tree, node, (), frozenset())
        return
    message = "is empty" if node is None else "is not a mapping of keys to values"
    document.problems.append(_problem((), message, "start from config/minimal.yaml: primary, registry, backends"))


def _syntax(error: yaml.MarkedYAMLError, text: str) -> Problem:
    """Say where YAML ends to make sense. What stands there is left out: it may be half of a secret."""
    mark = error.problem_mark or error.context_mark
    path = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "the file"
    message = _QUOTED.sub("'…'", error.problem or "cannot be read")
    lines = text.splitlines()
    has_variable = mark is not None and mark.line < len(lines) and "${" in lines[mark.line]
    fix = "check indentation, colons and quotes on that line and the one before"
    return Problem(
        path=path,
        value="",
        message=f"is not YAML: {message}",
        fix='between braces, write "${NAME}" in quotes' if has_variable else fix,
    )


def _problem(where: Where, message: str, fix: str, value: str = "") -> Problem:
    return Problem(path=dotted(where) or "the file", value=value, message=message, fix=fix)


class _Reader:
    """Walks YAML nodes into plain values, so that each value knows its path and each key its line."""

    def __init__(self, loader: yaml.SafeLoader, document: Document, environ: Mapping[str, str]) -> None:
        self._loader = loader
        self._document = document
        self._environ = environ
        self._checked: set[int] = set()

    def fill(self, tree: dict[str, object], node: yaml.MappingNode, where: Where, above: frozenset[int]) -> None:
        if id(node) not in self._checked:
            self._checked.add(id(node))
            self._note_doubles(node, where)
            self._loader.flatten_mapping(node)
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else None
            if key is None:
                self._note(where, "has a key that is not text", "write keys as plain words")
            else:
                tree[key] = self._value(value_node, (*where, key), above | {id(node)})

    def _value(self, node: yaml.Node, where: Where, above: frozenset[int]) -> object:
        if id(node) in above:
            self._note(where, "contains itself", "an alias (`*name`) cannot stand inside its own anchor")
            return None
        match node:
            case yaml.MappingNode():
                tree: dict[str, object] = {}
                self.fill(tree, node, where, above)
                return tree
            case yaml.SequenceNode():
                inside = above | {id(node)}
                return [self._value(item, (*where, index), inside) for index, item in enumerate(node.value)]
            case _:
                return self._scalar(node, where)

    def _scalar(self, node: yaml.Node, where: Where) -> object:
        text = str(node.value)
        self._document.written[where] = text
        try:
            value = self._loader.construct_object(node)
        except ValueError:  # 2026-02-31 looks like a date to YAML and is none
            value = text
        if value is None or isinstance(value, bool | int | float):
            return value
        return self._expand(text, where)

    def _expand(self, text: str, where: Where) -> str:
        def insert(found: re.Match[str]) -> str:
            if found.group() == "$$":
                return "$"
            name, default = found.group(1), found.group(3)
            if name is None:
                self._note(where, "has a `${` that starts no variable", "write `${NAME}`, or `$${` for the text")
                return found.group()
            value = self._environ.get(name)
            if value is None and default is None:
                self._note(
                    where,
                    f"needs the environment variable {name}, which is not set",
                    f"set {name}, or write ${{{name}:-default}}",
                )
                return found.group()
            return value or default or ""

        return _VARIABLE.sub(insert, text)

    def _note_doubles(self, node: yaml.MappingNode, where: Where) -> None:
        lines: dict[str, int] = {}
        for key_node, _ in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if isinstance(key_node, yaml.ScalarNode) and key in lines:
                self._note(
                    (*where, key),
                    f"is written twice, on lines {lines[key]} and {line}",
                    "keep one of them",
                )
            lines.setdefault(key, line)

    def _note(self, where: Where, message: str, fix: str) -> None:
        self._document.problems.append(_problem(where, message, fix))


def parse_duration(text: str) -> timedelta:
    """Read `250ms`, `5s`, `2m`, `1h`, `1d`. Raise `ValueError`."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ValueError("is not a duration")
    try:
        return timedelta(milliseconds=float(Decimal(found.group(1)) * _MILLISECONDS[found.group(2)]))
    except OverflowError as error:
        raise ValueError("is longer than can be counted") from error


def duration_text(duration: timedelta) -> str:
    """Write a duration in its largest whole unit, to the millisecond."""
    milliseconds = round(duration / timedelta(milliseconds=1))
    for unit in ("d", "h", "m", "s"):
        count, rest = divmod(milliseconds, _MILLISECONDS[unit])
        if count and not rest:
            return f"{count}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0s"


def parse_size(text: str) -> int:
    """Read `256MiB`, `10GB`, `1024`: bytes. Raise `ValueError`."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError("is not a size")
    return int(Decimal(found.group(1)) * _BYTES[(found.group(2) or "b").lower()])


def size_text(size: int) -> str:
    """Write a number of bytes in its largest whole unit of 1024."""
    for unit, label in (("tib", "TiB"), ("gib", "GiB"), ("mib", "MiB"), ("kib", "KiB")):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{label}"
    return str(size)
