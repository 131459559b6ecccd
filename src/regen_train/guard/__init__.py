"""The fail-closed gate: may this clip pass?

`repair_mask` mends masks before anything is made of them. `inspect_clip` judges a clip in memory; preparation judges
long clips by the same parts: `SignalEvidence` measured over a whole clip, outlines, second opinions and finished
conditions window by window. A doubt is never an acceptance.
"""

from regen_train.guard.detectors import Boxes, Detector, Detectors, NameFinder
from regen_train.guard.evidence import FrameSignals, SignalEvidence
from regen_train.guard.inspect import conclude, inspect_clip, judge_outlines
from regen_train.guard.invariants import check_conditions
from regen_train.guard.opinions import Opinions
from regen_train.guard.repair import Repair, repair_mask, stream_repaired
from regen_train.guard.report import Finding, GuardReport, Severity, Verdict, format_frames
from regen_train.guard.settings import GuardSettings

__all__ = [
    "Boxes",
    "Detector",
    "Detectors",
    "Finding",
    "FrameSignals",
    "GuardReport",
    "GuardSettings",
    "NameFinder",
    "Opinions",
    "Repair",
    "Severity",
    "SignalEvidence",
    "Verdict",
    "check_conditions",
    "conclude",
    "format_frames",
    "inspect_clip",
    "judge_outlines",
    "repair_mask",
    "stream_repaired",
]
