"""The window of a clip that is painted: planned, composed and judged by the very code that prepares datasets."""

from dataclasses import dataclass

from regen_train.anonymize.options import AnonymizeOptions, VideoOptions
from regen_train.guard import GuardReport
from regen_train.preparation import ClipPlan, DatasetSettings, Gate, compose_windows, survey_clip
from regen_train.preparation.compose import ComposedWindow
from regen_train.preparation.gate import GATE_VERSION
from regen_train.preparation.probe import Probed
from regen_train.preparation.quarantine import LIST_NAME, Quarantine, QuarantinedWindow
from regen_train.schema import Geometry
from regen_train.shards import fingerprint_of

_MEND = "mend the signals at these frames, or make them with another extractor"
_OPINIONS = "--people TorchvisionPeople --faces YuNetFaces --text RapidOcrText --names TransformersNames"


class GateRefusedError(ValueError):
    """The gate does not let a window pass."""

    def __init__(self, message: str, report: GuardReport) -> None:
        super().__init__(message)
        self.report = report


@dataclass(frozen=True)
class PassedWindow:
    """A window that the gate lets pass.

    Args:
        plan: From where it was cut.
        window: What was composed.
        report: What the gate found.
        released: Whether a person let it pass.
    """

    plan: ClipPlan
    window: ComposedWindow
    report: GuardReport
    released: bool


def take_window(
    options: AnonymizeOptions, probed: Probed, settings: DatasetSettings, geometry: Geometry, device: str
) -> PassedWindow:
    """Compose the first window of a clip and have it judged.

    Args:
        options: Of the user.
        probed: What the clip is.
        settings: How it is composed.
        geometry: The model's.
        device: Where the second opinions run.

    Raises:
        GateRefusedError: The window is rejected, or doubtful and not released; says why and what to do.
        ValueError: The clip or its signals are damaged, do not belong together, or are too short.
    """
    video = options.video
    factor = geometry.temporal_factor
    # The gate judges the caption that will be painted.
    plan = survey_clip(
        video.input, video.signals, settings, temporal_factor=factor, probed=probed, caption=video.caption
    )
    gate = Gate(options.guard, options.opinions.detectors(), settings)
    gate.setup(device)
    reader = gate.detectors.text
    window = next(compose_windows(plan, settings, (video.variant,), gate.settings, reader))
    report = gate.inspect(plan, window, gate.gather(plan))
    if report.verdict == "accept":
        return PassedWindow(plan, window, report, released=False)
    waiting = _waiting(plan, window, report, gate, settings)
    if report.verdict == "review" and _is_released(video, waiting):
        return PassedWindow(plan, window, report, released=True)
    raise GateRefusedError(_refusal(video, waiting, window, report), report)


def _waiting(
    plan: ClipPlan, window: ComposedWindow, report: GuardReport, gate: Gate, settings: DatasetSettings
) -> QuarantinedWindow:
    """Name a window, and all that a release of it stands for."""
    judged = {
        "signals": plan.signals_sha256,
        "caption": plan.caption,
        "settings": settings.to_dict(),
        "gate": gate.identity() | {"version": GATE_VERSION},
        "findings": [finding.to_dict() for finding in report.findings],
    }
    first, last, reasons = window.frames[0], window.frames[-1], "; ".join(report.reasons)
    key = f"{plan.source_sha256[:24]}-{first}"
    return QuarantinedWindow(key, fingerprint_of(judged), plan.path.name, first, last, reasons)


def _is_released(video: VideoOptions, waiting: QuarantinedWindow) -> bool:
    if video.quarantine is None:
        return False
    return Quarantine(video.quarantine).released().get(waiting.key) == waiting.fingerprint


def _refusal(video: VideoOptions, waiting: QuarantinedWindow, window: ComposedWindow, report: GuardReport) -> str:
    doubtful = report.verdict == "review"
    state, frames = "doubts" if doubtful else "rejects", f"{waiting.first_frame} to {waiting.last_frame}"
    lines = [
        f"the gate {state} frames {frames} of {waiting.clip}; nothing was written:",
        *(f"  {reason}" for reason in report.reasons),
    ]
    if not doubtful:
        return "\n".join([*lines, f"To go on, {_MEND}."])
    if video.quarantine is None:
        look = "give --quarantine FOLDER to have it put aside with a picture, where you can look at it and release it"
    else:
        Quarantine(video.quarantine).put(waiting, report, window)
        Quarantine(video.quarantine).write_list()
        look = (
            f"look at {video.quarantine / waiting.picture}, enter yes in {video.quarantine / LIST_NAME} if nobody can "
            "be seen in what was composed, and give the same command again"
        )
    unchecked = [f for f in report.findings if f.severity == "review" and f.check.startswith("unchecked")]
    if len(unchecked) < len(report.reasons):
        lines.append(f"To go on, {_MEND}; or {look}.")
    if unchecked:
        lines.append(
            f"What nobody checked is doubtful: name second opinions ({_OPINIONS}) or, if you check by other means, say "
            "--guard.when_absent accept."
        )
    return "\n".join(lines)
