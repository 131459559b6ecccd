"""Scene cuts in a whole run: no sample shows two scenes, and masks may change where the scene does."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from moving_people import People, draw_people, write_people

from data_prep import run
from regen_train.preparation.ledger import LedgerRow, read_ledger
from regen_train.signals import Poses

Run = Callable[..., list[LedgerRow]]


@pytest.fixture
def prepare(tiny_model: Path, tmp_path: Path) -> Run:
    """Run a preparation at the clips' own rate; return the rows of the windows."""
    arguments = [
        *("--clips", str(tmp_path / "clips"), "--output", str(tmp_path / "dataset"), "--fps", "15"),
        *("--pretrained", str(tiny_model), "--salt_file", str(tmp_path / "salt"), "--num_frames", "5"),
        *("--sizes", "[[32,48]]", "--dtype", "fp32", "--dilation", "2", "--num_workers", "0", "--threads", "1"),
        *("--guard.when_absent", "accept"),
    ]

    def main(*extra: str) -> list[LedgerRow]:
        run.main([*arguments, *extra])
        return [row for row in read_ledger(tmp_path / "dataset" / ".work") if row.stage == "window"]

    return main


def scenes(*parts: People) -> People:
    """Join clips; the person of each stands elsewhere."""
    return People(
        frames=torch.cat([part.frames for part in parts]),
        mask=torch.cat([part.mask for part in parts]),
        poses=Poses(
            torch.cat([part.poses.keypoints for part in parts]), torch.cat([part.poses.scores for part in parts])
        ),
        depth=torch.cat([part.depth.int() for part in parts]).to(torch.uint16),
    )


def with_room(people: People) -> People:
    """Widen a clip to the right and below, so that nobody can leave through the border from one frame to the next."""
    layers = {name: getattr(people, name).movedim(-1, 1) if name == "frames" else getattr(people, name).int()
              for name in ("frames", "mask", "depth")}  # fmt: skip
    wide = {name: torch.nn.functional.pad(layer.int(), (0, 20, 0, 20), value=60 * (name == "frames"))
            for name, layer in layers.items()}  # fmt: skip
    frames = wide["frames"].movedim(1, -1).byte().contiguous()
    return People(frames, wide["mask"].byte(), people.poses, wide["depth"].to(torch.uint16))


def test_windows_end_at_cuts_where_masks_may_change(prepare: Run, tmp_path: Path) -> None:
    """The person of the second scene stands elsewhere: within a scene that is a mask that vanishes."""
    one, other = with_room(draw_people(seed=1, num_frames=8)), with_room(draw_people(seed=8, num_frames=12))
    write_people(tmp_path / "clips", "clip", scenes(one, other))
    found = prepare()
    assert [(row.first_frame, row.last_frame, row.status) for row in found] == [
        (0, 4, "ok"), (8, 12, "ok"), (13, 17, "ok")
    ]  # fmt: skip
    assert "mask_vanishes" not in "".join(row.verdict for row in found)
    uncut = [row for row in prepare("--scene_cuts", "false") if row not in found]
    assert [row.first_frame for row in uncut] == [0, 5, 10, 15]
    checks = {finding["check"] for finding in json.loads(uncut[1].verdict)["findings"]}
    assert "mask_vanishes" in checks
    assert uncut[1].status != "ok"


def test_scenes_shorter_than_a_window_are_left_out(
    prepare: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [draw_people(seed=seed, num_frames=count) for seed, count in ((1, 3), (2, 6), (3, 4))]
    write_people(tmp_path / "clips", "clip", scenes(*parts))
    write_people(tmp_path / "clips", "flashes", scenes(parts[0], parts[2]))
    assert [(row.clip, row.first_frame, row.last_frame) for row in prepare()] == [("clip.mkv", 3, 7)]
    said = capsys.readouterr().out
    assert "3 scenes" in said
    assert "gives 1 frames at 15 fps within its signals in the longest of 2 scenes, needs 5" in said
