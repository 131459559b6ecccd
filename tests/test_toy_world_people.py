"""People of the toy world: joints where they belong, occlusion, coming and going, and captions that are true."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from regen_train.conditions import dilate
from regen_train.toy.world import (
    VOCABULARY,
    ClipFormat,
    ClipSpec,
    Furniture,
    Garment,
    Motion,
    Passed,
    Person,
    WorldClip,
    WorldOptions,
    caption_words,
    draw_clip,
    draw_identity,
    draw_scene,
    render,
    write_world,
)
from regen_train.toy.world.caption import describe
from regen_train.toy.world.palette import CLOTHES

NOSE, LEFT_EAR, RIGHT_EAR = 0, 3, 4
LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_WRIST, RIGHT_WRIST, LEFT_HIP, LEFT_KNEE, LEFT_ANKLE = 5, 6, 9, 10, 11, 13, 15
SCENE = replace(draw_scene(0, 0), furniture=())
PAINT = SCENE.wall


def one(motion: Motion, *, size: int = 64) -> WorldClip:
    return render(ClipSpec((Person(draw_identity(0, "one"), motion),), SCENE, height=size, width=size))


def two(first: Motion, second: Motion, passed: Passed | None = None) -> WorldClip:
    people = (Person(draw_identity(0, "one"), first), Person(draw_identity(0, "two"), second))
    return render(ClipSpec(people, SCENE, passed=passed))


@pytest.mark.parametrize("number", range(10))
def test_sure_points_lie_on_their_person_and_absent_ones_are_nan(number):
    form = ClipFormat(num_frames=5, height=64, width=80)
    clip = render(draw_clip(1, number, form))
    keypoints, scores = clip.poses.keypoints, clip.poses.scores
    absent = keypoints.isnan().any(-1)
    assert torch.equal(absent, scores == 0)
    assert set(scores.unique().tolist()) <= {0.0, torch.tensor(0.2).item(), 1.0}
    near = torch.stack([dilate(visible, 1.5) for visible in clip.visible])
    frame, person, point = torch.nonzero(scores >= 0.3, as_tuple=True)
    x, y = keypoints[frame, person, point].round().long().unbind(-1)
    assert near[person, frame, y.clamp(0, 63), x.clamp(0, 79)].all()
    assert keypoints[~absent].min() >= -0.5
    assert (keypoints[~absent] <= torch.tensor([79.5, 63.5])).all()


def test_joints_are_on_the_right_side_and_bend_the_right_way():
    front = one(Motion("stand", 0.5, 0.5, 0.7)).poses.keypoints[0, 0]
    assert front[LEFT_SHOULDER, 0] > front[RIGHT_SHOULDER, 0] + 5
    assert front[LEFT_EAR, 0] > front[RIGHT_EAR, 0] + 2
    assert front[91:112, 0].min() > front[112:133, 0].max()
    assert front[NOSE, 1] < front[LEFT_SHOULDER, 1] < front[LEFT_HIP, 1] < front[LEFT_KNEE, 1] < front[LEFT_ANKLE, 1]
    away = one(Motion("stand", 0.5, 0.5, 0.7, yaw=180)).poses
    assert away.keypoints[0, 0, LEFT_SHOULDER, 0] < away.keypoints[0, 0, RIGHT_SHOULDER, 0] - 5
    assert (away.scores[0, 0, 23:91] < 0.3).float().mean() > 0.9
    assert away.scores[0, 0, NOSE] < 0.3
    squat = one(Motion("squat", 0.5, 0.5, 0.7, yaw=90)).poses.keypoints[4, 0]
    assert squat[LEFT_KNEE, 0] > max(squat[LEFT_HIP, 0], squat[LEFT_ANKLE, 0]) + 3
    assert squat[NOSE, 0] > squat[LEFT_EAR, 0]
    raised = one(Motion("raise", 0.5, 0.5, 0.6)).poses.keypoints
    assert (raised[0, 0, [LEFT_WRIST, RIGHT_WRIST], 1] > raised[0, 0, LEFT_HIP, 1] - 4).all()
    assert (raised[-1, 0, [LEFT_WRIST, RIGHT_WRIST], 1] < raised[-1, 0, NOSE, 1] - 3).all()
    wave = one(Motion("wave", 0.5, 0.5, 0.6, side="left")).poses.keypoints[:, 0]
    assert (wave[:, LEFT_WRIST, 1] < wave[:, LEFT_SHOULDER, 1]).all()
    assert (wave[:, RIGHT_WRIST, 1] > wave[:, RIGHT_SHOULDER, 1]).all()
    assert np.ptp(wave[:, LEFT_WRIST, 0].numpy()) > 2


def test_knees_bend_forward_and_elbows_back_in_walking():
    points = one(Motion("walk", 0.4, 0.6, 0.7, yaw=90), size=128).poses.keypoints[:, 0]
    for first, middle, last, way in ((11, 13, 15, 1), (12, 14, 16, 1), (5, 7, 9, -1), (6, 8, 10, -1)):
        share = (points[:, middle, 1] - points[:, first, 1]) / (points[:, last, 1] - points[:, first, 1])
        straight = points[:, first, 0] + share * (points[:, last, 0] - points[:, first, 0])
        bend = way * (points[:, middle, 0] - straight)
        assert bend.min() > -0.5
        assert bend.max() > 1.5


def test_people_have_the_size_asked_for():
    for size in (0.5, 0.8):
        who = replace(draw_identity(0, "one"), height=1.0, legs=1.0, hair_style="bald", head=1.0)
        clip = render(ClipSpec((Person(who, Motion("stand", 0.5, 0.5, size)),), SCENE, height=96, width=96))
        rows = torch.nonzero(clip.mask[0].any(1)).flatten()
        assert abs((rows[-1] - rows[0] + 1).item() / 96 - size) < 0.03
    options = WorldOptions(min_size=0.5, max_size=0.55)
    for number in range(8):
        assert all(0.5 <= person.motion.size <= 0.55 for person in draw_clip(3, number, options=options).people)


def test_the_nearer_hides_the_farther():
    """Two walk past each other: the far one is covered, in mask, points and depth."""
    far, near = Motion("stand", 0.5, 0.5, 0.6), Motion("stand", 0.5, 0.5, 0.8)
    for swapped in (False, True):
        clip = two(near, far) if swapped else two(far, near)
        front, back = (0, 1) if swapped else (1, 0)
        alone = one(near) if swapped else None
        assert clip.visible[back].sum() < 0.5 * clip.visible[front].sum()
        hidden = clip.poses.scores[0, back] < 0.3
        assert hidden[5:7].all()
        assert not (clip.poses.scores[0, front, :17] < 0.3).any()
        assert alone is None or clip.visible[front].equal(alone.visible[0])
        depth = clip.depth.int()
        assert depth[clip.mask == front + 1].float().mean() > depth[clip.mask == back + 1].float().mean()
        assert depth[0, 10].min() == depth[0, :, 0].min() < depth[clip.mask > 0].min()


def test_furniture_in_front_hides_feet():
    crate = Furniture("crate", PAINT, 0.5, 0.98)
    who = Person(draw_identity(0, "one"), Motion("stand", 0.5, 0.5, 0.7))
    bare, hidden = (render(ClipSpec((who,), replace(SCENE, furniture=furniture))) for furniture in ((), (crate,)))
    assert (bare.poses.scores[0, 0, 15:23] == 1).all()
    assert (hidden.poses.scores[0, 0, 15:23] < 0.3).all()
    assert (hidden.poses.scores[0, 0, :11] == 1).all()
    assert hidden.mask.sum() < bare.mask.sum()
    covered = (bare.mask > 0) & (hidden.mask == 0)
    assert (hidden.depth.int()[covered] > bare.depth.int()[covered]).all()


@pytest.mark.parametrize(("story", "frame"), [("enter", 4), ("leave", 4), ("enter", 2), ("leave", 7)])
def test_one_of_two_comes_or_goes_at_the_frame_asked_for(story, frame):
    options = WorldOptions(min_people=2, max_people=2, story=story, border_frame=frame, actions=("wave", "stand"))
    for number in range(4):
        clip = render(draw_clip(9, number, ClipFormat(), options))
        present = torch.tensor([(index >= frame) == (story == "enter") for index in range(9)])
        assert torch.equal(clip.visible[1].flatten(1).any(1), present)
        assert torch.equal((clip.poses.scores[:, 1] > 0).any(1), present)
        assert torch.equal(~clip.poses.keypoints[:, 1].isnan().flatten(1).all(1), present)
        assert clip.visible[0].flatten(1).any(1).all()
        assert ("comes in" if story == "enter" else "goes out") in clip.caption


def test_a_thing_changes_hands_and_is_nobodys_pixel():
    giver, taker = Motion("give", 0.3, 0.3, 0.7, yaw=70), Motion("take", 0.7, 0.7, 0.7, yaw=-70)
    blue = (40, 75, 205)
    clip = two(giver, taker, passed=Passed("ball", replace(PAINT, name="blue", rgb=blue)))
    thing = (clip.frames == torch.tensor(blue)).all(-1)
    columns = [torch.nonzero(frame)[:, 1].float().mean().item() for frame in thing]
    assert not (thing & (clip.mask > 0)).any()
    assert all(later > earlier - 0.5 for earlier, later in pairwise(columns))
    assert columns[-1] - columns[0] > 8
    right, left = clip.poses.keypoints[4, 0, 112:133, 0], clip.poses.keypoints[4, 1, 91:112, 0]
    assert right.max() > columns[4] - 4
    assert left.min() < columns[4] + 4
    assert "hands over a blue ball" in clip.caption


@pytest.mark.parametrize("pattern", ["striped", "checked", "dotted"])
def test_patterns_show_both_colours(pattern):
    red, white = (replace(PAINT, rgb=rgb) for rgb in ((200, 0, 0), (250, 250, 250)))
    who = replace(draw_identity(0, "one"), shirt=Garment(red, pattern, white), hair_style="bald")
    clip = render(ClipSpec((Person(who, Motion("stand", 0.5, 0.5, 0.8)),), SCENE, height=128, width=128))
    first, second = ((clip.frames == torch.tensor(paint.rgb)).all(-1).sum() for paint in (red, white))
    assert (0.1 if pattern == "dotted" else 0.5) < second / first < (0.6 if pattern == "dotted" else 2)
    # No large patch of the shirt is without it.
    plain = (clip.frames[0] == torch.tensor(red.rgb)).all(-1).float()
    assert torch.nn.functional.avg_pool2d(plain[None], 15, 1).max() < 0.9


def test_captions_are_true_short_and_closed():
    words = set(VOCABULARY)
    assert len(words) == len(VOCABULARY) < 200
    for number in range(150):
        spec = draw_clip(10, number)
        caption = render(spec).caption if number < 3 else describe(spec)
        split = caption_words(caption)
        assert set(split) <= words
        assert 40 <= sum(word.isalpha() for word in split) <= 80, caption
        for person in spec.people:
            who = person.identity
            for garment, kind in ((who.shirt, "shirt"), (who.lower, who.lower_kind)):
                named = garment.paint.name
                if garment.pattern != "plain":
                    named += f" and {garment.second.name} {garment.pattern}"
                assert f"{named} {kind}" in caption
                for paint in (garment.paint, garment.second):
                    distance = {name: np.abs(np.subtract(rgb, paint.rgb)).sum() for name, rgb in CLOTHES.items()}
                    assert min(distance, key=distance.__getitem__) == paint.name


def test_faults_are_named():
    with pytest.raises(ValueError, match=r"num_frames must be 4n\+1, got 8; nearest are 5 and 9; height.*got 16; fps"):
        ClipFormat(num_frames=8, height=16, fps=0)
    with pytest.raises(ValueError, match=r"4n\+1, got 4; nearest are 1 and 5"):
        ClipSpec((), SCENE, num_frames=4)
    with pytest.raises(ValueError, match=r"people must be 1 to 3, got 2 to 4; sizes.*0\.1 to 0\.85; actions"):
        WorldOptions(min_people=2, max_people=4, min_size=0.1, actions=("give",))
    with pytest.raises(ValueError, match="crossing needs min_people of at least 2, got 1"):
        WorldOptions(story="crossing")
    with pytest.raises(ValueError, match="num_identities must be at least max_people, 3, got 2"):
        WorldOptions(num_identities=2)
    with pytest.raises(ValueError, match=r"person 0: size.*got 3\.0; person 0: enter and leave.*got 7 and 2"):
        one(Motion("stand", 0.5, 0.5, 3.0, enter=7, leave=2))
    with pytest.raises(ValueError, match="give and take need something passed"):
        one(Motion("give", 0.5, 0.5, 0.7))
    with pytest.raises(ValueError, match="at most 3 people, got 4"):
        ClipSpec((Person(draw_identity(0, 0), Motion("stand", 0.5, 0.5, 0.7)),) * 4, SCENE)


def test_nothing_is_written_over(tmp_path):
    with pytest.raises(ValueError, match="count must be at least 1"):
        write_world(tmp_path, count=0)
    write_world(tmp_path, count=1, form=ClipFormat(num_frames=1))
    with pytest.raises(FileExistsError, match="remove it"):
        write_world(tmp_path, count=1, form=ClipFormat(num_frames=1))
