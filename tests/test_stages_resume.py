"""Killed in any stage and run again, a preparation redoes what was in flight and ends with the same bytes."""

import contextlib
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from moving_people import draw_people, write_people

from data_prep import run
from regen_train.preparation.encode_stage import EncodeStage
from regen_train.preparation.extract import ExtractStage
from regen_train.preparation.ledger import LedgerRow, SqliteLedger, read_ledger, summarize_ledger
from regen_train.preparation.probe import ProbeStage

NUM_CLIPS = 3
STAGES = ("probe", "mask", "pose", "depth", "caption", "encode")


class _Killed(BaseException):
    """Stands for SIGKILL where a process of its own would be too slow."""


@pytest.fixture(scope="module")
def arguments(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of every run but the output: all signals are made, by sources that read them elsewhere."""
    folder = tmp_path_factory.mktemp("resume")
    for number in range(NUM_CLIPS):
        write_people(folder / "clips", f"clip{number}", draw_people(seed=number, num_frames=10))
    given = (folder / "clips" / "signals").rename(folder / "given")
    sources = {"masks": "MaskFiles", "poses": "PoseFiles", "depth": "DepthFiles", "captions": "CaptionFiles"}
    named = [word for flag, name in sources.items() for word in (f"--{flag}", name, f"--{flag}.root", str(given))]
    return [
        *("--clips", str(folder / "clips"), "--pretrained", str(tiny_model), "--salt_file", str(folder / "salt")),
        *("--num_frames", "5", "--sizes", "[[32,48]]", "--dtype", "fp32", "--dilation", "2", "--threads", "1"),
        *("--guard.when_absent", "accept", *named),  # what may pass is not the matter here
    ]


@pytest.fixture(scope="module")
def prepared(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run that nobody killed wrote."""
    output = tmp_path_factory.mktemp("prepared") / "dataset"
    assert run.main([*arguments, "--num_workers", "0", "--output", str(output)]) == 0
    counts = summarize_ledger(read_ledger(output / ".work"))
    assert counts == {stage: {"ok": NUM_CLIPS} for stage in (*STAGES, "window")}
    return content(output)


def content(dataset: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(dataset.iterdir()) if path.is_file()}


def count_work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often a stage works on a clip."""
    counts: Counter[str] = Counter()
    for kind in (ProbeStage, ExtractStage, EncodeStage):
        process: Callable[..., Any] = kind.process

        def counted(self: Any, task: Any, process: Callable[..., Any] = process) -> Any:
            counts[self.name] += 1
            return process(self, task)

        monkeypatch.setattr(kind, "process", counted)
    return counts


def test_killed_at_every_outcome_it_redoes_only_what_was_in_flight(
    arguments: list[str], prepared: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th attempt dies when it is about to note its n-th outcome, or rather the one after those kept."""
    counts, record, fresh = count_work(monkeypatch), SqliteLedger.record, 0

    def record_or_die(ledger: SqliteLedger, rows: Sequence[LedgerRow]) -> None:
        nonlocal fresh
        fresh += 1
        if fresh == 2:
            raise _Killed
        record(ledger, rows)

    monkeypatch.setattr(SqliteLedger, "record", record_or_die)
    command, deaths = [*arguments, "--num_workers", "0", "--output", str(tmp_path / "dataset")], 0
    while True:
        fresh = 0
        try:
            assert run.main(command) == 0
            break
        except _Killed:
            deaths += 1
    outcomes = NUM_CLIPS * len(STAGES)
    assert deaths == outcomes - 1
    assert sum(counts.values()) == outcomes + deaths
    assert content(tmp_path / "dataset") == prepared


def test_run_again_it_works_on_no_clip(
    arguments: list[str], prepared: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*arguments, "--num_workers", "0", "--output", str(tmp_path / "dataset")]
    assert run.main(command) == 0
    counts = count_work(monkeypatch)
    assert run.main(command) == 0
    assert counts == {}
    assert content(tmp_path / "dataset") == prepared


def test_signals_made_and_brought_are_kept_alike(
    arguments: list[str], prepared: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks are made, the others brought: run again, no clip is worked on; brought anew, the last stage is."""
    given = Path(arguments[arguments.index("--masks.root") + 1])
    start = arguments.index("--poses")
    command = [*arguments[:start], "--signals", str(given), "--num_workers", "0"]
    command += ["--output", str(tmp_path / "dataset")]
    assert run.main(command) == 0
    counts = count_work(monkeypatch)
    assert run.main(command) == 0
    assert counts == {}
    caption = given / "clip1" / "caption.txt"
    before = caption.read_text()
    caption.write_text("Somebody else stands still.\n")
    try:
        assert run.main(command) == 0
    finally:
        caption.write_text(before)
    assert counts == {"encode": 1}


_KILLER = """
import os, signal, sys
from regen_train.preparation.ledger import SqliteLedger
number, record, count = int(sys.argv[1]), SqliteLedger.record, 0
def record_or_die(ledger, rows):
    global count
    count += 1
    if count == number:
        os.kill(os.getpid(), signal.SIGKILL)
    record(ledger, rows)
SqliteLedger.record = record_or_die
from data_prep.run import main
sys.exit(main(sys.argv[2:]))
"""


def kill(moment: int, command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLER, str(moment), *command], capture_output=True)  # noqa: PLW1510
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_kill_9_in_each_stage_loses_nothing(
    arguments: list[str], prepared: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    command = [*arguments, "--num_workers", "0", "--output", str(tmp_path / "dataset")]
    place = STAGES.index(stage)
    kill(NUM_CLIPS * place + 2, command)
    assert not (tmp_path / "dataset" / "dataset.json").exists()
    counts = count_work(monkeypatch)
    assert run.main(command) == 0
    left = dict.fromkeys(STAGES[place + 1 :], NUM_CLIPS) | {stage: NUM_CLIPS - 1}
    assert counts == left
    assert content(tmp_path / "dataset") == prepared
    assert not list((tmp_path / "dataset").rglob("*.tmp*"))


@pytest.mark.slow
def test_kill_9_takes_the_workers_along(
    arguments: list[str], prepared: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*arguments, "--num_workers", "2", "--output", str(tmp_path / "dataset")]
    monkeypatch.setenv("REGEN_TRAIN_TEST_MARK", str(tmp_path))  # workers inherit it
    kill(NUM_CLIPS * 5 + 1, command)
    patience = time.monotonic() + 10
    while left := list(processes_with(str(tmp_path))):
        assert time.monotonic() < patience, left
        time.sleep(0.1)
    assert run.main(command) == 0
    assert content(tmp_path / "dataset") == prepared


def processes_with(mark: str) -> Iterator[str]:
    """Yield the command lines of processes whose environment holds a word."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in path.read_bytes():
                yield path.with_name("cmdline").read_bytes().decode()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_ray_and_processes_give_the_same_bytes(
    arguments: list[str], prepared: dict[str, bytes], tmp_path: Path
) -> None:
    import ray

    assert run.main([*arguments, "--num_workers", "2", "--output", str(tmp_path / "local")]) == 0
    assert content(tmp_path / "local") == prepared
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        assert run.main([*arguments, "--engine", "ray", "--output", str(tmp_path / "ray")]) == 0
    finally:
        ray.shutdown()
    assert content(tmp_path / "ray") == prepared
    counts = summarize_ledger(read_ledger(tmp_path / "ray" / ".work"))
    assert counts == {stage: {"ok": NUM_CLIPS} for stage in (*STAGES, "window")}
