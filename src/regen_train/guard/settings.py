"""The thresholds and policies of the gate, each with its reason."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

Policy = Literal["review", "reject", "accept"]


@dataclass(frozen=True)
class GuardSettings:
    """When the gate lets a clip pass, and what it does about doubts.

    Lengths are shares of the picture's short side or of a person's size, so that one set of thresholds serves every
    resolution.

    Args:
        when_absent: What a second opinion that nobody brought (detector of people or faces, reader of text, finder of
            names) means: ``review``, because what nobody checked is not known; ``reject``; or ``accept``, for those
            who check by other means.
        no_human: A window in which nobody is seen: ``keep`` it as any other, ``drop`` it, or keep it as a ``negative``
            that its sample's json marks as such.
        text: Readable text in StructHuman's background: ``review`` it, ``blur`` it in the clip before anything is
            made of it, or ``structall``: pass only into datasets whose conditions show no background.
        repair_frames: Masks are first joined with those of so many neighbours on both sides, for extractors drop
            frames; 0 turns that off.
        hole_share: Holes enclosed by a mask are filled up to this share of the picture; larger ones are background
            between arm and body.
        point_tolerance: Keypoints may lie outside the dilated mask by this share of their person's extent before they
            count as exposed: the scatter of pose extractors.
        exposed_review: A skeleton with at least this share of its points exposed, and two points, is doubtful.
        exposed_reject: One with this share is an unmasked person, if it looks like a person for ``person_frames``.
        person_frames: Frames in a row in which a skeleton must look like a person to be taken for one; phantoms come
            and go, or have limbs no person has.
        vanish_kept: A piece of mask of which the next frame keeps less than this has vanished, unless it left through
            the border; likewise one that appears.
        vanish_motion: How far, in shares of the short side, a person may move from frame to frame.
        vanish_area: Pieces smaller than this share of the picture are noise.
        flicker: This share of the masks, on average, may be gone for one frame alone; good masks of real clips show
            0.000 to 0.002, at 1 to 2 frames a second up to 0.016, and failing ones 0.03 to 0.04.
        unstable_events: So many vanishings are masks that fail, not a door or a pillar.
        border_band: Within this share of the short side from the border people may come and go.
        box_coverage: Share of a detected person's or face's box that the mask must span.
        box_gap: Share of a box's side that may be open between its edge and the mask: the scatter of detectors. A
            head is about 0.13 of a standing person.
        box_score: Detections less sure than this are not second opinions; low, for who is missed is published.
        box_sure: Detections at least this sure, ``person_frames`` in a row, are people and not phantoms.
        outline_gain: If masks fit the picture's edges better by this factor when moved or played earlier or later,
            they belong elsewhere.
        outline_sure: With this factor they surely do.
        outline_fit: Outlines must meet stronger edges than random ones by this factor.
        outline_frames: Frames of a window on which outlines are compared.
        text_score: Readings less sure than this are not text.
        text_height: Text lower than this share of the picture's height cannot be read after resizing.
    """

    when_absent: Policy = "review"
    no_human: Literal["keep", "drop", "negative"] = "keep"
    text: Literal["review", "structall", "blur"] = "review"
    repair_frames: int = 2
    hole_share: float = 0.002
    point_tolerance: float = 0.03
    exposed_review: float = 0.1
    exposed_reject: float = 0.5
    person_frames: int = 3
    vanish_kept: float = 0.5
    vanish_motion: float = 0.03
    vanish_area: float = 0.003
    flicker: float = 0.02
    unstable_events: int = 3
    border_band: float = 0.15
    box_coverage: float = 0.8
    box_gap: float = 0.1
    box_score: float = 0.3
    box_sure: float = 0.8
    outline_gain: float = 1.15
    outline_sure: float = 1.3
    outline_fit: float = 1.1
    outline_frames: int = 12
    text_score: float = 0.5
    text_height: float = 0.015

    def __post_init__(self) -> None:
        faults = []
        for name, value in dataclasses.asdict(self).items():
            if isinstance(value, str):
                continue
            low = (
                1
                if name
                in ("outline_gain", "outline_sure", "outline_fit", "person_frames", "unstable_events", "outline_frames")
                else 0
            )
            if not low <= value < float("inf"):
                faults.append(f"{name} must be at least {low}, got {value}")
        choices = {
            "when_absent": ("review", "reject", "accept"),
            "no_human": ("keep", "drop", "negative"),
            "text": ("review", "structall", "blur"),
        }
        faults += [
            f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}"
            for name, known in choices.items()
            if getattr(self, name) not in known
        ]
        if self.exposed_review > self.exposed_reject:
            faults.append(
                f"exposed_review must not exceed exposed_reject, got {self.exposed_review} > {self.exposed_reject}"
            )
        if faults:
            raise ValueError("; ".join(faults))

    def to_dict(self) -> dict[str, Any]:
        """Return all settings as plain JSON."""
        return dataclasses.asdict(self)
