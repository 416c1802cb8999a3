#!/usr/bin/env python3
"""Writes docs/spec.md, the reference of the job spec, from the comments of its proto file.

    scripts/spec_reference.py           writes docs/spec.md
    scripts/spec_reference.py --check   exits with 1 when docs/spec.md is not what it would write
"""

import argparse
import pathlib
import re
import sys
from dataclasses import dataclass, field

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto/gpipe/v1/job_spec.proto"
EXAMPLE = ROOT / "examples/digits_train.yaml"
OUTPUT = ROOT / "docs/spec.md"

SCALARS = {
    "string": ("text", "texts"),
    "bool": ("true or false", "true or false"),
    "double": ("number", "numbers"),
    "int32": ("whole number", "whole numbers"),
    "int64": ("whole number", "whole numbers"),
    "uint64": ("whole number, not negative", "whole numbers, not negative"),
}

INTRODUCTION = """\
# The job spec

<!-- Written by scripts/spec_reference.py from {proto}. Change that file, not this one. -->

A job is one YAML file: a model, how it is pipelined, and one task. `gpipe validate FILE` checks it without running
it, `gpipe run FILE` runs it on this machine, `gpipe job submit FILE` on a cluster.

## A complete example

```yaml
{example}```

## How to read and write it

- Names are as in the tables below. An unknown name, a name given twice, or a value of the wrong type is an error, shown
  with its file, line and path (`model.sequential[3].linear.in_features`).
- What has a default may be left out. Where none is given, a number left out is 0 and a text is empty, which is an error
  where it makes no sense (`in_features`, `batch_size`).
- A list of one value may be written as the value: `kernel_size: 3`.
- What has nothing to say may be written bare: `- relu`, `- relu:` and `- relu: {{}}` are the same.
- Paths are relative to the spec file, and what they name is sent to the cluster. `shared:/mnt/x.bin` is a path that every
  worker sees: nothing of it is sent, and before a job starts each worker makes sure that it sees the same, by the size of
  each file and the time when it was changed.
- A file has at most 1 MiB and one document.
"""


@dataclass
class Field:
    name: str
    type: str
    repeated: bool
    oneof: str
    comment: str


@dataclass
class Message:
    name: str
    comment: str
    fields: list = field(default_factory=list)


@dataclass
class Schema:
    messages: dict = field(default_factory=dict)
    enums: dict = field(default_factory=dict)  # Name -> list of values.


FIELD = re.compile(r"(optional |repeated )?([\w.]+) (\w+) = \d+;$")
VALUE = re.compile(r"(\w+) = \d+;$")
BLOCK = re.compile(r"(message|enum|oneof) (\w+) \{(\})?$")
SKIPPED = re.compile(r"(syntax|package|import|option|reserved)\b.*;$")


class Parser:
    """Reads the subset of the proto language that the spec uses; anything else is an error, so that nothing is lost."""

    def __init__(self, text):
        self.schema = Schema()
        self.stack = []  # Open blocks, as (kind, name).
        self.comments = []
        for number, line in enumerate(text.splitlines(), 1):
            if not self.line(line.strip()):
                sys.exit(f"{PROTO}:{number}: cannot read: {line.strip()}")

    def line(self, line):
        if line.startswith("//"):
            self.comments.append(line[2:].strip())
            return True
        comment, self.comments = " ".join(self.comments), []
        if not line or SKIPPED.match(line):
            return True
        if line == "}":
            return bool(self.stack) and bool(self.stack.pop())
        if match := BLOCK.match(line):
            return self.open(*match.groups(), comment)
        return self.member(line, comment)

    def open(self, kind, name, closed, comment):
        if kind == "message":
            self.schema.messages[name] = Message(name, comment)
        elif kind == "enum":
            self.schema.enums[name] = []
        if not closed:
            self.stack.append((kind, name))
        return True

    def member(self, line, comment):
        kind, name = self.stack[-1] if self.stack else ("", "")
        if kind == "enum" and (match := VALUE.match(line)):
            self.schema.enums[name].append(match.group(1))
            return True
        if kind in ("message", "oneof") and (match := FIELD.match(line)):
            oneof = name if kind == "oneof" else ""
            message = next(name for kind, name in reversed(self.stack) if kind == "message")
            label, type_name, field_name = match.groups()
            self.schema.messages[message].fields.append(
                Field(field_name, type_name, label == "repeated ", oneof, comment))
            return True
        return False


def enum_words(name, values):
    """CHECKPOINT_EXCEPT_LAST of Checkpoint is `except_last` in YAML; the first value, UNSPECIFIED, cannot be written."""
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper() + "_"
    return [value.removeprefix(prefix).lower() for value in values[1:]]


def yaml_paths(schema):
    """Where each message stands in a spec: message name -> list of paths."""
    paths = {}

    def walk(name, path):
        paths.setdefault(name, []).append(path)
        for member in schema.messages[name].fields:
            if member.type in schema.messages:
                child = f"{path}.{member.name}".lstrip(".") + ("[]" if member.repeated else "")
                walk(member.type, child)

    walk("JobSpec", "")
    return paths


def link(name):
    return f"[{name}](#{name.lower()})"


def type_text(schema, member):
    if member.type in schema.messages:
        return f"list of {link(member.type)}" if member.repeated else link(member.type)
    if member.type in schema.enums:
        return " or ".join(f"`{word}`" for word in enum_words(member.type, schema.enums[member.type]))
    single, plural = SCALARS[member.type]
    return f"list of {plural}" if member.repeated else single


def first_sentence(text):
    return re.split(r"(?<=\.) (?=[A-Z])", text, maxsplit=1)[0]


def meaning(schema, member):
    if member.comment:
        return member.comment
    message = schema.messages.get(member.type)
    return first_sentence(message.comment) if message else ""


def table(schema, members):
    lines = ["| name | type | meaning |", "|---|---|---|"]
    for member in members:
        cells = [f"`{member.name}`", type_text(schema, member), meaning(schema, member)]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def section(schema, message, paths):
    lines = [f"## {message.name}", ""]
    if paths != [""]:
        lines += ["In a spec: " + ", ".join(f"`{path}`" for path in paths), ""]
    if message.comment:
        lines += [message.comment, ""]
    if not message.fields:
        return lines + ["It has no fields.", ""]
    plain = [member for member in message.fields if not member.oneof]
    if plain:
        lines += table(schema, plain) + [""]
    for oneof in dict.fromkeys(member.oneof for member in message.fields if member.oneof):
        lines += ["Exactly one of:" if not plain else "And exactly one of:", ""]
        lines += table(schema, [member for member in message.fields if member.oneof == oneof]) + [""]
    return lines


def reference():
    schema = Parser(PROTO.read_text()).schema
    paths = yaml_paths(schema)
    if unused := schema.messages.keys() - paths.keys():
        sys.exit(f"{PROTO}: no field of a spec leads to {', '.join(sorted(unused))}")
    text = INTRODUCTION.format(proto=PROTO.relative_to(ROOT), example=EXAMPLE.read_text())
    lines = []
    for message in schema.messages.values():
        lines += section(schema, message, paths[message.name])
    return text + "\n" + "\n".join(lines).rstrip() + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when docs/spec.md is old")
    check = parser.parse_args().check
    text = reference()
    if not check:
        OUTPUT.parent.mkdir(exist_ok=True)
        OUTPUT.write_text(text)
    elif not OUTPUT.exists() or OUTPUT.read_text() != text:
        sys.exit(f"{OUTPUT.relative_to(ROOT)} is not up to date: run scripts/spec_reference.py")


if __name__ == "__main__":
    main()
