"""A video file in, an anonymized one out: nothing of the people, nothing beside the pictures, whole or not at all."""

from dataclasses import replace
from pathlib import Path

import av
import pytest
import torch
from anonymize_clips import QUICK, ask, draw, recode, restate_source, with_other_people, write_lora

from regen_train.anonymize import AnonymizeReport, GateRefusedError, anonymize_video
from regen_train.guard import GuardSettings
from regen_train.signals import load_signals
from regen_train.toy.world import WorldFiles
from regen_train.video import encode, probe_video, read_video, write_video

STRONG = replace(QUICK, conditioning_scale=30.0)
"""A random model hardly listens to its condition."""

TOLD = "Jane Quimby-Doe at +48.8584+002.2945/"
TAGS = dict.fromkeys(("title", "artist", "comment", "location", "com.apple.quicktime.make", "handler_name"), TOLD)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> WorldFiles:
    return draw(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def small_lora(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A LoRA that says it was trained on small pictures."""
    dataset = {"settings": {"fps": 8.0}, "buckets": ["9x64x64"]}
    path = tmp_path_factory.mktemp("lora") / "pytorch_lora_weights.safetensors"
    return str(write_lora(tiny_model, path, settings={"dataset": dataset}))


def frames_of(path: Path) -> torch.Tensor:
    return read_video(path).frames


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("variant", ["structhuman", "structall"])
def test_no_pixel_of_a_person_reaches_the_output(clip, tiny_model, tmp_path, variant):
    noise = with_other_people(clip, tmp_path / "noise")
    for source, name in ((clip, "real.mkv"), (noise, "noise.mkv")):
        anonymize_video(ask(source, tmp_path / name, tiny_model, variant=variant, sampling=STRONG, codec="ffv1"))
    assert torch.equal(frames_of(tmp_path / "real.mkv"), frames_of(tmp_path / "noise.mkv"))
    assert (tmp_path / "real.mkv").read_bytes() == (tmp_path / "noise.mkv").read_bytes()


def test_the_background_reaches_structhuman_and_not_structall(clip, tiny_model, tmp_path):
    """The test above would hold of a video that ignores its condition."""
    video, people = read_video(clip.video), load_signals(clip.signals).people
    turned = with_other_people(clip, tmp_path / "turned")
    frames = torch.where(people[..., None], video.frames, 255 - video.frames)
    write_video(turned.video, frames, 8, codec="ffv1")
    restate_source(turned.signals, turned.video)
    apart = {}
    for variant in ("structhuman", "structall"):
        for source, name in ((clip, "real.mkv"), (turned, "turned.mkv")):
            anonymize_video(ask(source, tmp_path / name, tiny_model, variant=variant, sampling=STRONG, codec="ffv1"))
        apart[variant] = not torch.equal(frames_of(tmp_path / "real.mkv"), frames_of(tmp_path / "turned.mkv"))
    assert apart == {"structhuman": True, "structall": False}


def test_what_cameras_write_beside_the_pictures_is_gone(clip, tiny_model, tmp_path):
    told = recode(clip, tmp_path / "IMG_quimby.mp4", tags=TAGS)
    assert TOLD.encode() in told.video.read_bytes()
    assert probe_video(told.video).has_audio
    for ending in ("mp4", "mov", "mkv"):
        output = tmp_path / "out" / f"anonymous.{ending}"
        anonymize_video(ask(told, output, tiny_model))
        content = output.read_bytes()
        assert not [word for word in (TOLD, "quimby", "Quimby", "Lavc") if word.encode() in content]
        with av.open(str(output)) as container:
            assert [stream.type for stream in container.streams] == ["video"]
            assert not container.chapters()
            tags = {**container.metadata, **container.streams.video[0].metadata}
        known = {"major_brand", "minor_version", "compatible_brands", "vendor_id", "language", "DURATION"}
        told_by = {name: value for name, value in tags.items() if name not in known}
        assert set(told_by.items()) <= {
            ("handler_name", "VideoHandler"),
            ("encoder", "Lavf"),
            ("encoder", "Lavc libx264"),
        }
    assert names_in(tmp_path / "out") == ["anonymous.mkv", "anonymous.mov", "anonymous.mp4"]


@pytest.mark.parametrize(("height", "width"), [(97, 131), (128, 72), (64, 160)])
def test_the_output_has_the_size_of_the_input(tiny_model, small_lora, tmp_path, height, width):
    clip = draw(tmp_path, height=height, width=width)
    report = anonymize_video(ask(clip, tmp_path / "out.mp4", tiny_model, window={"size": None}, lora=small_lora))
    info = probe_video(tmp_path / "out.mp4")
    assert (info.height, info.width) == report.size == (height, width)
    assert (info.fps, info.has_audio) == (8, False)
    assert len(frames_of(tmp_path / "out.mp4")) == report.bucket.num_frames == 9
    assert bool(report.notes and "yuv444p" in report.notes[-1]) is bool(height % 2 or width % 2)


def test_a_turned_clip_comes_out_upright(tiny_model, tmp_path):
    clip = recode(draw(tmp_path, height=96, width=64), tmp_path / "turned.mp4", rotate=90)
    assert (probe_video(clip.video).height, probe_video(clip.video).rotation) == (96, 90)
    report = anonymize_video(ask(clip, tmp_path / "out.mp4", tiny_model, window={"size": (96, 64)}))
    info = probe_video(tmp_path / "out.mp4")
    assert (info.height, info.width, info.rotation) == (96, 64, 0)
    assert not report.border


def test_it_says_what_part_it_covered(tiny_model, tmp_path):
    clip = draw(tmp_path, frames=33, fps=16.0)
    report = anonymize_video(ask(clip, tmp_path / "out.mp4", tiny_model))
    assert isinstance(report, AnonymizeReport)
    assert (report.first_frame, report.last_frame, report.source_frames) == (0, 16, 33)
    assert (report.start, report.end, report.fps) == (0.0, pytest.approx(1.0), 8.0)


def test_whose_words_were_painted_and_what_nobody_checked_is_told(clip, tiny_model, tmp_path, caplog):
    report = anonymize_video(ask(clip, tmp_path / "own.mp4", tiny_model))
    assert "the clip's own caption, which describes the real person; --caption" in report.notes[0]
    assert report.notes[0] in caplog.text
    unchecked = {note for note in report.notes if note.startswith("the gate: no detector of people looked")}
    assert len(unchecked) == 1
    assert {finding.severity for finding in report.guard.findings} == {"note"}
    assert len([note for note in report.notes if note.startswith("the gate: ")]) == len(report.guard.findings)
    caplog.clear()
    told = anonymize_video(ask(clip, tmp_path / "other.mp4", tiny_model, caption="A woman in a red coat walks."))
    assert not [note for note in (*told.notes, caplog.text) if "own caption" in note]


def test_seed_and_caption_change_the_video(clip, tiny_model, small_lora, tmp_path):
    videos = []
    for number, changed in enumerate(({}, {"seed": 1}, {"caption": "a red car"}, {"lora": small_lora}, {})):
        output = tmp_path / f"{number}.mkv"
        anonymize_video(ask(clip, output, tiny_model, codec="ffv1", **changed))
        videos.append(output.read_bytes())
    assert len(set(videos)) == 4
    assert videos[0] == videos[4]


def test_a_crash_leaves_no_output_and_an_older_one_untouched(clip, tiny_model, tmp_path, monkeypatch):
    written, picture = [], encode._picture

    def fail_at_the_fourth(*args):
        written.append(1)
        if len(written) == 4:
            raise OSError("no space left on device")
        return picture(*args)

    (tmp_path / "old.mkv").write_bytes(b"older")
    for name, after in (("new.mkv", ["old.mkv"]), ("old.mkv", ["old.mkv"])):
        written.clear()
        monkeypatch.setattr(encode, "_picture", fail_at_the_fourth)
        with pytest.raises(OSError, match="no space left"):
            anonymize_video(ask(clip, tmp_path / name, tiny_model, codec="ffv1"))  # writes frame by frame
        assert names_in(tmp_path) == after
    assert (tmp_path / "old.mkv").read_bytes() == b"older"


def test_what_the_gate_doubts_is_not_written(clip, tiny_model, tmp_path):
    (tmp_path / "old.mp4").write_bytes(b"older")
    options = ask(clip, tmp_path / "old.mp4", tiny_model, guard=GuardSettings())
    with pytest.raises(GateRefusedError, match=r"the gate doubts frames 0 to 8 of clip-00000\.mkv") as refused:
        anonymize_video(options)
    assert "no detector of people looked at the clip" in str(refused.value)
    assert "--guard.when_absent accept" in str(refused.value)
    assert refused.value.report.verdict == "review"
    assert names_in(tmp_path) == ["old.mp4"]
    assert (tmp_path / "old.mp4").read_bytes() == b"older"


def test_what_the_gate_rejects_is_not_written(clip, tiny_model, tmp_path):
    options = ask(clip, tmp_path / "out.mp4", tiny_model, guard=GuardSettings(when_absent="reject"))
    with pytest.raises(GateRefusedError, match="the gate rejects frames 0 to 8") as refused:
        anonymize_video(options)
    assert "mend the signals at these frames" in str(refused.value)
    assert names_in(tmp_path) == []


def test_a_caption_in_place_of_the_signals_is_judged_too(clip, tiny_model, tmp_path):
    caption = "Call her at +49 171 5550199 or jane.doe@example.com."
    with pytest.raises(GateRefusedError, match="caption"):
        anonymize_video(ask(clip, tmp_path / "out.mp4", tiny_model, caption=caption))
    assert names_in(tmp_path) == []


def test_a_person_may_release_what_the_gate_doubts(clip, tiny_model, tmp_path):
    doubtful = "A man walks, call +49 171 5550199."
    options = ask(clip, tmp_path / "out.mp4", tiny_model, caption=doubtful, quarantine=tmp_path / "aside")
    with pytest.raises(GateRefusedError, match=r"enter yes in .*review\.csv"):
        anonymize_video(options)
    listed = tmp_path / "aside" / "review.csv"
    assert {path.suffix for path in (tmp_path / "aside").iterdir()} == {".json", ".png", ".csv"}
    listed.write_text(listed.read_text().replace("\nno,", "\nyes,"))
    report = anonymize_video(options)
    assert any("released it: the caption holds" in note for note in report.notes)
    assert (tmp_path / "out.mp4").is_file()
    other = replace(options, video=replace(options.video, caption=f"{doubtful}.", output=tmp_path / "other.mp4"))
    with pytest.raises(GateRefusedError):
        anonymize_video(other)  # what was released was another window


def test_a_dataset_of_human_masks_gives_vace_the_mask(clip, tiny_model, tmp_path):
    for number, mask in enumerate(("ones", "human")):
        window = {"vace_mask": mask}
        anonymize_video(ask(clip, tmp_path / f"{number}.mkv", tiny_model, window=window, codec="ffv1"))
    assert (tmp_path / "0.mkv").read_bytes() != (tmp_path / "1.mkv").read_bytes()


def test_progress_is_told(clip, tiny_model, tmp_path):
    seen: list[tuple[int, int]] = []
    options = ask(clip, tmp_path / "out.mp4", tiny_model, sampling=replace(QUICK, num_inference_steps=2))
    anonymize_video(options, progress=lambda *step: seen.append(step))
    assert seen == [(1, 2), (2, 2)]
