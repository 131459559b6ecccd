"""What was done: each step with its result, its time and the memory it took; commands as a user types them."""

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from regen_train.demo.memory import MemoryWatch

_ASKED_EVERY = 0.05
"""Seconds."""


@dataclass(frozen=True)
class Entry:
    """One step.

    Args:
        step: What was done.
        result: What came out.
        seconds: How long it took.
        peak_bytes: Most memory that this process and its children held at once.
        commands: What a user would type for it.
    """

    step: str
    result: str
    seconds: float
    peak_bytes: int
    commands: tuple[str, ...]


class Journal:
    """Does steps one after another and keeps what came of each."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._commands: list[str] = []

    @property
    def seconds(self) -> float:
        """All steps together."""
        return sum(entry.seconds for entry in self.entries)

    @property
    def peak_bytes(self) -> int:
        """Most memory of any step."""
        return max((entry.peak_bytes for entry in self.entries), default=0)

    def do(self, step: str, action: Callable[[], str]) -> None:
        """Do a step; note its result, its time and its memory."""
        print(f"\n== {step}", flush=True)
        self._commands, start = [], time.perf_counter()
        with MemoryWatch() as memory:
            result = action()
        self.entries.append(Entry(step, result, time.perf_counter() - start, memory.peak_bytes, tuple(self._commands)))
        print(f"-- {result}", flush=True)

    def call(self, module: str, *arguments: object) -> None:
        """Run one of the project's commands in a process of its own, and show it as a user types it.

        Raises:
            ChildProcessError: It failed; what it said stands above.
        """
        with self._started(module, arguments) as process:
            process.wait()
        _check(process.returncode)

    def call_and_kill(self, when: Callable[[], bool], module: str, *arguments: object) -> bool:
        """Run a command and kill it without a warning, as a power cut would, once something holds.

        Args:
            when: Asked again and again.
            module: As in `call`.
            arguments: As in `call`.

        Returns:
            Whether it was killed; else it had ended before.

        Raises:
            ChildProcessError: It failed before; what it said stands above.
        """
        with self._started(module, arguments) as process:
            while process.poll() is None and not when():
                time.sleep(_ASKED_EVERY)
            if process.poll() is None:
                process.kill()
        if process.returncode == -signal.SIGKILL:
            self._commands.append(f"kill -9 {process.pid}")
            print(f"$ {self._commands[-1]}", flush=True)
            return True
        _check(process.returncode)
        return False

    def _started(self, module: str, arguments: Sequence[object]) -> subprocess.Popen[bytes]:
        words = [*map(str, arguments)]
        self._commands.append(shown_command(module, words))
        print(f"$ {self._commands[-1]}", flush=True)
        return subprocess.Popen([sys.executable, "-m", module, *words])


def _check(code: int) -> None:
    if code:
        raise ChildProcessError(f"the command above ended with code {code}; what it said stands above this line")


def shown_command(module: str, arguments: Sequence[str]) -> str:
    """Return a command as it is typed: the installed program, or Python and a module."""
    start = ["regen_train"] if module == "regen_train" else ["python", "-m", module]
    return shlex.join([*start, *arguments])
