"""Pickles of plain data, read without running anything.

A pickle is a program: it may name any function and call it. Those of annotations need lists,
dicts, tuples, text and numbers alone, for which the format has instructions of their own. Every
instruction is looked at before the first is carried out, and one that names or calls anything is
refused.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

from sightline.core.errors import DataError
from sightline.data.lines import place
from sightline.inputs.folders import shown_name

MAX_PICKLE_BYTES = 128 * 2**20
"""The largest of RefCOCO's is a tenth of this."""
_PLAIN = frozenset(
    """PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE
    INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
    BINBYTES SHORT_BINBYTES BINBYTES8
    EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
    EMPTY_DICT DICT SETITEM SETITEMS
    PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET""".split()
)
_NUMBERED = frozenset(("PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET"))
_BY_CODE = {ord(opcode.code): opcode for opcode in pickletools.opcodes}
_HARMLESS = [0] * 256
"""By the byte of an instruction how many bytes it takes; 0 where it has to be looked at."""
for _opcode in pickletools.opcodes:
    if _opcode.name in _PLAIN - {"STOP", "LONG_BINPUT"} and getattr(_opcode.arg, "n", 0) >= 0:
        _HARMLESS[ord(_opcode.code)] = 1 + getattr(_opcode.arg, "n", 0)
_LENGTH_BYTES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}


class _PlainUnpickler(pickle.Unpickler):
    """Refuses once more what the look before has refused already."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"names {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("refers to an object outside")


def read_plain_pickle(path: Path) -> Any:
    """The value of a pickle of lists, dicts, tuples, text, numbers, truth values and None.

    Text that Python 2 wrote as bytes is read as UTF-8. Parts may be shared, so that a small file
    can stand for a value that is endless to print: look at types, never at a `repr` of the whole.

    Raises:
        DataError: anything else in it, which is named; damaged, cut off, or too large.
    """
    try:
        if path.stat().st_size > MAX_PICKLE_BYTES:
            raise DataError(
                f"{place(path)}: a pickle of more than {MAX_PICKLE_BYTES >> 20} MiB is not read"
            )
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{shown_name(path)}: cannot be read ({error.strerror})") from None
    _check_instructions(data, path)
    try:
        unpickler = _PlainUnpickler(io.BytesIO(data), encoding="utf-8", errors="replace")
        return unpickler.load()
    except Exception as error:  # the virtual machine raises whatever a wrong program makes it raise
        raise _damaged(path, str(error) or type(error).__name__) from None


def _check_instructions(data: bytes, path: Path) -> None:
    """Refuse programs that name, call or number anything beyond plain data."""
    place_now, texts = 0, [b"", b""]
    while place_now < len(data):
        length = _HARMLESS[data[place_now]]
        if length:  # most instructions, so that millions of them take seconds
            place_now += length
            continue
        opcode = _BY_CODE.get(data[place_now])
        if opcode is None:
            raise _damaged(path, f"byte {place_now} is no instruction")
        start, end = _argument(opcode, data, place_now + 1)
        if end > len(data):
            break
        argument = data[start:end]
        if opcode.name not in _PLAIN:
            raise _refused(path, opcode.name, _named(opcode.name, data[start : start + 200], texts))
        # the machine keeps a table as long as the largest number
        if opcode.name in _NUMBERED and not 0 <= _number(argument, opcode) <= len(data):
            raise _damaged(path, f"it numbers {_number(argument, opcode):,} parts")
        if opcode.name == "STOP":
            return
        if opcode.name.endswith(("STRING", "UNICODE")):
            texts = [texts[1], argument[:100]]
        place_now = end
    raise _damaged(path, "it ends too early")


def _argument(opcode: pickletools.OpcodeInfo, data: bytes, start: int) -> tuple[int, int]:
    """Where the argument of an instruction begins and ends."""
    length = opcode.arg.n if opcode.arg is not None else 0
    if length == pickletools.UP_TO_NEWLINE:
        end = data.find(b"\n", start)
        return start, end + 1 if end >= 0 else len(data) + 1
    if length < 0:  # as long as the bytes in front of it say
        width = _LENGTH_BYTES[length]
        begin = start + width
        return begin, begin + int.from_bytes(data[start:begin], "little")
    return start, start + length


def _number(argument: bytes, opcode: pickletools.OpcodeInfo) -> int:
    if opcode.name not in ("PUT", "GET"):  # those two are written in digits
        return int.from_bytes(argument, "little")
    digits = argument.strip()
    return int(digits) if digits.isdigit() and len(digits) < 12 else -1


def _named(instruction: str, rest: bytes, texts: list[bytes]) -> str:
    """What an instruction names: the lines behind it, or the texts that went before."""
    names = rest.split(b"\n")[:2] if instruction in ("GLOBAL", "INST") else texts
    return ".".join(name.decode("utf-8", "replace").strip() for name in names if name)


def _refused(path: Path, instruction: str, named: str) -> DataError:
    about = f" with {shown_name(named[-80:])}" if named else ""
    return DataError(
        f"{place(path)}: the pickle asks for {instruction}{about}; only lists, dicts, tuples, text "
        "and numbers are read, because anything else can run code"
    )


def _damaged(path: Path, what: str) -> DataError:
    reason = " ".join(what.split())[:80]
    return DataError(f"{place(path)}: is no pickle, or is cut off ({reason})")
