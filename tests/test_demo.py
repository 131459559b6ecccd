"""The demo's steps on a tiny random model, its folder, and what it refuses."""

import json
import time
from pathlib import Path

import psutil
import pytest
import torch

from regen_train.cli import main
from regen_train.demo import DemoSettings
from regen_train.demo.journal import Journal, shown_command
from regen_train.demo.measure import Followed
from regen_train.demo.own import OwnClip, Refusal
from regen_train.demo.run import claim, go
from regen_train.demo.settings import DemoFolder
from regen_train.demo.steps import Machinery
from regen_train.preparation import DatasetSettings
from regen_train.shards import load_dataset
from regen_train.toy.form import TOY_DATASET
from regen_train.toy.tiny import build_tiny_wan_vace
from regen_train.toy.world import ClipFormat, WorldClip, WorldOptions, write_world
from regen_train.video import probe_video


def _fault(*arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["demo", *arguments])
    return str(caught.value)


def test_a_video_without_signals_is_told_what_is_missing(tmp_path: Path) -> None:
    assert "--video and --signals come together" in _fault("--output", str(tmp_path / "out"), "--video", "mine.mp4")


def test_a_brought_file_that_is_not_there_is_named_before_anything_is_made(tmp_path: Path) -> None:
    output = tmp_path / "out"
    told = _fault("--output", str(output), "--video", "nowhere.mp4", "--signals", str(tmp_path))
    assert "nowhere.mp4 does not exist" in told
    assert not output.exists()


def test_what_is_brought_may_not_lie_where_everything_is_made_anew(tmp_path: Path) -> None:
    output = tmp_path / "out"
    (output / "clips").mkdir(parents=True)
    video = output / "clips" / "mine.mp4"
    video.touch()
    assert "which the demo makes anew" in _fault(
        "--output", str(output), "--video", str(video), "--signals", str(output)
    )
    assert video.exists()


def test_a_folder_that_no_demo_made_is_left_alone(tmp_path: Path) -> None:
    kept = tmp_path / "clips" / "holiday.mp4"
    kept.parent.mkdir()
    kept.touch()
    with pytest.raises(FileExistsError, match="holds files that no demo made"):
        claim(tmp_path)
    assert kept.exists()


def test_a_demo_empties_only_what_demos_make(tmp_path: Path) -> None:
    claim(tmp_path)
    old, mine = tmp_path / "run" / "structhuman" / "last.ckpt", tmp_path / "notes.txt"
    old.parent.mkdir(parents=True)
    old.touch(), mine.touch()
    claim(tmp_path)
    assert not old.exists()
    assert mine.exists()


def test_no_page_of_an_earlier_demo_outlives_the_next_and_a_clip_of_ones_own_stays(tmp_path: Path) -> None:
    folder, mine = tmp_path / "out", tmp_path / "signals"
    mine.mkdir()
    (mine / "mask.mkv").touch()
    claim(folder)
    for name in ("index.html", "report.json", "strip.png"):
        (folder / name).touch()
    (folder / "own").mkdir()
    (folder / "own" / "signals").symlink_to(mine, target_is_directory=True)
    claim(folder)
    assert [path.name for path in folder.iterdir()] == [".regen_train_demo"]
    assert (mine / "mask.mkv").is_file()


def test_a_model_that_is_none_is_told_before_anything_is_made(tmp_path: Path) -> None:
    told = _fault("--output", str(tmp_path / "out"), "--pretrained", str(tmp_path / "model"))
    assert "--pretrained must be toy or a diffusers folder" in told
    assert not (tmp_path / "out").exists()


class _Calls(Journal):
    """Notes what is called, and fails if it is told so."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.called: list[str] = []
        self.salts: list[Path] = []
        self.fails = fails

    def call(self, module: str, *arguments: object, threads: int | None = None) -> None:
        self.called.append(module)
        self.salts += [arguments[arguments.index("--salt_file") + 1]] if "--salt_file" in arguments else []
        if self.fails:
            raise ChildProcessError("the command above ended with code 1")


def _own(tmp_path: Path, model: Path, *, frames: int = 21, calls: _Calls | None = None) -> OwnClip:
    """Return a clip of one's own; what is drawn lies in ``mine``."""
    form = ClipFormat(frames, 96, 128, 16.0)
    (files,) = write_world(tmp_path / "mine", count=1, form=form, options=WorldOptions(max_people=1))
    folder = DemoFolder(tmp_path / "out")
    folder.path.mkdir()
    machinery = Machinery(folder, DemoSettings(str(model)), calls or _Calls())
    return OwnClip(files.video, files.signals, folder, machinery)


def test_a_short_clip_of_ones_own_is_left_out_in_words_and_nothing_is_run_on_it(
    tmp_path: Path, tiny_model: Path
) -> None:
    calls = _Calls()
    own = _own(tmp_path, tiny_model, frames=9, calls=calls)
    assert "was left out" in own.prepare()
    assert own.anonymize() == own.prepare()
    refusal = own.shown()
    assert isinstance(refusal, Refusal)
    assert "gives 5 frames at 8 fps within its signals, needs 9" in refusal.reasons[0]
    assert "9 frames at 8 a second in one scene" in refusal.remedies[0]
    assert calls.called == []
    assert "bring a longer clip" in own.ending()
    assert "as private as your clip" in own.ending()


def test_a_clip_of_ones_own_that_the_gate_doubts_is_left_out_in_words(tmp_path: Path, tiny_model: Path) -> None:
    own = _own(tmp_path, tiny_model)
    (own.signals / "caption.txt").write_text("Call her at +49 171 5550199.")
    own.prepare()
    assert own.refusal is not None
    assert "the caption holds what tells who somebody is" in own.refusal.reasons[0]
    assert any("data_prep.run --clips FOLDER --output DATASET --review" in remedy for remedy in own.refusal.remedies)


def test_a_clip_of_ones_own_is_linked_and_a_command_that_fails_on_it_ends_nothing(
    tmp_path: Path, tiny_model: Path
) -> None:
    calls = _Calls(fails=True)
    own = _own(tmp_path, tiny_model, calls=calls)
    own.prepare()
    assert calls.called == ["data_prep.run"]
    assert own.refusal is not None
    assert own.refusal.reasons == ("one of the commands on it failed",)
    clips = own.folder.own / "clips"
    assert (clips / own.video.name).readlink() == own.video.resolve()
    assert (clips / "signals" / own.video.stem).readlink() == own.signals.resolve()
    assert own.windows["structall"].window.clip.conditions.keys() == {"structall"}


def test_drawn_clips_have_keys_of_the_seed_and_a_clip_of_ones_own_those_of_a_secret(
    tmp_path: Path, tiny_model: Path
) -> None:
    calls = _Calls(fails=True)
    own = _own(tmp_path, tiny_model, calls=calls)
    own.prepare()
    salts = []
    for seed in (0, 0, 1):
        machinery = Machinery(own.folder, DemoSettings(str(tiny_model), seed=seed), calls)
        with pytest.raises(ChildProcessError):
            machinery.prepare()
        salts.append(calls.salts[-1].read_bytes())
    assert salts[0] == salts[1] != salts[2]
    assert calls.salts[0] == own.folder.own / "salt" != calls.salts[1]
    assert not calls.salts[0].exists(), "data preparation makes it, at random"


def test_scenes_of_a_clip_of_ones_own_are_told_apart(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = _own(tmp_path, tiny_model)
    monkeypatch.setattr("regen_train.preparation.probe.find_cuts", lambda frames, threshold: (21, (2,)))
    own.prepare()
    assert own.windows["structhuman"].window.frames[0] == 2


@pytest.mark.parametrize("name", ["steps", "num_clips", "num_measured", "num_pairs", "batch_size"])
def test_too_little_of_anything_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        DemoSettings(**{name: 0})


def test_a_step_is_noted_with_time_memory_and_what_a_user_types(capsys: pytest.CaptureFixture[str]) -> None:
    held = psutil.Process().memory_full_info()
    journal, before = Journal(), getattr(held, "pss", held.rss)

    def act() -> str:
        held = torch.ones(50_000_000)
        journal.call("json.tool", "--help")
        time.sleep(0.6)
        return f"{held.numel()} numbers"

    journal.do("hold", act)
    (entry,) = journal.entries
    assert entry.result == "50000000 numbers"
    assert entry.peak_bytes > before + 150_000_000
    assert entry.seconds > 0.6
    assert entry.commands == ("python -m json.tool --help",)
    assert "$ python -m json.tool --help" in capsys.readouterr().out


def test_a_failed_command_ends_the_demo() -> None:
    with pytest.raises(ChildProcessError, match="ended with code"):
        Journal().call("json.tool", "--no-such-option")


def test_a_command_is_killed_once_something_holds_or_ends_by_itself() -> None:
    journal = Journal()
    assert journal.call_and_kill(lambda: True, "timeit", "-n", "1", "-r", "1", "import time; time.sleep(60)")
    assert not journal.call_and_kill(lambda: False, "json.tool", "--help")
    with pytest.raises(ChildProcessError):
        journal.call_and_kill(lambda: False, "json.tool", "--no-such-option")


def test_a_command_runs_beside_others_and_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal, log = Journal(), tmp_path / "logs" / "beside.log"
    with journal.beside(log, "json.tool", "--help", threads=1) as finish:
        journal.do("meanwhile", lambda: "done")
        finish()
    assert "usage" in log.read_text()
    shown = f"OMP_NUM_THREADS=1 python -m json.tool --help > {log} 2>&1 &"
    assert journal.entries[0].commands == (shown,)
    assert f"$ {shown}" in capsys.readouterr().out


def test_a_command_that_fails_beside_tells_what_it_said(tmp_path: Path) -> None:
    with (
        pytest.raises(ChildProcessError, match=r"(?s)beside ended with code 2; .*unrecognized arguments: --no-such"),
        Journal().beside(tmp_path / "log", "json.tool", "--no-such-option") as finish,
    ):
        finish()


def test_a_command_beside_does_not_outlive_a_fault(tmp_path: Path) -> None:
    slow = ("timeit", "-n", "1", "-r", "1", "import time; time.sleep(60)")
    start, before = time.perf_counter(), set(psutil.Process().children())  # such as other tests' helpers
    with pytest.raises(ValueError, match="elsewhere"), Journal().beside(tmp_path / "log", *slow):
        raise ValueError("elsewhere")
    assert time.perf_counter() - start < 30
    assert set(psutil.Process().children()) <= before


def test_commands_are_shown_as_they_are_typed() -> None:
    assert shown_command("regen_train", ["fit", "--a", ""]) == "regen_train fit --a ''"
    assert shown_command("data_prep.run", ["--sizes", "[[1,2]]"]) == "python -m data_prep.run --sizes '[[1,2]]'"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_all_steps_on_a_random_model_and_a_clip_of_ones_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = build_tiny_wan_vace(tmp_path / "model", variant="z32")
    (own,) = write_world(
        tmp_path / "mine",
        count=1,
        form=ClipFormat(21, 240, 416, 16.0),
        options=WorldOptions(max_people=1),
        codec="h264",
    )
    folder = DemoFolder(tmp_path / "out")
    claim(folder.path)
    settings = DemoSettings(
        str(model),
        steps=4,
        num_clips=14,
        num_measured=8,
        num_pairs=2,
        num_recoloured=3,
        num_shown=(1, 1, 1),
        batch_size=4,
    )
    report = go(folder, settings, _nobody_found, (own.video, own.signals))

    assert [entry.step for entry in report.journal.entries][:3] == [
        "your clip: signals, gate, shard", "draw clips", "prepare shards",
    ]  # fmt: skip
    shown = capfd.readouterr().out
    assert "step-000002.ckpt is there" in shown
    assert shown.count("-- step 4, 32 samples seen") == 2  # resumed; and the other variant
    assert "TOY" in shown
    assert f"Videos side by side: {folder.path / 'videos'}" in shown
    assert "as private as your clip" in shown
    info = load_dataset(str(folder.dataset)).info
    assert DatasetSettings(**_read_settings(info.settings)).sample_dict() == TOY_DATASET.sample_dict()
    painted = probe_video(folder.own / "structall.mp4")
    assert (painted.height, painted.width) == (240, 416)
    assert (folder.held_out / "anonymized.mp4").is_file()
    page = (folder.path / "index.html").read_text()
    assert "Your clip" in page
    assert "http://" not in page
    assert "https://" not in page
    numbers = json.loads((folder.path / "report.json").read_text())
    assert len(numbers["figures"]["methods"]) == 9
    assert all(method["clean"]["n"] == 8 for method in numbers["figures"]["methods"])
    assert {path.name for path in folder.path.glob("*.png")} == {"strip.png"}
    assert len(list((folder.path / "videos").iterdir())) == 2


def _read_settings(stated: dict[str, object]) -> dict[str, object]:
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in stated.items()}
    return {name: value for name, value in plain.items() if name in DatasetSettings.__dataclass_fields__}


def _nobody_found(video: torch.Tensor, truth: WorldClip) -> Followed:
    return Followed(float((video == truth.frames).float().mean()), 0.0)
