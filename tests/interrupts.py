"""Interrupt the calling thread at a chosen place, as Ctrl-C may: tests try every place, one after the other.

Python looks for an interrupt when a function begins, when a loop begins anew and when a call of C code has returned,
and nowhere else: were one raised in between, it would find locks taken that no interrupt ever finds so.
"""

import contextlib
import dis
import functools
import sys
from collections.abc import Iterator
from types import CodeType, FrameType, ModuleType
from typing import Any

CHECKED = ("RESUME", "CALL", "JUMP_BACKWARD")  # the beginnings of the names of instructions after which Python looks


class Interrupter:
    """A trace function that raises KeyboardInterrupt at one of the places where Python may.

    Parameters
    ----------
    place : int
        Which one, counted from 0 in the order in which they are met.
    modules : modules
        Where places are counted.
    """

    def __init__(self, place: int, *modules: ModuleType) -> None:
        self.place = place
        self.met = 0
        self.where = ""
        self._files = {module.__file__ for module in modules}
        self._last: dict[int, int | None] = {}  # instruction of each frame; None where another function has returned

    @property
    def has_raised(self) -> bool:
        return self.met > self.place

    def __call__(self, frame: FrameType, event: str, arg: Any) -> "Interrupter | None":
        if frame.f_code.co_filename not in self._files:
            return None
        if event == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            self._last[id(frame)] = frame.f_lasti
        elif event == "opcode":
            last = self._last[id(frame)]
            self._last[id(frame)] = frame.f_lasti
            if last is not None and _may_interrupt(frame.f_code, last, frame.f_lasti):
                self.met += 1
                if self.has_raised:
                    sys.settrace(None)
                    self.where = f"{frame.f_code.co_qualname}, line {frame.f_lineno}"
                    raise KeyboardInterrupt(self.where)
        elif event == "return" and frame.f_back is not None:
            self._last[id(frame.f_back)] = None  # what is seen there has been seen here
        return self


@functools.cache
def _instructions(code: CodeType) -> dict[int, str]:
    return {instruction.offset: instruction.opname for instruction in dis.get_instructions(code)}


@functools.cache
def _handlers(code: CodeType) -> list[tuple[int, int, int]]:
    return [(entry.start, entry.end, entry.target) for entry in dis.Bytecode(code).exception_entries]


def _may_interrupt(code: CodeType, last: int, now: int) -> bool:
    """Tell whether Python looks for an interrupt after one instruction, and what is raised now is handled as there."""
    if not _instructions(code).get(last, "").startswith(CHECKED):
        return False
    return _handler(code, last) == _handler(code, now)


def _handler(code: CodeType, place: int) -> int | None:
    return next((target for start, end, target in _handlers(code) if start <= place < end), None)


@contextlib.contextmanager
def interrupt(place: int, *modules: ModuleType) -> Iterator[Interrupter]:
    """Interrupt the block at a place, or nowhere if it has fewer."""
    interrupter, before = Interrupter(place, *modules), sys.gettrace()
    sys.settrace(interrupter)
    try:
        yield interrupter
    finally:
        sys.settrace(before)
