"""A job's spec, from whatever it is written in. Errors are those of the program `gpipe` (common/spec/yaml_message.cc),
in its words."""

from __future__ import annotations

import numbers
import operator
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor
from google.protobuf.message import Message

from gpipe import errors, v1
from gpipe._yaml import Document, Text

Spec = Mapping[str, Any] | v1.JobSpec | str | os.PathLike[str]

# What typeshed knows of descriptors depends on the library below them.
Field = Any
Kind = descriptor.FieldDescriptor
INTEGERS = {Kind.CPPTYPE_INT32: (-2**31, 2**31 - 1), Kind.CPPTYPE_INT64: (-2**63, 2**63 - 1),
            Kind.CPPTYPE_UINT32: (0, 2**32 - 1), Kind.CPPTYPE_UINT64: (0, 2**64 - 1)}
WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}  # YAML 1.1's.
SHOWN = 60


class SpecFile:
    """A spec, the folder that its paths are relative to, and the document that it came from, if any."""

    def __init__(self, spec: Spec, folder: str | os.PathLike[str] | None = None):
        """InvalidSpecError has everything that cannot be read."""
        self.document: Document | None = None
        self.folder = pathlib.Path(folder or "")
        self.spec = v1.JobSpec()
        if isinstance(spec, v1.JobSpec):
            self.spec.CopyFrom(spec)
            return
        reader = _Reader()
        if isinstance(spec, Mapping):
            reader.message(spec, "", self.spec)
        else:
            self.document = Document(pathlib.Path(spec))
            self.folder = pathlib.Path(folder or self.document.path.parent)
            reader.violations = self.document.violations
            reader.message(self.document.value, "", self.spec)
        if reader.violations:
            raise self.explained(errors.invalid_spec(reader.violations))

    def explained(self, error: errors.InvalidRequestError) -> errors.InvalidRequestError:
        """With file and line, where there are some."""
        return self.document.with_lines(error) if self.document else error


class _Reader:
    """Fills any message by its descriptor: keys are field names, enums their short lower-case names, a repeated field
    also takes a single value, a message with no fields takes {} or nothing."""

    def __init__(self) -> None:
        self.violations: list[errors.FieldViolation] = []

    def message(self, value: Any, path: str, message: Message) -> None:
        """Messages may be given as such, too."""
        if value is None:
            return
        if isinstance(value, Message) and value.DESCRIPTOR is message.DESCRIPTOR:
            message.MergeFrom(value)
        elif isinstance(value, str) and self._bare_name(value, path, message):
            pass
        elif not isinstance(value, Mapping):
            self._refuse(path, f"must be a mapping, not {_describe(value)}")
        else:
            for name, child in value.items():
                self._entry(str(name), child, path, message)

    def _refuse(self, path: str, description: str) -> None:
        self.violations.append(errors.FieldViolation(path, description))

    def _entry(self, name: str, value: Any, path: str, message: Message) -> None:
        child = f"{path}.{name}" if path else name
        field = message.DESCRIPTOR.fields_by_name.get(name)
        if field is None:
            return self._unknown(name, path, message)
        oneof = _oneof(field)
        other = message.WhichOneof(oneof) if oneof else None
        if other is not None:
            return self._refuse(child, f"cannot stand beside {other}: give one of them")
        if field.is_repeated:
            return self._repeated(value, child, field, message)
        if value is None and field.message_type is None:
            return self._refuse(child, "has no value")
        self._value(value, child, field, message)

    def _unknown(self, name: str, path: str, message: Message) -> None:
        nearest = nearest_name(name, [field.name for field in message.DESCRIPTOR.fields])
        self._refuse(f"{path}.{name}" if path else name,
                     f"is not a field here; did you mean {nearest}?" if nearest else "is not a field here")

    def _bare_name(self, name: str, path: str, message: Message) -> bool:
        """A bare word for a message chosen in a oneof: `- relu`. False: it is something else."""
        field = message.DESCRIPTOR.fields_by_name.get(name)
        chooses = path != "" and any(map(_oneof, message.DESCRIPTOR.fields))
        if field is None and chooses and re.fullmatch(r"[A-Za-z_]\w{0,63}", name, re.ASCII):
            self._unknown(name, path, message)
            return True
        if field is None or field.message_type is None or not _oneof(field):
            return False
        getattr(message, name).SetInParent()
        return True

    def _repeated(self, value: Any, path: str, field: Field, message: Message) -> None:
        if value is None:
            return self._refuse(path, "has no value")
        if hasattr(value, "tolist"):  # NumPy's and torch's.
            value = value.tolist()
        if not isinstance(value, (list, tuple)):
            return self._value(value, path, field, message)
        for i, element in enumerate(value):
            if element is None:
                self._refuse(f"{path}[{i}]", "has no value")
            else:
                self._value(element, f"{path}[{i}]", field, message)

    def _value(self, value: Any, path: str, field: Field, message: Message) -> None:
        """Sets the field, or appends to it when it is repeated."""
        if field.message_type is not None:
            child = getattr(message, field.name)
            if field.is_repeated:
                child = child.add()
            else:
                child.SetInParent()
            return self.message(value, path, child)
        number = _enum_number(value, field) if field.enum_type is not None else _scalar(value, field)
        if number is None:
            return self._refuse(path, f"must be {_wanted(field)}, not {_describe(value)}")
        if field.is_repeated:
            getattr(message, field.name).append(number)
        else:
            setattr(message, field.name, number)


def _oneof(field: Field) -> str | None:
    """Not the one that stands for `optional`."""
    oneof = field.containing_oneof
    return None if oneof is None or oneof.name == f"_{field.name}" else oneof.name


def _scalar(value: Any, field: Field) -> Any:
    """None: it is of another type, or out of range."""
    if field.cpp_type == Kind.CPPTYPE_STRING:
        return os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if isinstance(value, str) and (not isinstance(value, Text) or value.quoted):
        return None
    if field.cpp_type == Kind.CPPTYPE_BOOL:
        return WORDS.get(value.lower()) if isinstance(value, str) else value if isinstance(value, bool) else None
    if isinstance(value, bool):
        return None
    try:
        if field.cpp_type in INTEGERS:
            low, high = INTEGERS[field.cpp_type]
            number = int(value) if isinstance(value, str) else operator.index(value)
            return number if low <= number <= high and "_" not in str(value) else None
        return float(value) if isinstance(value, (str, numbers.Real)) and "_" not in str(value) else None
    except (ValueError, TypeError):
        return None


def _enum_names(field: Field) -> dict[str, int]:
    """CheckpointMode's values are CHECKPOINT_MODE_...: without the prefix, in lower case. 0 is UNSPECIFIED."""
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", field.enum_type.name).upper() + "_"
    return {value.name.removeprefix(prefix).lower(): value.number for value in field.enum_type.values if value.number}


def _enum_number(value: Any, field: Field) -> int | None:
    names = _enum_names(field)
    if isinstance(value, int) and not isinstance(value, bool):
        return value if value in names.values() else None
    return names.get(value) if isinstance(value, str) else None


def _wanted(field: Field) -> str:
    if field.enum_type is not None:
        return f"one of {', '.join(_enum_names(field))}"
    return {Kind.CPPTYPE_STRING: "text", Kind.CPPTYPE_BOOL: "true or false", Kind.CPPTYPE_DOUBLE: "a number",
            Kind.CPPTYPE_FLOAT: "a number", Kind.CPPTYPE_UINT32: "a whole number, not negative",
            Kind.CPPTYPE_UINT64: "a whole number, not negative"}.get(field.cpp_type, "a whole number")


def _describe(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, bool):
        return f"'{str(value).lower()}'"  # As YAML has it.
    return "a list" if isinstance(value, (list, tuple)) else f"'{str(value)[:SHOWN]}'"


def nearest_name(name: str, names: list[str]) -> str:
    """The one that a user most likely meant, by edit distance; empty when none is near."""
    nearest, best = "", min(3, len(name) // 2 + 1)
    for candidate in names:
        distance = _edit_distance(name, candidate) if len(name) <= 64 else best
        if distance < best:
            nearest, best = candidate, distance
    return nearest


def _edit_distance(a: str, b: str) -> int:
    """Levenshtein's."""
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            diagonal, row[j] = row[j], min(diagonal + (letter != other), row[j] + 1, row[j - 1] + 1)
    return row[-1]
