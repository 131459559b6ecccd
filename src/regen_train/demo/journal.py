"""What was done: each step with its result, its time and the memory it took; commands as a user types them."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from regen_train.demo.memory import MemoryWatch

_ASKED_EVERY = 0.05
"""Seconds."""
_LAST_LINES = 20
"""Of a log, shown where its command failed."""


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
        start = time.perf_counter()
        with MemoryWatch() as memory:
            result = action()
        seconds, commands = time.perf_counter() - start, tuple(self._commands)
        self.entries.append(Entry(step, result, seconds, memory.peak_bytes, commands))
        self._commands.clear()
        print(f"-- {result}", flush=True)

    def call(self, module: str, *arguments: object, threads: int | None = None) -> None:
        """Run one of the project's commands in a process of its own, and show it as a user types it.

        Args:
            module: What Python runs.
            arguments: Its command line.
            threads: Of its sums; None leaves them to the machine.

        Raises:
            ChildProcessError: It failed; what it said stands above.
        """
        with self._started(module, arguments, threads) as process:
            process.wait()
        _check(process.returncode)

    def call_and_kill(
        self, when: Callable[[], bool], module: str, *arguments: object, threads: int | None = None
    ) -> bool:
        """Run a command and kill it without a warning, as a power cut would, once something holds.

        Args:
            when: Asked again and again.
            module: As in `call`.
            arguments: As in `call`.
            threads: As in `call`.

        Returns:
            Whether it was killed; else it had ended before.

        Raises:
            ChildProcessError: It failed before; what it said stands above.
        """
        with self._started(module, arguments, threads) as process:
            while process.poll() is None and not when():
                time.sleep(_ASKED_EVERY)
            if process.poll() is None:
                process.kill()
        if process.returncode == -signal.SIGKILL:
            self._show(f"kill -9 {process.pid}")
            return True
        _check(process.returncode)
        return False

    @contextmanager
    def beside(
        self, log: Path, module: str, *arguments: object, threads: int | None = None
    ) -> Iterator[Callable[[], None]]:
        """Run a command beside others; what is not finished when the block ends is killed.

        Args:
            log: Gets what the command says.
            module: As in `call`.
            arguments: As in `call`.
            threads: As in `call`.

        Yields:
            What waits for its end, and raises ChildProcessError with the end of the log if it failed.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as said, self._started(module, arguments, threads, said) as process:
            try:
                yield lambda: _finish(process, log)
            finally:
                if process.poll() is None:
                    process.kill()

    def _started(
        self, module: str, arguments: Sequence[object], threads: int | None, said: BinaryIO | None = None
    ) -> subprocess.Popen[bytes]:
        words = [*map(str, arguments)]
        limit = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
        shown = " ".join([*(f"{name}={value}" for name, value in limit.items()), shown_command(module, words)])
        self._show(shown if said is None else f"{shown} > {shlex.quote(str(said.name))} 2>&1 &")
        errors = None if said is None else subprocess.STDOUT
        return subprocess.Popen(
            [sys.executable, "-m", module, *words], stdout=said, stderr=errors, env={**os.environ, **limit}
        )

    def typed(self, module: str, *arguments: object) -> None:
        """Show what is done in this process as a user types it."""
        self._show(shown_command(module, [str(argument) for argument in arguments]), mark=" ")

    def _show(self, command: str, *, mark: str = "$") -> None:
        self._commands.append(command)
        print(f"{mark} {command}", flush=True)


def _finish(process: subprocess.Popen[bytes], log: Path) -> None:
    if process.wait():
        said = "\n".join(log.read_text(errors="replace").splitlines()[-_LAST_LINES:])
        raise ChildProcessError(f"the command beside ended with code {process.returncode}; {log} ends with\n{said}")


def _check(code: int) -> None:
    if code:
        raise ChildProcessError(f"the command above ended with code {code}; what it said stands above this line")


def shown_command(module: str, arguments: Sequence[str]) -> str:
    """Return a command as it is typed: the installed program, or Python and a module."""
    start = ["regen_train"] if module == "regen_train" else ["python", "-m", module]
    return shlex.join([*start, *arguments])
