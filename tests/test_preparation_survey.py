from dataclasses import replace
from pathlib import Path

import pytest
import torch
from moving_people import draw_people, write_people

from regen_train.preparation.report import format_verdicts
from regen_train.preparation.settings import DatasetSettings
from regen_train.preparation.survey import Verdict, closest_size, find_clips, survey_clip
from regen_train.schema import Bucket

SETTINGS = DatasetSettings(num_frames=5, sizes=((32, 48), (48, 32)))


def survey(folder: Path, settings: DatasetSettings = SETTINGS, name: str = "clip"):
    clip = find_clips(folder)[0]
    return survey_clip(clip, folder / "signals" / name, settings, temporal_factor=4)


def test_windows_follow_each_other_within_the_signals(tmp_path: Path) -> None:
    write_people(tmp_path, "clip", draw_people(num_frames=25))
    plan = survey(tmp_path)
    assert plan.bucket == Bucket(5, 32, 48)
    assert plan.windows == ((0, 2, 4, 6, 8), (10, 12, 14, 16, 18))
    assert plan.notes == ("3 frames left over",)
    assert survey(tmp_path, replace(SETTINGS, max_windows_per_clip=1)).windows == plan.windows[:1]


def test_a_short_clip_is_trimmed_only_if_allowed(tmp_path: Path) -> None:
    write_people(tmp_path, "clip", draw_people(num_frames=25))
    settings = replace(SETTINGS, num_frames=49, min_frames=9)
    plan = survey(tmp_path, settings)
    assert plan.bucket.num_frames == 13
    assert plan.windows == (tuple(range(0, 25, 2)),)
    with pytest.raises(
        ValueError, match=r"gives 13 frames at 7.5 fps within its signals, needs 49; --min_frames 13 takes it so short"
    ):
        survey(tmp_path, replace(settings, min_frames=None))
    with pytest.raises(ValueError, match="needs 14"):
        survey(tmp_path, replace(settings, min_frames=14))


def test_a_slow_source_is_refused_unless_allowed(tmp_path: Path) -> None:
    write_people(tmp_path, "clip", draw_people(), fps=5.0)
    with pytest.raises(ValueError, match=r"runs at 5.00 fps, too slow for 7.5 fps: .*--allow_slow_source true"):
        survey(tmp_path)
    plan = survey(tmp_path, replace(SETTINGS, allow_slow_source=True))
    assert plan.windows[0] == (0, 0, 1, 2, 2)


def test_the_size_of_closest_aspect_ratio_is_taken(tmp_path: Path) -> None:
    sizes = ((480, 832), (832, 480), (640, 640))
    assert closest_size((1080, 1920), sizes) == (480, 832)
    assert closest_size((1920, 1080), sizes) == (832, 480)
    assert closest_size((600, 700), sizes) == (640, 640)
    write_people(tmp_path, "clip", draw_people(height=64, width=48))
    assert survey(tmp_path).bucket == Bucket(5, 48, 32)


def test_a_large_crop_and_enlarging_are_noted(tmp_path: Path) -> None:
    write_people(tmp_path, "clip", draw_people())
    notes = survey(tmp_path, replace(SETTINGS, sizes=((32, 96),))).notes
    assert "only 44% of the picture is kept" in notes
    assert "enlarged 1.50 times" in notes


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        find_clips(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no video file"):
        find_clips(tmp_path)


def test_any_signal_changes_their_hash_and_the_folder_name_does_not(tmp_path: Path) -> None:
    people = draw_people()
    write_people(tmp_path / "a", "clip", people)
    write_people(tmp_path / "b", "clip", replace(people, depth=(people.depth.int() + 1).to(torch.uint16)))
    one, other = survey(tmp_path / "a"), survey(tmp_path / "b")
    assert one.source_sha256 == other.source_sha256
    assert one.signals_sha256 != other.signals_sha256
    (tmp_path / "a" / "signals" / "clip").rename(tmp_path / "a" / "signals" / "renamed")
    assert survey(tmp_path / "a", name="renamed").signals_sha256 == one.signals_sha256


def test_the_table_lists_every_clip() -> None:
    table = format_verdicts([Verdict("b.mp4", used=False, reason="too slow"), Verdict("a.mp4", used=True, reason="2")])
    assert table.splitlines() == ["clip   verdict  reason", "a.mp4  used     2", "b.mp4  REFUSED  too slow"]
