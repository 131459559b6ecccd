"""The gate at work in preparation: a clip's signals measured once, then every window judged."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from regen_train.conditions import default_dilation, dilate
from regen_train.guard import (
    Detectors,
    FrameSignals,
    GuardReport,
    GuardSettings,
    Opinions,
    SignalEvidence,
    check_conditions,
    conclude,
    judge_outlines,
    stream_repaired,
)
from regen_train.preparation.compose import ComposedWindow
from regen_train.preparation.settings import DatasetSettings
from regen_train.preparation.survey import ClipPlan
from regen_train.signals import mask as masks
from regen_train.signals import pose as poses
from regen_train.video import decode_gray

GATE_VERSION = 1
"""Goes up whenever the same clip, signals and settings may get another verdict, so that old ones are judged again."""


@dataclass(frozen=True)
class Gate:
    """Judges windows. Nothing passes that is not judged.

    Args:
        settings: Thresholds and policies.
        detectors: Second opinions at hand.
        dataset: How windows are composed.
    """

    settings: GuardSettings
    detectors: Detectors
    dataset: DatasetSettings

    @property
    def opinions(self) -> Opinions:
        """The second opinions, with the thresholds they are judged by."""
        return Opinions(self.detectors, self.settings)

    def setup(self, device: str) -> None:
        """Load what the second opinions need."""
        self.opinions.setup(device)

    def identity(self) -> dict[str, Any]:
        """Return all that a verdict depends on beside the clip, its signals and the dataset's settings."""
        return {
            "version": GATE_VERSION,
            "settings": self.settings.to_dict(),
            "opinions": self.opinions.identity(),
        }

    def gather(self, plan: ClipPlan) -> SignalEvidence:
        """Measure all of a clip's masks and skeletons, also between and beyond its windows; holds a few frames.

        Raises:
            ValueError: A signal is damaged.
        """
        evidence = SignalEvidence(self.settings)
        people = poses.read_poses(plan.signals / poses.FILE)
        radius = dilation_of(plan, self.dataset)
        repaired = stream_repaired(
            decode_gray(plan.signals / masks.FILE),
            frames=self.settings.repair_frames,
            hole_share=self.settings.hole_share,
            cuts=plan.cuts,
        )
        cuts = set(plan.cuts)
        for frame in repaired:
            if frame.index in cuts:
                evidence.begin_scene()
            evidence.add(
                FrameSignals(
                    frame=frame.index,
                    given=(frame.given > 0).numpy(),
                    mended=(frame.mask > 0).numpy(),
                    radius=radius,
                    keypoints=people.keypoints[frame.index].numpy(),
                    scores=people.scores[frame.index].numpy(),
                )
            )
        return evidence

    def inspect(self, plan: ClipPlan, window: ComposedWindow, evidence: SignalEvidence) -> GuardReport:
        """Judge one window of a clip by its signals, its pictures and what was made of it."""
        radius, opinions = dilation_of(plan, self.dataset), self.opinions
        clip, first, last = window.clip, window.frames[0], window.frames[-1]
        findings = [
            *evidence.judge(first, last),
            *judge_outlines(
                window.pictures,
                _shrink(window.given, window.pictures),
                window.frames,
                radius / min(plan.size),
                self.settings,
            ),
            *opinions.judge_source(window.pictures, self._covered(window, radius), window.frames),
            *opinions.judge_absent(tuple(clip.conditions), has_caption=True),
            *opinions.judge_conditions(clip),
            *opinions.judge_text(clip),
            *opinions.judge_caption(plan.caption, opinions.read_words(window.pictures)),
            *check_conditions(clip, fill=self.dataset.fill, depth_fill=self.dataset.depth_fill),
        ]
        seen = evidence.has_people(range(first, last + 1)) or any(f.check.endswith("detected_open") for f in findings)
        return conclude(findings, self.settings, opinions, num_frames=last - first + 1, has_people=seen)

    def _covered(self, window: ComposedWindow, radius: int | float) -> Bool[Tensor, "t H W"]:
        if self.detectors.people is None and self.detectors.faces is None:
            return _shrink(window.given, window.pictures)  # nobody will look at it
        return _shrink(dilate(window.signals.mask > 0, radius), window.pictures)


def dilation_of(plan: ClipPlan, settings: DatasetSettings) -> int | float:
    """Return by how many source pixels the masks of a clip grow."""
    return default_dilation(*plan.size) if settings.dilation is None else settings.dilation


def _shrink(mask: Bool[Tensor, "t h w"], pictures: Tensor) -> Bool[Tensor, "t H W"]:
    size = tuple(pictures.shape[1:3])
    if mask.shape[1:] == size:
        return mask
    return torch.nn.functional.interpolate(mask[:, None].float(), size=size, mode="nearest")[:, 0] > 0
