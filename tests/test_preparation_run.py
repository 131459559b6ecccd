import errno
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from moving_people import draw_people, replace_people, write_people

from data_prep import encode, pack, run
from regen_train.data.opened import clip_of
from regen_train.files import file_sha256
from regen_train.preparation.work import WorkFolder
from regen_train.schema import SCHEMA_VERSION, Sample
from regen_train.shards import ShardReader, load_dataset

SMALL = (
    *("--num_frames", "5", "--sizes", "[[32,48]]", "--dtype", "fp32", "--dilation", "2"),
    *("--guard.when_absent", "accept", "--num_workers", "0", "--threads", "1"),
    # these people are so small that a step moves a fifth of them
)


class _Killed(BaseException):
    """Stands for SIGKILL where a process of its own would be too slow."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of one window each, and one that is too slow."""
    folder = tmp_path_factory.mktemp("clips-of-jane-doe")
    write_people(folder, "jane-in-the-park", draw_people(seed=1, num_frames=10))
    write_people(folder, "john-at-home", draw_people(seed=2, num_frames=10))
    write_people(folder, "slow-motion", draw_people(seed=3), fps=4.0)
    return folder


@pytest.fixture(scope="module")
def arguments(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of every run of this file but clips and output."""
    salt = tmp_path_factory.mktemp("secret") / "salt"
    return ["--pretrained", str(tiny_model), "--salt_file", str(salt), *SMALL]


@pytest.fixture(scope="module")
def prepared(clips: Path, arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of `clips`, not to be changed."""
    output = tmp_path_factory.mktemp("prepared") / "dataset"
    assert run.main(["--clips", str(clips), "--output", str(output), *arguments]) == 0
    return output


@pytest.fixture
def copied(prepared: Path, tmp_path: Path) -> Path:
    """A copy of the dataset, to be changed."""
    return Path(shutil.copytree(prepared, tmp_path / "dataset"))


def content(dataset: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(dataset.iterdir()) if path.is_file()}


def read_samples(dataset: Path) -> list[Sample]:
    reader = ShardReader(str(dataset))
    return [reader.read(number) for number in range(len(reader))]


def test_clips_become_a_dataset(prepared: Path) -> None:
    assert sorted(content(prepared)) == ["constants.safetensors", "dataset.json", "index.parquet", "shard-000000.tar"]
    info = load_dataset(str(prepared)).info
    assert dict(info.buckets) == {"5x32x48": 2}
    assert info.conditions == ("structall", "structhuman")
    assert info.settings["fps"] == 7.5
    assert info.settings["dilation"] == 2
    for sample in read_samples(prepared):
        assert sample.info["schema_version"] == SCHEMA_VERSION
        assert sample.key == sample.info["fingerprints"]["source"][:24] + "-0000"
        assert sample.info["guard"]["verdict"] == "accept"
        checks = {finding["check"]: finding["severity"] for finding in sample.info["guard"]["findings"]}
        assert set(checks.values()) == {"note"}
        assert {"mask_mended", "unchecked_people", "unchecked_faces"} <= set(checks)
        assert sample.info["frames"] == {"first": 0, "last": 8, "repeated": 0}
        assert sample.info["depth"] == "files"
        assert len(sample.info["fingerprints"]) == 5
        assert sample.human_coverage.any()
        assert not torch.equal(sample.latents, sample.conditions["structhuman"].reactive)


def test_the_windows_of_a_clip_are_known_as_such(arguments: list[str], tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b")):
        write_people(tmp_path / "clips", name, draw_people(seed=seed))
    assert run.main(["--clips", str(tmp_path / "clips"), "--output", str(tmp_path / "dataset"), *arguments]) == 0
    keys = [sample.key for sample in read_samples(tmp_path / "dataset")]
    assert [key[-5:] for key in keys] == ["-0000", "-0001"] * 2
    assert [clip_of(key) for key in keys] == [key[:24] for key in keys]
    assert len({clip_of(key) for key in keys}) == 2


def test_nothing_written_names_a_clip_a_path_or_a_host(prepared: Path, clips: Path, arguments: list[str]) -> None:
    published = [path for path in sorted(prepared.rglob("*")) if ".work" not in path.parts]
    everything = b"".join(path.read_bytes() for path in published if path.is_file())
    names = " ".join(path.name for path in published)
    secrets = ["jane", "john", "walks along a wall", *map(str, (clips, prepared, arguments[1]))]
    secrets += [socket.gethostname()] if len(socket.gethostname()) >= 6 else []  # shorter ones are found by chance
    assert [secret for secret in secrets if secret.encode() in everything or secret in names] == []
    digest = file_sha256(clips / "john-at-home.mkv")
    assert digest.encode() not in everything
    assert bytes.fromhex(digest) not in everything
    assert Path(arguments[3]).read_bytes() not in everything


def test_every_clip_is_in_the_report(
    clips: Path, arguments: list[str], copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["--clips", str(clips), "--output", str(copied), *arguments]) == 0
    said = capsys.readouterr().out
    assert "jane-in-the-park.mkv  used     1 of 5x32x48, 0 encoded now" in said
    assert "slow-motion.mkv       REFUSED  runs at 4.00 fps, too slow for 7.5 fps" in said
    assert "0 samples encoded, 2 kept" in said


def test_the_same_input_gives_the_same_bytes(clips: Path, arguments: list[str], prepared: Path, tmp_path: Path) -> None:
    """Also with a work folder elsewhere, and in two stages."""
    options = ["--output", str(tmp_path / "again"), "--work", str(tmp_path / "work")]
    assert encode.main(["--clips", str(clips), *options, *arguments]) == 0
    assert not (tmp_path / "again").exists()
    assert pack.main(options) == 0
    assert content(tmp_path / "again") == content(prepared)


def test_running_again_does_nothing(clips: Path, arguments: list[str], copied: Path) -> None:
    files = [
        path
        for path in copied.rglob("*")
        if path.is_file() and path.name not in ("lock", "manifest.json", "run.json") and "ledger" not in path.name
    ]
    before = {path: path.stat().st_mtime_ns for path in files}
    assert run.main(["--clips", str(clips), "--output", str(copied), "--resume", *arguments]) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("changed", ["--dilation", "--skeleton_style", "signals", "--vace_mask", "--salt_file"])
def test_what_changed_is_encoded_again(
    clips: Path, arguments: list[str], copied: Path, tmp_path: Path, changed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    signals = Path(shutil.copytree(clips / "signals", tmp_path / "signals"))
    values = {"--dilation": "1", "--skeleton_style": "vace", "--vace_mask": "human", "--salt_file": str(tmp_path / "s")}
    if changed == "signals":
        (signals / "john-at-home" / "caption.txt").write_text("Another person stands still.")
    extra = [changed, values[changed]] if changed in values else []
    before = content(copied)
    assert (
        run.main(["--clips", str(clips), "--signals", str(signals), "--output", str(copied), *arguments, *extra]) == 0
    )
    count = 1 if changed == "signals" else 2
    assert f"{count} sample{'s' * (count > 1)} encoded, {2 - count} kept" in capsys.readouterr().out
    assert content(copied)["shard-000000.tar"] != before["shard-000000.tar"]
    info = load_dataset(str(copied)).info
    assert info.num_samples == 2
    assert info.masked_conditions == (("structall", "structhuman") if changed == "--vace_mask" else ())


def test_a_clip_that_is_gone_leaves_the_dataset(
    clips: Path, arguments: list[str], copied: Path, prepared: Path, tmp_path: Path
) -> None:
    """Its sample stays in the work folder, stale, and comes back without being encoded again."""
    fewer = Path(shutil.copytree(clips, tmp_path / "fewer"))
    (fewer / "jane-in-the-park.mkv").unlink()
    assert run.main(["--clips", str(fewer), "--output", str(copied), *arguments]) == 0
    assert load_dataset(str(copied)).info.num_samples == 1
    shutil.copy(clips / "jane-in-the-park.mkv", fewer)
    assert run.main(["--clips", str(fewer), "--output", str(copied), *arguments]) == 0
    assert content(copied) == content(prepared)


@pytest.mark.parametrize("how", ["cut", "flipped"])
def test_torn_work_is_done_again(
    clips: Path, arguments: list[str], copied: Path, prepared: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = sorted((copied / ".work").glob("*-0000.safetensors"))[0]
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data if how == "flipped" else data[:100])
    assert pack.main(["--output", str(copied)]) == 0  # what is packed already is not touched
    for path in copied.glob("*.tar"):
        path.unlink()
    with pytest.raises(SystemExit, match="2"):
        pack.main(["--output", str(copied)])
    assert "missing, torn or made with other settings; run data_prep.encode again" in capsys.readouterr().err
    assert run.main(["--clips", str(clips), "--output", str(copied), *arguments]) == 0
    assert "1 sample encoded, 1 kept" in capsys.readouterr().out
    assert content(copied) == content(prepared)


@pytest.mark.parametrize("name", ["shard-000000.tar", "index.parquet", "constants.safetensors", "dataset.json"])
def test_a_damaged_dataset_is_packed_again(copied: Path, prepared: Path, name: str) -> None:
    data = bytearray((copied / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copied / name).write_bytes(data)
    (copied / "shard-000007.tar").write_bytes(b"left over from a larger dataset")
    assert pack.main(["--output", str(copied)]) == 0
    assert content(copied) == content(prepared)


def test_shards_are_cut_by_size(copied: Path, prepared: Path) -> None:
    assert pack.main(["--output", str(copied), "--max_shard_bytes", "1"]) == 0
    info = load_dataset(str(copied)).info
    assert [shard.name for shard in info.shards] == ["shard-000000.tar", "shard-000001.tar"]
    assert info.fingerprint == load_dataset(str(prepared)).info.fingerprint
    assert pack.main(["--output", str(copied)]) == 0
    assert content(copied) == content(prepared)


def test_no_human_pixel_reaches_the_latents(clips: Path, arguments: list[str], prepared: Path, tmp_path: Path) -> None:
    """Promise 1 through the whole path: other people under the same masks, the same condition latents bit for bit."""
    for seed, name in ((1, "jane-in-the-park"), (2, "john-at-home")):
        others = replace_people(draw_people(seed=seed, num_frames=10), radius=2)
        write_people(tmp_path / "noise", name, others)
    output = tmp_path / "dataset"
    # Noise has no outline; the gate is not to look for one.
    blind = ["--guard.outline_gain", "99", "--guard.outline_fit", "1"]
    assert run.main(["--clips", str(tmp_path / "noise"), "--output", str(output), *arguments, *blind]) == 0
    ours, theirs = read_samples(prepared), read_samples(output)
    assert len(ours) == 2
    twins = {one.human_coverage.numpy().tobytes(): one for one in theirs}
    for one in ours:
        other = twins[one.human_coverage.numpy().tobytes()]
        assert not torch.equal(one.latents, other.latents)
        for name in ("structhuman", "structall"):
            assert torch.equal(one.conditions[name].reactive, other.conditions[name].reactive)


def test_killed_again_and_again_it_ends_with_the_same_bytes(
    clips: Path, arguments: list[str], prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th attempt dies before its n-th file gets its name, until one gets through."""
    rename, countdown = Path.replace, 0

    def rename_or_die(path: Path, target: Path) -> Path:
        nonlocal countdown
        countdown -= 1
        if not countdown:
            raise _Killed
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", rename_or_die)
    command = ["--clips", str(clips), "--output", str(tmp_path / "dataset"), *arguments]
    deaths = 0
    while True:
        countdown = deaths + 1
        try:
            assert run.main(command) == 0
            break
        except _Killed:
            deaths += 1
            if (tmp_path / "dataset" / "dataset.json").exists():
                load_dataset(str(tmp_path / "dataset"))
    assert deaths > 5
    assert content(tmp_path / "dataset") == content(prepared)
    assert not (tmp_path / "dataset" / ".packing").exists()


_KILLER = """
import os, signal, sys
from pathlib import Path
number, write, count = int(sys.argv[1]), os.fsync, 0
def sync_or_die(descriptor):
    global count
    count += 1
    if count == number:
        os.kill(os.getpid(), signal.SIGKILL)
    write(descriptor)
os.fsync = sync_or_die
from data_prep.run import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", [3, 6, 13, 20, 24])
def test_kill_9_loses_nothing(clips: Path, arguments: list[str], prepared: Path, tmp_path: Path, moment: int) -> None:
    command = ["--clips", str(clips), "--output", str(tmp_path / "dataset"), *arguments]
    killed = subprocess.run([sys.executable, "-c", _KILLER, str(moment), *command], capture_output=True)  # noqa: PLW1510
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "dataset" / "dataset.json").exists()
    assert run.main(command) == 0
    assert content(tmp_path / "dataset") == content(prepared)
    assert not list((tmp_path / "dataset").rglob("*.tmp"))


def test_without_depth_there_is_no_structall(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_people(tmp_path / "clips", "with", draw_people(seed=1, num_frames=10))
    write_people(tmp_path / "clips", "without", draw_people(seed=2, num_frames=10), depth=False)
    command = ["--clips", str(tmp_path / "clips"), "--output", str(tmp_path / "dataset"), *arguments]
    assert run.main(command) == 0
    told = "no structall in this dataset, for 1 clip bring no depth: without.mkv."
    assert told in capsys.readouterr().err
    assert load_dataset(str(tmp_path / "dataset")).info.conditions == ("structhuman",)
    with pytest.raises(SystemExit, match="2"):
        run.main([*command, "--conditions", "[structall]"])
    assert "structall: needs depth for every clip, and there is none for without.mkv; bring" in capsys.readouterr().err
    assert load_dataset(str(tmp_path / "dataset")).info.conditions == ("structhuman",)
    assert run.main([*command, "--standin_depth", "vertical_gradient"]) == 0
    info = load_dataset(str(tmp_path / "dataset")).info
    assert info.conditions == ("structall", "structhuman")
    assert info.settings["standin_depth"] == "vertical_gradient"
    depths = sorted(sample.info["depth"] for sample in read_samples(tmp_path / "dataset"))
    assert depths == ["files", "vertical_gradient"]


def test_if_no_clip_is_fit_an_older_dataset_stays(
    clips: Path,
    arguments: list[str],
    copied: Path,
    prepared: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["--clips", str(clips), *arguments, "--num_frames", "49", "--output"]
    assert run.main([*command, str(copied)]) == 1
    assert content(copied) == content(prepared)
    said = "no dataset was written: no clip was fit to pass"
    assert f"{said}; the one at {copied} stays as it was\n" in capsys.readouterr().out
    assert run.main([*command, str(tmp_path / "new")]) == 1
    assert f"{said}\n" in capsys.readouterr().out


def test_ctrl_c_is_told_in_words_and_loses_nothing(
    clips: Path,
    arguments: list[str],
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["--clips", str(clips), "--output", str(tmp_path / "dataset"), *arguments]

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("regen_train.preparation.pipeline.write_manifest", interrupt)
        with pytest.raises(SystemExit) as ended:
            run.main(command)
    assert ended.value.code == 130
    said = capsys.readouterr().err
    assert "python -m data_prep.run: interrupted; run the same command again to go on\n" in said
    assert "Traceback" not in said
    assert run.main(command) == 0
    said = capsys.readouterr().out
    assert "0 samples encoded, 2 kept" in said
    assert "2 samples (2 of 5x32x48) in 1 shard\n" in said
    assert content(tmp_path / "dataset") == content(prepared)


def test_settings_may_come_from_a_file(clips: Path, arguments: list[str], prepared: Path, tmp_path: Path) -> None:
    settings = {"num_frames": 5, "sizes": [[32, 48]], "dtype": "fp32", "dilation": 2, "clips": str(clips)}
    settings |= {"guard": {"when_absent": "accept"}, "num_workers": 0, "threads": 1}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    short = ["--config", str(tmp_path / "settings.yaml"), "--output", str(tmp_path / "dataset"), *arguments[:4]]
    assert run.main(short) == 0
    assert content(tmp_path / "dataset") == content(prepared)


@pytest.mark.parametrize(
    ("extra", "fault"),
    [
        (["--num_frames", "80"], "num_frames must be 4n+1, got 80; nearest are 77 and 81"),
        (["--sizes", "[[30,48]]"], "height must be a multiple of 16, got 30"),
        (["--fps", "-1", "--max_windows_per_clip", "0"], "fps must be a positive number, got -1.0; max_windows"),
        (["--fill", "blue"], "fill"),
        (["--dilatoin", "3"], "dilatoin"),
        (["--engine", "spark"], "engine"),
        (["--shard", "4/4"], "a shard is I/N with I from 0 to N-1, got 4/4"),
        (["--masks", "Sam9Masks"], "Sam9Masks"),
        (["--guard.when_absent", "ignore"], "when_absent"),
        (["--pretrained", "nowhere/at all"], "nowhere/at all"),
        (["--salt_file", "{output}/salt"], "the salt must stay outside the dataset"),
    ],
)
def test_wrong_input_is_told_in_words(
    clips: Path, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], fault: str
) -> None:
    output = tmp_path / "dataset"
    extra = [part.format(output=output) for part in extra]
    with pytest.raises(SystemExit, match="2"):
        run.main(["--clips", str(clips), "--output", str(output), *arguments, *extra])
    assert fault in capsys.readouterr().err
    assert not (output / "dataset.json").exists()


def test_foreign_tars_and_a_second_process_are_refused(
    clips: Path, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--clips", str(clips), "--output", str(tmp_path), *arguments]
    (tmp_path / "holiday.tar").write_bytes(b"photos")
    with pytest.raises(SystemExit, match="2"):
        run.main(command)
    assert "holds tars that are no shards: holiday.tar" in capsys.readouterr().err
    with WorkFolder(tmp_path / ".work").lock(), pytest.raises(SystemExit, match="2"):
        run.main(command)
    assert "another process is preparing" in capsys.readouterr().err
    assert (tmp_path / "holiday.tar").read_bytes() == b"photos"


def test_a_full_disk_stops_the_run_and_is_not_blamed_on_the_clip(
    clips: Path,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("regen_train.preparation.work.write_atomically", full)
    with pytest.raises(SystemExit, match="2"):
        run.main(["--clips", str(clips), "--output", str(tmp_path / "dataset"), *arguments])
    said = capsys.readouterr()
    assert "No space left on device" in said.err
    assert "REFUSED" not in said.out
