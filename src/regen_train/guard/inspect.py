"""May this clip pass? Everything the gate knows, asked of one clip in memory."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Shaped, UInt8
from torch import Tensor

from regen_train.conditions import ComposedClip, default_dilation, dilate
from regen_train.guard.detectors import Detectors
from regen_train.guard.evidence import FrameSignals, SignalEvidence
from regen_train.guard.invariants import check_conditions
from regen_train.guard.opinions import Opinions, absent_severity
from regen_train.guard.outline import OutlineEvidence
from regen_train.guard.report import Finding, GuardReport, Severity, sort_findings
from regen_train.guard.settings import GuardSettings
from regen_train.skeleton import draw_pose


def inspect_clip(
    frames: Shaped[Tensor, "..."],
    mask: Shaped[Tensor, "..."],
    keypoints: Shaped[Tensor, "..."],
    scores: Shaped[Tensor, "..."],
    condition: Shaped[Tensor, "..."] | ComposedClip | None,
    *,
    given: Shaped[Tensor, "..."] | None = None,
    caption: str | None = None,
    settings: GuardSettings | None = None,
    detectors: Detectors | None = None,
    dilation: int | float | None = None,
) -> GuardReport:
    """Judge a clip and what was made of it. The mask is judged as it is given: mend it before with `repair_mask`.

    Args:
        frames: The clip at its own size, uint8 [t, h, w, 3].
        mask: Person masks before dilation, [t, h, w]: uint8 with 0 for nobody, or bool.
        keypoints: float [t, p, 133, 2], (x, y) in pixels of the clip, COCO-WholeBody order, NaN where absent.
        scores: How sure each point is, float [t, p, 133].
        condition: The StructHuman video at the clip's size, drawn with the defaults of `draw_pose`; or everything
            that was composed, at any size; or None if nothing was made yet, which is a finding.
        given: The masks as they were extracted, where ``mask`` was mended; ``mask`` if None.
        caption: Checked for what identifies, if given.
        settings: Thresholds and policies; the defaults if None.
        detectors: Second opinions at hand; none if None.
        dilation: Pixels by which the mask was grown before people were filled; `default_dilation` if None.

    Raises:
        ValueError: The tensors do not belong together; names all faults.
    """
    _check(frames, mask, keypoints, scores, condition)
    if given is not None and given.shape != mask.shape:
        raise ValueError(f"given must have the shape of mask {list(mask.shape)}, got {list(given.shape)}")
    settings = GuardSettings() if settings is None else settings
    opinions = Opinions(Detectors() if detectors is None else detectors, settings)
    height, width = frames.shape[1:3]
    radius = default_dilation(height, width) if dilation is None else dilation
    people, extracted = mask > 0, (mask if given is None else given) > 0
    covered = dilate(people, radius)
    numbers = range(len(frames))
    evidence = _gather(extracted, people, radius, keypoints, scores, settings)
    findings = [
        *evidence.judge(0, len(frames) - 1),
        *judge_outlines(frames, extracted, numbers, radius / min(height, width), settings),
        *opinions.judge_source(frames, covered, numbers),
        *_judge_condition(_composed(frames, covered, keypoints, scores, condition), opinions, caption),
        *([] if caption is None else opinions.judge_caption(caption, opinions.read_words(frames))),
    ]
    has_people = evidence.has_people(numbers) or any(f.check.endswith("detected_open") for f in findings)
    return conclude(findings, settings, opinions, num_frames=len(frames), has_people=has_people)


def _gather(
    given: Tensor, mended: Tensor, radius: int | float, keypoints: Tensor, scores: Tensor, settings: GuardSettings
) -> SignalEvidence:
    evidence = SignalEvidence(settings)
    for number, frame in enumerate(zip(given, mended, keypoints, scores, strict=True)):
        own, people, points, sure = (part.numpy() for part in frame)
        evidence.add(FrameSignals(number, own, people, radius, points, sure))
    return evidence


def judge_outlines(
    frames: UInt8[Tensor, "t h w 3"],
    people: Bool[Tensor, "t h w"],
    numbers: Sequence[int],
    dilation: int | float,
    settings: GuardSettings,
) -> list[Finding]:
    """Compare the outlines of masks, as they were extracted, with the picture's edges; see `OutlineEvidence`."""
    outlines = OutlineEvidence(settings)
    for number, picture, mask in zip(numbers, frames, people, strict=True):
        outlines.add(number, picture.numpy(), mask.numpy())
    return outlines.judge(dilation)


def conclude(
    findings: Sequence[Finding], settings: GuardSettings, opinions: Opinions, *, num_frames: int, has_people: bool
) -> GuardReport:
    """Return the report of these findings, with what the policies add."""
    nobody = []
    if not has_people:
        severity: Severity = "reject" if settings.no_human == "drop" else "note"
        nobody = [Finding("no_human", severity, f"nobody is seen in any frame; policy: {settings.no_human}")]
    return GuardReport(
        findings=sort_findings([*findings, *nobody]),
        num_frames=num_frames,
        checked=opinions.identity(),
        has_people=has_people,
    )


def _judge_condition(clip: ComposedClip | None, opinions: Opinions, caption: str | None) -> list[Finding]:
    conditions = () if clip is None else tuple(clip.conditions)
    findings = opinions.judge_absent(conditions, has_caption=caption is not None)
    if clip is None:
        severity = absent_severity(opinions.settings)
        findings.append(Finding("unchecked_condition", severity, "no condition was given, so none was checked"))
    else:
        findings += [*check_conditions(clip), *opinions.judge_conditions(clip), *opinions.judge_text(clip)]
    return findings


def _composed(
    frames: Tensor, covered: Tensor, keypoints: Tensor, scores: Tensor, condition: Tensor | ComposedClip | None
) -> ComposedClip | None:
    if condition is None or isinstance(condition, ComposedClip):
        return condition
    pose = draw_pose(keypoints, scores, *frames.shape[1:3])
    return ComposedClip(frames=frames, conditions={"structhuman": condition}, mask=covered, pose=pose)


def _check(
    frames: Tensor, mask: Tensor, keypoints: Tensor, scores: Tensor, condition: Tensor | ComposedClip | None
) -> None:
    faults = []
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != torch.uint8 or not len(frames):
        faults.append(f"frames must be uint8 [t, h, w, 3] with t >= 1, got {frames.dtype} {list(frames.shape)}")
    if mask.shape != frames.shape[:3] or mask.dtype not in (torch.uint8, torch.bool):
        faults.append(f"mask must be uint8 or bool {list(frames.shape[:3])}, got {mask.dtype} {list(mask.shape)}")
    if keypoints.ndim != 4 or keypoints.shape[2:] != (133, 2) or len(keypoints) != len(frames):
        faults.append(f"keypoints must be [{len(frames)}, p, 133, 2], got {list(keypoints.shape)}")
    if scores.shape != keypoints.shape[:3]:
        faults.append(f"scores must be {list(keypoints.shape[:3])}, got {list(scores.shape)}")
    if isinstance(condition, Tensor) and condition.shape != frames.shape:
        faults.append(
            f"condition must be as large as frames {list(frames.shape)}, got {list(condition.shape)}; "
            "pass a ComposedClip for one of another size"
        )
    if faults:
        raise ValueError("; ".join(faults))
