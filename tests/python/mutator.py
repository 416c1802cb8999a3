"""Hostile variations of valid protobuf messages, as bytes: the same ones for the same seed."""

from __future__ import annotations

import random

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

# Of one message; the server takes 16 MiB.
MOST_BYTES = 12 << 20
# Entries of a repeated field that is made long.
MANY = 100_000
# What stands for bytes that are no UTF-8, until the message is serialized; it is as long as they are.
NOT_UTF8_MARK, NOT_UTF8 = "{not-utf-8}", b"\xff\xfe\xc0\xaf\xed\xa0\x80\xf8\x88\x80\x81"

DOUBLES = [float("nan"), float("inf"), float("-inf"), -0.0, 5e-324, 1.7976931348623157e308, -1.0]
UNSIGNED = {FieldDescriptor.CPPTYPE_UINT32: 32, FieldDescriptor.CPPTYPE_UINT64: 64}
SIGNED = {FieldDescriptor.CPPTYPE_INT32: 32, FieldDescriptor.CPPTYPE_INT64: 64}


def hostile_strings(mark: str) -> list[str]:
    """`mark` is in the name of each file that one of them would make."""
    up = "../" * 12
    return [
        "", ".", "..", "/", "~", "*", "%s%n%x", "\0", f"{mark}\0.txt", "\x1b[2J\x1b]0;owned\x07", "\r\nHTTP/1.1 200 OK",
        "\u202egpipe", "\ufdfd" * 1000, "\ud7ff\ue000", NOT_UTF8_MARK, f"{mark}{NOT_UTF8_MARK}",
        f"../{mark}", f"{up}tmp/{mark}", f"/tmp/{mark}", f"/{mark}", f"a/../../{mark}", f"./{mark}", f"..\\{mark}",
        f"%2e%2e%2f{mark}", f"..;/{mark}", f"file:///tmp/{mark}", f"shared:/tmp/{mark}", f"shared:{up}etc/passwd",
        "shared:/etc/passwd", "/etc/passwd", "/proc/self/mem", "/dev/zero", f"{up}etc/shadow",
        "' OR 1=1; DROP TABLE jobs; --", "<script>alert(1)</script>", "{{7*7}}${7*7}", f"$(touch /tmp/{mark})",
        f"`touch /tmp/{mark}`", f"; touch /tmp/{mark}", "A" * 63, "A" * 64, "A" * 129, "A" * 256, "A" * 4097,
        "A" * 70_000, "A" * (1 << 20), "x/" * 2000, "0" * 64, "f" * 64, "F" * 64, "-1", "0", "9" * 40, "NaN",
    ]


class Mutator:
    """Not for two threads at once."""

    def __init__(self, seed, mark: str):
        self.random = random.Random(seed)
        self.strings = hostile_strings(mark)

    def mutate(self, message: Message) -> bytes:
        """`message` stays as it is."""
        changed = type(message)()
        changed.CopyFrom(message)
        self.room = MOST_BYTES - changed.ByteSize()
        if self.random.random() < 0.85:
            for _ in range(self.random.choice([1, 1, 1, 2, 4])):
                self._change(changed)
        data = changed.SerializeToString(deterministic=True).replace(NOT_UTF8_MARK.encode(), NOT_UTF8)
        return self._break(data) if self.random.random() < 0.3 else data

    # --- Messages that can be read ---

    def _change(self, message: Message, depth: int = 0):
        """One change, at some place of the message; mostly where there is something."""
        fields = list(message.DESCRIPTOR.fields)
        if not fields:
            return
        given = [field for field, _ in message.ListFields()]
        field = self.random.choice(given if given and self.random.random() < 0.7 else fields)
        if is_map(field):
            self._change_map(message, field)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            self._change_message(message, field, depth)
        elif is_repeated(field):
            self._change_list(message, field)
        else:
            setattr(message, field.name, self._value(field))

    def _change_message(self, message: Message, field: FieldDescriptor, depth: int):
        if self.random.random() < 0.1:
            return message.ClearField(field.name)
        if not is_repeated(field):
            inner = getattr(message, field.name)
            inner.SetInParent()
            return self._change(inner, depth + 1) if depth < 12 else None
        entries = getattr(message, field.name)
        if not entries:
            entries.add()
        entry = self.random.choice(entries)
        if self.random.random() < 0.15:
            count = MANY if self.random.random() < 0.3 else 1
            return self._lengthen(count, entry.ByteSize() + 8, lambda: entries.add().CopyFrom(entry))
        self._change(entry, depth + 1)

    def _change_list(self, message: Message, field: FieldDescriptor):
        entries = getattr(message, field.name)
        if self.random.random() < 0.1:
            return message.ClearField(field.name)
        value = self._value(field)
        if self.random.random() < 0.05:
            size = len(value) + 8 if isinstance(value, (str, bytes)) else 11
            return self._lengthen(MANY, size, lambda: entries.append(value))
        if entries and self.random.random() < 0.6:
            entries[self.random.randrange(len(entries))] = value
        else:
            entries.append(value)

    def _change_map(self, message: Message, field: FieldDescriptor):
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        entries, name = getattr(message, field.name), self._value(key)
        if value.type != FieldDescriptor.TYPE_MESSAGE:
            entries[name] = self._value(value)
            return
        old = entries[self.random.choice(sorted(entries))] if entries else None
        if old is not None and isinstance(name, str) and self.random.random() < 0.1:
            names = (f"{name}{index}" for index in range(MANY))
            return self._lengthen(2000, len(name) + old.ByteSize() + 20, lambda: entries[next(names)].CopyFrom(old))
        if old is not None and self.room > old.ByteSize():
            entries[name].CopyFrom(old)
        self._change(entries[name])

    def _lengthen(self, count: int, entry_bytes: int, add):
        """As long as the message stays within its limit."""
        for _ in range(min(count, self.room // entry_bytes)):
            add()
            self.room -= entry_bytes

    def _value(self, field: FieldDescriptor):
        kind = field.cpp_type
        if kind == FieldDescriptor.CPPTYPE_STRING:
            text = self.random.choice(self.strings)
            self.room -= len(text)
            return text if field.type == FieldDescriptor.TYPE_STRING else text.encode()
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return self.random.random() < 0.5
        if kind == FieldDescriptor.CPPTYPE_ENUM:
            return self.random.choice([-1, 0, 1, 2, 3, 99, 2**31 - 1, -2**31])
        if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
            return self.random.choice(DOUBLES)
        return self._integer(field)

    def _integer(self, field: FieldDescriptor) -> int:
        if field.cpp_type in UNSIGNED:
            least, most = 0, 2 ** UNSIGNED[field.cpp_type] - 1
        else:
            bits = SIGNED[field.cpp_type]
            least, most = -2 ** (bits - 1), 2 ** (bits - 1) - 1
        power = 2 ** self.random.randrange(most.bit_length())
        return self.random.choice([least, most, 0, 1, max(least, -1), most - 1, power, max(least, -power), power - 1])

    # --- Bytes that may be no message ---

    def _break(self, data: bytes) -> bytes:
        ways = [self._cut, self._flip, self._insert, self._drop, self._double, self._noise, self._groups, self._lengths]
        return self.random.choice(ways)(data)

    def _place(self, data: bytes) -> int:
        return self.random.randrange(len(data) + 1)

    def _cut(self, data: bytes) -> bytes:
        return data[:self._place(data)]

    def _flip(self, data: bytes) -> bytes:
        changed = bytearray(data or b"\0")
        for _ in range(self.random.choice([1, 1, 2, 16])):
            changed[self.random.randrange(len(changed))] ^= 1 << self.random.randrange(8)
        return bytes(changed)

    def _insert(self, data: bytes) -> bytes:
        at = self._place(data)
        return data[:at] + self.random.randbytes(self.random.choice([1, 4, 100])) + data[at:]

    def _drop(self, data: bytes) -> bytes:
        begin, end = sorted((self._place(data), self._place(data)))
        return data[:begin] + data[end:]

    def _double(self, data: bytes) -> bytes:
        return (data * self.random.choice([2, 3, 50]))[:MOST_BYTES]

    def _noise(self, _: bytes) -> bytes:
        return self.random.randbytes(self.random.choice([1, 10, 1000, 100_000]))

    def _groups(self, data: bytes) -> bytes:
        """A hundred thousand groups, each in the one before: a parser that goes down into them needs a stack."""
        return data + b"\x93\x3e" * self.random.choice([50, 101, 100_000])

    def _lengths(self, data: bytes) -> bytes:
        """A field that is longer than the message, or has a varint without an end."""
        tag = bytes([self.random.randrange(1, 16) << 3 | 2])
        return data + tag + self.random.choice([b"\xff\xff\xff\xff\x07", b"\xff" * 10 + b"\x01", b"\x80" * 20])


def is_repeated(field: FieldDescriptor) -> bool:
    return field.is_repeated


def is_map(field: FieldDescriptor) -> bool:
    return field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type.GetOptions().map_entry
