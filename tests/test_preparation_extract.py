"""Signals made by extractors, alone and beside brought ones, and kept as long as nothing that decides them changes."""

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from moving_people import People, draw_people, write_people

from data_prep import extract, run
from regen_train.files import file_sha256
from regen_train.preparation.ledger import LedgerRow, read_ledger
from regen_train.shards import load_dataset
from regen_train.signals import load_signals, write_signals
from regen_train.signals import meta as metas
from regen_train.video import write_video

ALL = ("masks", "poses", "depth", "captions")
Command = Callable[..., list[str]]


class Place:
    """A folder of clips, its dataset, and a log of what the sources worked on."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        self.clips, self.work = folder / "clips", folder / "dataset" / ".work"
        self.files = ["--clips", str(self.clips), "--output", str(folder / "dataset")]
        self.encoding = [
            *("--pretrained", str(model), "--salt_file", str(folder / "salt"), "--num_frames", "5"),
            *("--sizes", "[[32,48]]", "--dtype", "fp32", "--dilation", "2", "--guard.when_absent", "accept"),
        ]
        self.engine = ["--num_workers", "0", "--threads", "1"]

    def sources(self, kinds: Sequence[str] = ALL) -> list[str]:
        named = []
        for kind in kinds:
            named += [f"--{kind}", f"fake_sources.Fake{kind.capitalize()}", f"--{kind}.log", str(self.log)]
        return named

    def run(self, *extra: str) -> int:
        return run.main([*self.files, *self.encoding, *self.engine, *extra])

    def extract(self, *extra: str) -> int:
        return extract.main([*self.files, *self.engine, *extra])

    def worked(self) -> dict[str, int]:
        """Return how often each source worked since the last time this was asked."""
        words = [line.split()[0] for line in self.log.read_text().splitlines()] if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return dict(Counter(words))

    def rows(self, stage: str) -> list[LedgerRow]:
        return [row for row in read_ledger(self.work) if row.stage == stage]

    def bring(self, name: str, people: People, kinds: Sequence[str] = ("mask", "pose", "depth", "caption")) -> Path:
        """Write a clip with some of its signals."""
        clip = write_people(self.clips, name, people)
        files = {"mask": "mask.mkv", "pose": "pose.safetensors", "depth": "depth.mkv", "caption": "caption.txt"}
        for kind, file in files.items():
            if kind not in kinds:
                (self.clips / "signals" / name / file).unlink()
        return clip

    def raw(self, name: str, seed: int, *, num_frames: int = 10) -> Path:
        """Write a clip without signals."""
        self.clips.mkdir(exist_ok=True)
        clip = self.clips / f"{name}.mkv"
        write_video(clip, draw_people(seed=seed, num_frames=num_frames).frames, 15.0, codec="ffv1")
        return clip


@pytest.fixture
def place(tmp_path: Path, tiny_model: Path) -> Place:
    return Place(tmp_path, tiny_model)


ONCE = {"mask": 2, "pose": 2, "depth": 2, "caption": 2}


def test_raw_videos_become_a_dataset(place: Place) -> None:
    clips = [place.raw(name, seed) for seed, name in enumerate(("a", "b"))]
    assert place.run(*place.sources()) == 0
    assert place.worked() == ONCE
    info = load_dataset(str(place.folder / "dataset")).info
    assert (info.num_samples, info.conditions) == (2, ("structall", "structhuman"))
    assert [place.rows(stage)[0].status for stage in ("probe", "mask", "pose", "depth", "caption", "encode")] == [
        "ok"
    ] * 6
    for clip in clips:
        folder = place.work / "signals" / clip.stem
        signals = load_signals(folder, clip=clip)
        assert signals.num_frames == 10
        assert signals.meta["mask"] == {"extractor": "fake", "weights": "1"}
        brought = shutil.copytree(folder, place.folder / "theirs" / clip.stem, ignore=shutil.ignore_patterns(".*"))
        assert load_signals(brought, clip=clip).source_sha256 == file_sha256(clip)
    again = Place(place.folder, place.folder)
    again.encoding = place.encoding
    again.files = ["--clips", str(place.clips), "--output", str(place.folder / "again")]
    assert again.run("--signals", str(place.folder / "theirs")) == 0
    shards = [place.folder / name / "shard-000000.tar" for name in ("dataset", "again")]
    assert shards[0].read_bytes() == shards[1].read_bytes()


def test_extracted_first_and_encoded_later_nothing_is_made_twice(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.raw("a", 1)
    place.raw("b", 2)
    assert place.extract(*place.sources()) == 0
    assert f"2 clips with signals in {place.work / 'signals'}" in capsys.readouterr().out
    assert place.worked() == ONCE
    assert place.run(*place.sources()) == 0
    assert place.worked() == {}
    assert place.extract(*place.sources()) == 0
    assert place.run(*place.sources()) == 0
    assert place.worked() == {}


def test_what_decides_a_signal_makes_it_again(place: Place) -> None:
    place.raw("a", 1)
    place.raw("b", 2)
    command = place.sources()
    assert place.run(*command) == 0
    place.worked()
    mask = place.work / "signals" / "a" / "mask.mkv"
    made = place.rows("encode")
    assert place.run(*command, "--masks.window", "3") == 0  # decides nothing, says the source
    assert place.worked() == {}
    assert place.rows("encode") == made
    assert place.run(*command, "--masks.weights", "2") == 0
    assert place.worked() == {"mask": 2}
    meta = metas.read_meta(mask.with_name("signals.json"))
    assert meta["mask"]["weights"] == "2"
    assert place.run(*command, "--captions.text", "Somebody stands still.") == 0
    assert place.worked() == {"mask": 2, "caption": 2}  # one folder holds one version of each signal
    mask.unlink()
    assert place.run(*command) == 0
    assert place.worked() == {"mask": 1, "caption": 2}
    place.raw("a", 3)
    assert place.run(*command) == 0
    assert place.worked() == {"mask": 1, "pose": 1, "depth": 1, "caption": 1}


def test_brought_signals_are_taken_where_nothing_makes_them(place: Place) -> None:
    """The clip has 20 frames, what is brought covers 10: so does what is made."""
    people = draw_people(seed=1)
    clip = place.raw("a", 1, num_frames=20)
    write_signals(
        place.clips / "signals" / "a",
        mask=people.mask[:10],
        people=people.poses.select(range(10)),
        caption="A person walks along a wall.",
        source_sha256=file_sha256(clip),
    )
    assert place.run(*place.sources(["masks", "depth"])) == 0
    signals = load_signals(place.work / "signals" / "a", clip=clip)
    assert signals.num_frames == 10
    assert signals.depth is not None
    assert signals.meta["pose"] == {"extractor": "files"}
    assert load_dataset(str(place.folder / "dataset")).info.num_samples == 1
    assert place.worked() == {"mask": 1, "depth": 1}
    assert place.run(*place.sources()) == 0  # nothing brought is taken: all frames count
    assert load_signals(place.work / "signals" / "a", clip=clip).num_frames == 20
    assert load_dataset(str(place.folder / "dataset")).info.num_samples == 2


def test_brought_files_do_not_pass_for_extracted_ones(place: Place) -> None:
    people = draw_people(seed=1, num_frames=10)
    people.mask[:] = people.mask.flip(2)
    clip = place.bring("a", people)
    folder = place.work / "signals" / "a"
    assert place.extract(*place.sources(["masks", "depth"])) == 0
    extracted = (folder / "mask.mkv").read_bytes()
    assert place.extract(*place.sources(["depth"])) == 0
    assert (folder / "mask.mkv").read_bytes() == (place.clips / "signals" / "a" / "mask.mkv").read_bytes() != extracted
    assert place.extract(*place.sources(["masks", "depth"])) == 0
    assert (folder / "mask.mkv").read_bytes() == extracted
    assert load_signals(folder, clip=clip).meta["mask"]["extractor"] == "fake"


def test_depth_of_an_earlier_run_does_not_stay(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    clip = place.raw("a", 1)
    assert place.run(*place.sources()) == 0
    assert place.run(*place.sources(["masks", "poses", "captions"])) == 0
    assert "no structall in this dataset, for 1 clip bring no depth: a.mkv" in capsys.readouterr().err
    assert load_dataset(str(place.folder / "dataset")).info.conditions == ("structhuman",)
    assert load_signals(place.work / "signals" / "a", clip=clip).depth is None


def test_poses_found_in_masks_are_made_again_with_them(place: Place) -> None:
    """Their own identity does not know the masks."""
    place.raw("a", 1)
    root = ("--poses.mask_root", str(place.work / "signals"))
    assert place.extract(*place.sources(), *root) == 0
    assert place.worked() == {"mask": 1, "pose": 1, "depth": 1, "caption": 1}
    assert place.extract(*place.sources(), *root) == 0
    assert place.worked() == {}
    assert place.extract(*place.sources(), *root, "--masks.weights", "2") == 0
    assert place.worked() == {"mask": 1}  # other weights, the very same masks
    assert place.extract(*place.sources(), *root, "--masks.lag", "1") == 0
    assert place.worked() == {"mask": 1, "pose": 1}
    assert place.extract(*place.sources(), "--masks.lag", "1") == 0
    assert place.worked() == {"pose": 1}


def test_files_named_as_an_extractor_count_by_their_content(place: Place) -> None:
    place.raw("a", 1)
    theirs = place.folder / "theirs" / "a"
    theirs.mkdir(parents=True)
    (theirs / "caption.txt").write_text("A person walks.\n")
    command = [*place.sources(["masks", "poses", "depth"]), "--captions", "CaptionFiles"]
    command += ["--captions.root", str(theirs.parent)]
    caption = place.work / "signals" / "a" / "caption.txt"
    assert place.extract(*command) == 0
    assert caption.read_text() == "A person walks.\n"
    (theirs / "caption.txt").write_text("A person stands.\n")
    assert place.extract(*command) == 0
    assert caption.read_text() == "A person stands.\n"
    (theirs / "caption.txt").unlink()
    assert place.extract(*command) == 1
    (theirs / "caption.txt").write_text("A person sits.\n")
    assert place.extract(*command) == 0  # missing files are not missing for ever
    assert caption.read_text() == "A person sits.\n"


def test_files_of_another_clip_of_the_same_name_are_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.raw("a", 1)
    write_people(place.folder / "other", "a", draw_people(seed=2, num_frames=10))
    theirs = ("--masks", "MaskFiles", "--masks.root", str(place.folder / "other" / "signals"))
    command = [*place.sources(["poses", "depth", "captions"]), *theirs]
    assert place.extract(*command) == 1
    assert "was made from another file than a.mkv" in capsys.readouterr().out
    (place.folder / "other" / "signals" / "a" / "signals.json").unlink()
    assert place.extract(*command) == 1
    assert "which says what the files beside it were made from" in capsys.readouterr().out


def test_missing_signals_are_named_with_what_makes_them(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.raw("bare", 1)
    place.bring("whole", draw_people(seed=2, num_frames=10))
    assert place.run(*place.sources(["masks"])) == 0
    said = capsys.readouterr().out
    assert f"REFUSED  pose.safetensors, caption.txt: not in {place.clips / 'signals' / 'bare'}" in said
    assert "name an extractor (--masks, --poses, --captions)" in said
    assert "whole.mkv  used" in said


def test_brought_signals_of_another_file_are_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Naming an extractor for one kind must not lend the others a checksum."""
    place.bring("good", draw_people(seed=1, num_frames=10))
    changed = place.bring("changed", draw_people(seed=2, num_frames=10))
    shutil.copy(place.raw("other", 3), changed)
    (place.clips / "other.mkv").unlink()
    torn = place.bring("torn", draw_people(seed=4, num_frames=10))
    (place.clips / "signals" / torn.stem / "signals.json").write_text("{")
    unsigned = place.bring("unsigned", draw_people(seed=5, num_frames=10))
    (place.clips / "signals" / unsigned.stem / "signals.json").unlink()
    assert place.run(*place.sources(["captions"])) == 0
    said = capsys.readouterr().out
    assert "good.mkv      used" in said
    assert "changed.mkv   REFUSED  signals in" in said
    assert "were made from another file" in said
    assert "torn.mkv      REFUSED" in said
    assert "is not JSON" in said
    assert "unsigned.mkv  REFUSED  mask.mkv, pose.safetensors, depth.mkv in" in said
    assert place.run(*place.sources()) == 0
    assert load_dataset(str(place.folder / "dataset")).info.num_samples == 4


@pytest.mark.parametrize(
    ("how", "fault", "reason"),
    [
        ("value", "input", "a.mkv is beyond me"),
        ("runtime", "error", "RuntimeError: CUDA out of memory"),
        ("short", "input", "the mask extractor gave 9 frames, the clip has 10"),
        ("none", "input", "no frames to write"),
    ],
)
def test_a_source_that_fails_costs_its_clip_only(
    place: Place, capsys: pytest.CaptureFixture[str], how: str, fault: str, reason: str
) -> None:
    place.raw("a", 1)
    place.raw("b", 2)
    command = [*place.sources(), "--masks.fail", f"[a={how}]"]
    assert place.run(*command) == 0
    said = capsys.readouterr()
    assert f"{reason}" in said.out
    assert "Traceback" not in said.out + said.err
    assert load_dataset(str(place.folder / "dataset")).info.num_samples == 1
    (row,) = [row for row in place.rows("mask") if row.status == "failed"]
    tries = 1 if fault == "input" else 2
    assert (row.clip, row.fault, row.attempts) == ("a.mkv", fault, tries)
    assert place.worked() == {"mask": 1 + tries, "pose": 1, "depth": 1, "caption": 1}
    assert place.run(*command) == 0
    assert place.worked() == {}
    if fault == "error":
        assert "RuntimeError" in row.trace
        assert place.run(*command, "--max_attempts", "3") == 0
        assert place.worked() == {"mask": 1}


def test_a_class_of_another_kind_is_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.raw("a", 1)
    with pytest.raises(SystemExit, match="2"):
        place.run("--masks", "fake_sources.FakeCaptions")
    assert "does not implement protocol MaskSource" in capsys.readouterr().err
