"""What goes wrong in a run: whose fault it is, what it costs, and how it is told."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest
import torch
from moving_people import draw_people, write_people
from test_full_disk import small_disk

from data_prep import run
from regen_train.preparation.engines import StorageError
from regen_train.preparation.extract import ExtractJob, ExtractStage
from regen_train.preparation.ledger import LedgerRow, read_ledger
from regen_train.preparation.storage import storing
from regen_train.shards import load_dataset
from regen_train.video import decode_gray, write_video

SMALL = (
    *("--num_frames", "5", "--sizes", "[[32,48]]", "--dtype", "fp32", "--dilation", "2"),
    *("--guard.when_absent", "accept", "--threads", "1"),
)
SOURCES = {
    "mask": "fake_sources.FakeMasks",
    "pose": "fake_sources.FakePoses",
    "depth": "fake_sources.FakeDepth",
    "caption": "fake_sources.FakeCaptions",
}
FLAGS = {"mask": "--masks", "pose": "--poses", "depth": "--depth", "caption": "--captions"}


@pytest.fixture
def command(tiny_model: Path, tmp_path: Path) -> list[str]:
    """Options of a run in this process."""
    return [
        *("--clips", str(tmp_path / "clips"), "--output", str(tmp_path / "dataset")),
        *("--pretrained", str(tiny_model), "--salt_file", str(tmp_path / "salt"), *SMALL, "--num_workers", "0"),
    ]


def rows(tmp_path: Path, stage: str) -> dict[str, LedgerRow]:
    return {row.clip: row for row in read_ledger(tmp_path / "dataset" / ".work") if row.stage == stage}


def num_samples(tmp_path: Path) -> int:
    return load_dataset(str(tmp_path / "dataset")).info.num_samples


def write_sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        samples = av.AudioFrame.from_ndarray(torch.zeros(1, 1024).numpy(), format="fltp", layout="mono")
        samples.sample_rate = 8000
        container.mux(stream.encode(samples))
        container.mux(stream.encode())


def test_odd_files_fail_with_their_reason_and_stop_no_other(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = tmp_path / "clips"
    good = write_people(clips, "good", draw_people(seed=1, num_frames=10))
    write_people(clips, "odd", draw_people(seed=2, num_frames=10, height=49, width=65))
    write_people(clips, "one", draw_people(seed=3, num_frames=1))
    write_people(clips, "huge", draw_people(seed=4, num_frames=10, height=96, width=128))
    write_people(clips, "long", draw_people(seed=5, num_frames=41))
    (clips / "empty.mp4").touch()
    (clips / "junk.mp4").write_bytes(b"no video " * 99)
    write_sound(clips / "song.mp4")
    write_people(clips, "torn", draw_people(seed=6, num_frames=10))
    (clips / "torn.mkv").write_bytes((clips / "torn.mkv").read_bytes()[:-3000])
    shutil.copy(good, clips / "twin.mkv")
    shutil.copytree(clips / "signals" / "good", clips / "signals" / "twin")
    write_video(clips / "same.mkv", draw_people(seed=7).frames, 15.0, codec="ffv1")
    write_video(clips / "same.mp4", draw_people(seed=8).frames, 15.0)
    (clips / "folder.mp4").mkdir()
    limits = ["--max_pixels", "4000", "--max_frames", "40"]
    assert run.main([*command, *limits]) == 0
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    assert num_samples(tmp_path) == 2
    reasons = {
        "empty.mp4": "is empty (0 bytes)",
        "junk.mp4": "is not a video",
        "song.mp4": "has no video stream; it holds audio",
        "torn.mkv": "cut off",
        "huge.mkv": "frames of 96x128 have more pixels than --max_pixels 4000",
        "long.mkv": "more than --max_frames 40 frames",
    }
    probed = rows(tmp_path, "probe")
    assert set(probed) == {*reasons, "good.mkv", "odd.mkv", "one.mkv", "twin.mkv"}
    for name, reason in reasons.items():
        row = probed.pop(name)
        assert (row.status, row.fault, row.attempts) == ("failed", "input", 1)
        assert reason in row.reason
        assert row.reason in said.out
    assert {row.status for row in probed.values()} == {"ok"}
    one = rows(tmp_path, "encode")["one.mkv"]
    assert one.status == "failed"
    assert "gives 1 frames at 7.5 fps within its signals, needs 5" in one.reason
    assert "REFUSED  is the same file as good.mkv" in said.out
    assert said.out.count("REFUSED  shares its name 'same' with another clip") == 2
    assert run.main([*command, *limits]) == 0
    assert "probe" not in capsys.readouterr().out.splitlines()[-3]


def test_a_limit_that_is_raised_lets_a_clip_in(command: list[str], tmp_path: Path) -> None:
    write_people(tmp_path / "clips", "clip", draw_people(seed=1, num_frames=10))
    assert run.main([*command, "--max_pixels", "100"]) == 1
    assert run.main(command) == 0
    assert num_samples(tmp_path) == 1


@pytest.mark.parametrize("kind", [av.error.ExternalError, av.error.UndefinedError, av.error.BugError])
def test_whatever_ffmpeg_says_while_decoding_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], kind: type[Exception]
) -> None:
    """Of the conversion to pixels too, not only of decoding."""
    clip = write_people(tmp_path / "clips", "clip", draw_people(seed=1, num_frames=10))

    def fail(*_: Any, **__: Any) -> None:
        raise kind(1, "something odd")

    with monkeypatch.context() as patched:
        patched.setattr("regen_train.video.decode.VideoReformatter", lambda: SimpleNamespace(reformat=fail))
        assert run.main(command) == 1
    row = rows(tmp_path, "probe")["clip.mkv"]
    assert (row.status, row.fault) == ("failed", "input")
    assert str(clip) in row.reason
    assert "something odd" in row.reason
    assert next(iter(decode_gray(tmp_path / "clips" / "signals" / "clip" / "mask.mkv"))) is not None


@pytest.mark.parametrize("kind", sorted(SOURCES))
def test_a_full_disk_while_extracting_is_no_fault_of_the_clip(tmp_path: Path, kind: str) -> None:
    module, _, name = SOURCES[kind].partition(".")
    source = getattr(importlib.import_module(module), name)()
    people = draw_people(seed=1, num_frames=10, height=480, width=640)
    clip = tmp_path / "clip.mkv"
    write_video(clip, people.frames, 15.0, codec="ffv1")
    stage = ExtractStage(kind, source)  # type: ignore[arg-type]
    job = ExtractJob(clip, "0" * 64, tmp_path / "signals", 10)
    limit = 16 if kind == "caption" else 100
    with (
        pytest.raises(StorageError) as caught,
        small_disk(limit),
    ):
        stage.process(job)
    assert str(caught.value).startswith(str(tmp_path / "signals"))
    assert "cannot be written: File too large; encoded samples are kept: free some space" in str(caught.value)
    assert [path.name for path in (tmp_path / "signals").iterdir()] == []


@pytest.mark.parametrize("stage", ["probe", "mask", "assembly", "quarantine", "manifest"])
def test_a_full_disk_in_any_stage_stops_the_run_with_words(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: str,
) -> None:
    write_people(tmp_path / "clips", "clip", draw_people(seed=1, num_frames=10))
    places = {
        "mask": "regen_train.preparation.extract.write_gray",
        "assembly": "regen_train.preparation.assembly.write_atomically",
        "quarantine": "regen_train.preparation.quarantine.write_atomically",
        "manifest": "regen_train.preparation.pack.write_atomically",
    }

    def full(path: Any, *_: Any) -> None:
        raise OSError(28, "No space left on device", str(path))

    def full_ledger(*_: Any) -> None:
        raise OSError("ledger.sqlite cannot be written: database or disk is full; free some space")

    with monkeypatch.context() as patched:
        if stage == "probe":
            patched.setattr("regen_train.preparation.ledger.SqliteLedger.record", full_ledger)
        else:
            patched.setattr(places[stage], full)
        extra = ["--masks", SOURCES["mask"]] if stage in {"mask", "assembly"} else []
        extra += ["--review", "--guard.when_absent", "review"] if stage == "quarantine" else []
        with pytest.raises(SystemExit, match="2"):
            run.main([*command, *extra])
    told = capsys.readouterr().err
    assert "full" in told or "No space left on device" in told
    assert "Traceback" not in told
    failed = [row for row in read_ledger(tmp_path / "dataset" / ".work") if row.status == "failed"]
    assert failed == []
    assert run.main([*command, *extra]) == (1 if stage == "quarantine" else 0)


def test_what_cannot_be_stored_is_told_apart_from_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="denied") as caught, storing(tmp_path / "x", also_reads=True):
        raise PermissionError(13, "denied")
    assert type(caught.value) is PermissionError
    with pytest.raises(OSError, match="denied") as caught, storing(tmp_path / "x"):
        raise PermissionError(13, "denied")
    assert type(caught.value) is StorageError
    with pytest.raises(ValueError, match="clip"), storing(tmp_path / "x"):
        raise ValueError("clip")


def test_an_error_keeps_its_trace_and_a_fault_of_the_clip_none_on_the_screen(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the screen says how to try once more what may not be the clip's fault."""
    write_people(tmp_path / "clips", "clip", draw_people(seed=1, num_frames=10))

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the device is lost")

    with monkeypatch.context() as patched:
        patched.setattr("regen_train.preparation.encode_stage.encode_window", fail)
        assert run.main([*command, "--max_attempts", "3"]) == 1
    row = rows(tmp_path, "encode")["clip.mkv"]
    assert (row.status, row.fault, row.attempts) == ("failed", "error", 3)
    assert "the device is lost" in row.trace
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    assert run.main([*command, "--max_attempts", "3"]) == 1
    assert "RuntimeError: the device is lost (tried 3 times; --max_attempts 4 tries again)" in capsys.readouterr().out
    assert run.main([*command, "--max_attempts", "4"]) == 0
    assert num_samples(tmp_path) == 1


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "killonce"])
def test_a_source_that_kills_its_worker_costs_at_most_its_clip(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    for seed, name in enumerate("abc"):
        write_people(tmp_path / "clips", name, draw_people(seed=seed, num_frames=10))
    options = ["--masks", SOURCES["mask"], "--masks.log", str(tmp_path / "log"), "--num_workers", "2"]
    assert run.main([*command, *options, "--masks.fail", f"[b={how}]"]) == 0
    log = (tmp_path / "log").read_text().splitlines()
    assert sorted(log) == ["mask a", "mask b", "mask b", "mask c"]
    row = rows(tmp_path, "mask")["b.mkv"]
    if how == "kill":
        assert (row.status, row.fault, row.attempts) == ("failed", "crash", 2)
        assert "the worker died (killed" in row.reason
        assert num_samples(tmp_path) == 2
    else:
        assert (row.status, row.attempts) == ("ok", 2)
        assert num_samples(tmp_path) == 3


_KILL_AT_WRITE = """
import os, signal, sys
from pathlib import Path
import regen_train.files as files
word, rename = sys.argv[1], Path.replace
def rename_or_die(path, target):
    if word in str(target):
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(path, target)
Path.replace = rename_or_die
from data_prep.run import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "word", ["a/mask.mkv", "b/.pose.json", "b/signals.json", "manifest.json", "/shard-000000.tar", "/dataset.json"]
)
def test_kill_9_at_any_file_loses_nothing(command: list[str], tmp_path: Path, word: str) -> None:
    for seed, name in enumerate("ab"):
        write_video(tmp_path / f"{name}.mkv", draw_people(seed=seed, num_frames=10).frames, 15.0, codec="ffv1")
        (tmp_path / "clips").mkdir(exist_ok=True)
        (tmp_path / f"{name}.mkv").rename(tmp_path / "clips" / f"{name}.mkv")
    log = tmp_path / "log"
    named = [word for kind, flag in FLAGS.items() for word in (flag, SOURCES[kind], f"{flag}.log", str(log))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    killed = subprocess.run(  # noqa: PLW1510
        [sys.executable, "-c", _KILL_AT_WRITE, word, *command, *named], capture_output=True, env=environment
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert run.main([*command, *named]) == 0
    again = log.read_text().splitlines()
    assert len(again) == 8 + (word in {"a/mask.mkv", "b/.pose.json"})  # the one in flight, nothing else
    other = [*command, *named, "--output", str(tmp_path / "other")]
    assert run.main(other) == 0
    shard, info = "shard-000000.tar", "dataset.json"
    for name in (shard, info):
        assert (tmp_path / "other" / name).read_bytes() == (tmp_path / "dataset" / name).read_bytes()
    assert not list((tmp_path / "dataset").rglob(".*.tmp*"))


def test_the_ledger_holds_plain_json(command: list[str], tmp_path: Path) -> None:
    write_people(tmp_path / "clips", "clip", draw_people(seed=1, num_frames=10))
    assert run.main(command) == 0
    found = read_ledger(tmp_path / "dataset" / ".work")
    assert [(row.stage, row.clip, row.status) for row in found] == [
        ("encode", "clip.mkv", "ok"), ("probe", "clip.mkv", "ok"), ("window", "clip.mkv", "ok")
    ]  # fmt: skip
    assert len({row.source_sha256 for row in found}) == 1
    assert json.loads(found[2].verdict)["verdict"] == "accept"
    assert not any(row.trace for row in found)
