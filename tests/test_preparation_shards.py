"""Parts of a job array: together they are the run of one machine, byte for byte, or are refused."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from moving_people import draw_people, write_people

from data_prep import pack, run
from regen_train.preparation.ledger import read_ledger, summarize_ledger
from regen_train.preparation.work import WorkFolder
from regen_train.shards import load_dataset

SMALL = (
    *("--num_frames", "5", "--sizes", "[[32,48]]", "--dtype", "fp32", "--dilation", "2", "--num_workers", "0"),
    *("--guard.when_absent", "accept", "--threads", "1"),
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five clips, one of them junk, one without depth, one in another bucket's shape."""
    folder = tmp_path_factory.mktemp("clips")
    for seed, name in enumerate("acd"):
        write_people(folder, name, draw_people(seed=seed, num_frames=20 if name == "a" else 10))
    (folder / "b.mp4").write_bytes(b"junk")
    write_people(folder, "e", draw_people(seed=7, num_frames=10, height=64, width=48))
    return folder


@pytest.fixture(scope="module")
def arguments(clips: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    salt = tmp_path_factory.mktemp("secret") / "salt"
    sizes = [part.replace("[[32,48]]", "[[32,48],[48,32]]") for part in SMALL]
    return ["--clips", str(clips), "--pretrained", str(tiny_model), "--salt_file", str(salt), *sizes]


@pytest.fixture(scope="module")
def whole(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The dataset of a run that is not cut into parts."""
    output = tmp_path_factory.mktemp("whole") / "dataset"
    assert run.main([*arguments, "--output", str(output)]) == 0
    return content(output)


def content(dataset: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(dataset.iterdir()) if path.is_file()}


def shard(arguments: list[str], output: Path, part: str, *extra: str) -> int:
    return run.main([*arguments, "--output", str(output), "--shard", part, *extra])


def refused(output: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what packing says when it refuses."""
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        pack.main(["--output", str(output)])
    return capsys.readouterr().err


def test_parts_make_the_whole_byte_for_byte(
    arguments: list[str], whole: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "dataset"
    for part in ("2/3", "0/3"):  # in any order
        assert shard(arguments, output, part) == 0
        assert f"shard {part} is done; when all are, run python -m data_prep.pack --output {output}" in (
            capsys.readouterr().out
        )
    assert not (output / "dataset.json").exists()
    assert "of 3 shards, 1 has not been prepared; run data_prep.run --shard I/3 for each" in refused(output, capsys)
    assert shard(arguments, output, "1/3") == 0  # of junk and one more
    assert pack.main(["--output", str(output)]) == 0
    assert content(output) == whole
    counts = summarize_ledger(read_ledger(output / ".work"))
    assert counts == {"encode": {"ok": 4}, "probe": {"failed": 1, "ok": 4}, "window": {"ok": 5}}
    for part in ("0/3", "1/3", "2/3"):
        assert shard(arguments, output, part) == 0
        assert "0 samples encoded" in capsys.readouterr().out
    assert pack.main(["--output", str(output)]) == 0
    assert content(output) == whole


def test_a_part_may_be_empty(arguments: list[str], whole: dict[str, bytes], tmp_path: Path) -> None:
    output = tmp_path / "dataset"
    for number in range(6):
        assert shard(arguments, output, f"{number}/6") == 0
    assert pack.main(["--output", str(output)]) == 0
    assert content(output) == whole


def test_another_cut_replaces_the_old_one(
    arguments: list[str], whole: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "dataset"
    assert run.main([*arguments, "--output", str(output)]) == 0
    assert shard(arguments, output, "0/3") == 0
    assert "of 3 shards, 1, 2 have not been prepared" in refused(output, capsys)
    assert shard(arguments, output, "0/2") == 0
    assert "of 2 shards, 1 has not been prepared" in refused(output, capsys)
    assert shard(arguments, output, "1/2") == 0
    assert pack.main(["--output", str(output)]) == 0
    assert content(output) == whole
    assert run.main([*arguments, "--output", str(output)]) == 0
    assert "0 samples encoded, 5 kept" in capsys.readouterr().out
    assert content(output) == whole


@pytest.mark.parametrize(
    ("extra", "what"),
    [
        (["--dilation", "3"], "settings"),
        (["--guard.vanish_kept", "0.4"], "settings and gate"),
        (["--text", "fake_sources.FakeReader"], "gate"),
        (["--salt_file", "{folder}/other"], "salt"),
    ],
)
def test_parts_prepared_differently_are_refused(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], what: str
) -> None:
    output = tmp_path / "dataset"
    assert shard(arguments, output, "0/2") == 0
    assert shard(arguments, output, "1/2", *[word.format(folder=tmp_path) for word in extra]) == 0
    assert f"shard 1 was prepared with another {what} than shard 0; prepare it again" in refused(output, capsys)
    assert not (output / "dataset.json").exists()
    assert shard(arguments, output, "1/2") == 0
    assert pack.main(["--output", str(output)]) == 0


def test_the_same_file_in_two_parts_is_told_if_its_signals_differ(
    arguments: list[str], clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which of them a run of one machine would take depends on names; parts cannot see each other's clips."""
    folder = tmp_path / "clips"
    write_people(folder, "a", draw_people(seed=1, num_frames=10))
    shutil.copy(folder / "a.mkv", folder / "b.mkv")
    shutil.copytree(folder / "signals" / "a", folder / "signals" / "b")
    command = ["--clips", str(folder), *arguments[2:]]
    output = tmp_path / "dataset"
    for part in ("0/2", "1/2"):
        assert shard(command, output, part) == 0
    assert pack.main(["--output", str(output)]) == 0
    assert load_dataset(str(output)).info.num_samples == 1
    (folder / "signals" / "b" / "caption.txt").write_text("Somebody stands still.\n")
    assert shard(command, output, "1/2") == 0
    assert "hold the same clip with different signals" in refused(output, capsys)


def test_parts_may_work_at_once_but_no_part_twice(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "dataset"
    work = WorkFolder(output / ".work")
    with work.lock("1/2"):
        assert shard(arguments, output, "0/2") == 0
        for attempt in (["--shard", "1/2"], []):
            with pytest.raises(SystemExit, match="2"):
                run.main([*arguments, "--output", str(output), *attempt])
            assert "another process is preparing in" in capsys.readouterr().err
        assert "another process is preparing in" in refused(output, capsys)
    assert shard(arguments, output, "1/2") == 0


@pytest.mark.slow
def test_two_parts_at_once(arguments: list[str], whole: dict[str, bytes], tmp_path: Path) -> None:
    output = tmp_path / "dataset"
    command = [sys.executable, "-m", "data_prep.run", *arguments, "--output", str(output), "--shard"]
    parts = [subprocess.Popen([*command, f"{number}/2"], stderr=subprocess.PIPE) for number in range(2)]
    for part in parts:
        _, told = part.communicate(timeout=200)
        assert part.returncode == 0, told.decode()
    assert pack.main(["--output", str(output)]) == 0
    assert content(output) == whole
