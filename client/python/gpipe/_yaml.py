"""A spec file's YAML as mappings, lists and texts, with the line that each field is on."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from typing import Any

import yaml

from gpipe import errors

MAX_BYTES = 1 << 20  # Of a spec.
MAX_NODES = 200_000  # An alias repeats its anchor's content for a few bytes of text.
MAX_DEPTH = 64
MERGE_KEY = "<<"


class Text(str):
    """A scalar as it is written. In quotes it is text, whatever it looks like."""

    quoted = False


class Document:
    """One file: `value` is what it says, `violations` what cannot be read."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.lines: dict[str, int] = {}  # By field path, from 1.
        self.violations: list[errors.FieldViolation] = []
        self.value: Any = None
        self._nodes = 0
        try:
            self._read(path.read_bytes())
        except _TooLarge as error:
            self._refuse("", str(error))
        except RecursionError:
            self._refuse("", "the document is nested too deeply")

    def with_lines(self, error: errors.InvalidRequestError) -> errors.InvalidRequestError:
        """Says `FILE:LINE:` before each violation, as the program `gpipe` does."""
        if not error.violations:
            return error
        message = "\n".join(f"{self._place(violation.field)} {violation}" for violation in error.violations)
        return type(error)(message, error.code, error.reason, error.violations)

    def _place(self, field: str) -> str:
        """The line of the field, or of the nearest field around it."""
        while field not in self.lines and field:
            field = field[:max(field.rfind("."), field.rfind("["), 0)]
        return f"{self.path}:{self.lines[field]}:" if field in self.lines else f"{self.path}:"

    def _refuse(self, field: str, description: str) -> None:
        self.violations.append(errors.FieldViolation(field, description))

    def _read(self, content: bytes) -> None:
        if len(content) > MAX_BYTES:
            return self._refuse("", f"the document is over the limit of {MAX_BYTES} bytes")
        try:
            text = content.decode()
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except UnicodeDecodeError as error:
            self.lines[""] = content.count(b"\n", 0, error.start) + 1
            return self._refuse("", "the document is not UTF-8 text")
        except yaml.MarkedYAMLError as error:
            if error.problem == "but found another document":
                return self._refuse("", "there is more than one document")
            mark = error.problem_mark
            self.lines[""] = mark.line + 1 if mark else 1
            where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
            return self._refuse("", f"{where}not good YAML: {error.problem}")
        except yaml.YAMLError as error:
            return self._refuse("", f"not good YAML: {error}")
        if node is None or _is_null(node):
            return self._refuse("", "the document is empty")
        self.lines[""] = node.start_mark.line + 1
        self.value = self._value(node, "", 0)

    def _value(self, node: yaml.Node, path: str, depth: int) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _TooLarge("the document has too many values once its aliases are expanded")
        if depth > MAX_DEPTH:
            raise _TooLarge("the document is nested too deeply")
        if _is_null(node):
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self._element(each, f"{path}[{i}]", depth) for i, each in enumerate(node.value)]
        text = Text(node.value)
        text.quoted = isinstance(node, yaml.ScalarNode) and node.style is not None
        return text

    def _element(self, node: yaml.Node, path: str, depth: int) -> Any:
        self.lines[path] = node.start_mark.line + 1
        return self._value(node, path, depth + 1)

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        given: set[str] = set()
        for key, value, merged in _entries(node, 0):
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            child = f"{path}.{name}" if path else name
            if not re.fullmatch(r"\S{1,64}", name):
                self._refuse(path, "has a key that is not a name")
            elif name in given and not merged:
                self.lines[child] = key.start_mark.line + 1
                self._refuse(child, "is given twice")
            elif name not in given:
                given.add(name)
                self.lines[child] = key.start_mark.line + 1
                if path or not name.startswith("x-"):  # A fragment for anchors, as Compose has them.
                    fields[name] = self._value(value, child, depth + 1)
        return fields


def _entries(node: yaml.MappingNode, depth: int) -> Iterator[tuple[yaml.Node, yaml.Node, bool]]:
    """Key, value, and whether it comes from another mapping; those that it gives itself first."""
    if depth > MAX_DEPTH:
        raise _TooLarge("<< is nested too deeply")
    others: list[yaml.Node] = []
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value == MERGE_KEY:
            others += value.value if isinstance(value, yaml.SequenceNode) else [value]
        else:
            yield key, value, depth > 0
    for other in others:
        if isinstance(other, yaml.MappingNode):
            yield from _entries(other, depth + 1)


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


class _TooLarge(Exception):
    pass
