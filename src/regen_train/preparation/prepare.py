"""The encoding stage: every fit clip into the work folder, doing only what is missing, then the manifest."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from regen_train.encoders import WanEncoders
from regen_train.preparation.compose import ComposedClip, compose_clip
from regen_train.preparation.encode import encode_constants, encode_window
from regen_train.preparation.pack import CONSTANTS_ENTRY, Manifest, write_manifest
from regen_train.preparation.salt import salted
from regen_train.preparation.settings import DEPTH_CONDITIONS, DatasetSettings
from regen_train.preparation.survey import ClipPlan, Survey, Verdict, find_clips, survey_clips
from regen_train.preparation.work import WorkEntry, WorkFolder
from regen_train.schema import Bucket
from regen_train.shards import encode_sample, fingerprint_of
from regen_train.shards.dataset import encode_constants as constants_bytes

logger = logging.getLogger(__name__)

COMPOSITION_VERSION = 1
"""Goes up whenever the same clip, signals and settings give other pictures, so that old samples are made again."""

_SOURCE_DIGITS = 24
UNCHECKED = {"verdict": "unchecked", "reasons": ["no gate has inspected this clip"]}


@dataclass(frozen=True)
class Sources:
    """Where clips come from and samples go.

    Args:
        clips: Folder of video files.
        signals: Folder of signals folders, each named like its clip without suffix.
        work: Where encoded samples wait for packing.
        salt: The secret of the keys.
    """

    clips: Path
    signals: Path
    work: WorkFolder
    salt: bytes = field(repr=False)


@dataclass
class EncodeReport:
    """What the encoding stage did.

    Args:
        verdicts: One per clip.
        made: Samples encoded now.
        kept: Samples that were there already.
        seconds: Time by step.
    """

    verdicts: list[Verdict] = field(default_factory=list)
    made: int = 0
    kept: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def num_samples(self) -> int:
        """Samples that the dataset gets."""
        return self.made + self.kept

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add the time spent inside to a step."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - start


def encode_clips(sources: Sources, settings: DatasetSettings, encoders: WanEncoders) -> EncodeReport:
    """Encode the clips of a folder; the caller holds the work folder's lock.

    A clip that is not fit is refused with its reason and stops no other. Writes the manifest if any clip was fit.

    Raises:
        FileNotFoundError: There is no clip at all.
        ValueError: The settings do not fit the model, or ask for depth where a clip has none.
        OSError: The work folder cannot be written, such as on a full disk.
    """
    settings.check_geometry(encoders.geometry)
    report = EncodeReport()
    with report.timed("survey"):
        clips = find_clips(sources.clips)
        factor = encoders.geometry.temporal_factor
        survey = survey_clips(clips, sources.signals, settings, temporal_factor=factor)
    report.verdicts += survey.refused
    if not survey.plans:
        return report
    conditions = _decide_conditions(survey, settings)
    with report.timed("fingerprint"):
        stage = _Stage(sources, settings, conditions, encoders, report)
    samples: dict[str, str] = {}
    buckets = set()
    for number, plan in enumerate(survey.plans, start=1):
        logger.info("clip %d of %d: %d windows of %s", number, len(survey.plans), len(plan.windows), plan.bucket)
        encoded = stage.encode_clip(plan)
        samples |= encoded
        buckets |= {plan.bucket} if encoded else set()
    if samples:
        stage.finish(samples, buckets)
    return report


def _decide_conditions(survey: Survey, settings: DatasetSettings) -> tuple[str, ...]:
    lacking = [plan.path.name for plan in survey.plans if not plan.has_depth]
    conditions = settings.resolve(lacking_depth=lacking)
    if lacking and DEPTH_CONDITIONS & set(conditions):
        logger.warning("stand-in depth %s for %d clips: %s", settings.standin_depth, len(lacking), ", ".join(lacking))
    elif lacking and settings.conditions is None:
        logger.warning(
            "no structall in this dataset, for %d of %d clips have no depth: %s. Bring their depth.mkv, or ask for a "
            "stand-in by name: --standin_depth vertical_gradient",
            len(lacking), len(survey.plans), ", ".join(lacking),
        )  # fmt: skip
    return conditions


class _Stage:
    """What stays the same from clip to clip."""

    def __init__(
        self,
        sources: Sources,
        settings: DatasetSettings,
        conditions: Sequence[str],
        encoders: WanEncoders,
        report: EncodeReport,
    ) -> None:
        self.sources, self.settings, self.conditions = sources, settings, tuple(conditions)
        self.encoders, self.report = encoders, report
        self.encoder = encoders.fingerprint()
        stated = {"conditions": list(conditions), "composition_version": COMPOSITION_VERSION}
        self.stated = settings.sample_dict() | stated
        self.prompts: dict[str, Tensor] = {}

    def encode_clip(self, plan: ClipPlan) -> dict[str, str]:
        """Return key to fingerprint of a clip's samples, after encoding those that are missing; none if refused."""
        infos = {self._key(plan, number): self._info(plan, window) for number, window in enumerate(plan.windows)}
        wanted = {key: fingerprint_of(info | {"bucket": str(plan.bucket)}) for key, info in infos.items()}
        with self.report.timed("check"):
            missing = [key for key, fingerprint in wanted.items() if not self.sources.work.holds(key, fingerprint)]
        windows = dict(zip(wanted, plan.windows, strict=True))
        todo = replace(plan, windows=tuple(windows[key] for key in missing))
        try:
            for key, clip in zip(missing, self._compose(todo), strict=True):
                self._encode_window(clip, plan.caption, key, infos[key], fingerprint=wanted[key])
        except ValueError as error:
            self.report.verdicts.append(Verdict(plan.path.name, used=False, reason=str(error)))
            return {}
        self.report.made += len(missing)
        self.report.kept += len(wanted) - len(missing)
        done = f"{len(wanted)} of {plan.bucket}, {len(missing)} encoded now"
        self.report.verdicts.append(Verdict(plan.path.name, used=True, reason="; ".join((done, *plan.notes))))
        return wanted

    def finish(self, samples: dict[str, str], buckets: set[Bucket]) -> None:
        """Encode the constants if they are missing, and write the manifest."""
        work, constants = (
            self.sources.work,
            fingerprint_of({"encoder": self.encoder, "buckets": sorted(map(str, buckets))}),
        )
        if not work.holds(CONSTANTS_ENTRY, constants):
            with self.report.timed("encode"):
                payload = constants_bytes(encode_constants(buckets, self.encoders))
            work.write(CONSTANTS_ENTRY, WorkEntry(payload, "{}"), fingerprint=constants)
        manifest = Manifest(samples, constants, self.encoder, self.stated, self.encoders.geometry)
        write_manifest(work, manifest)

    def _key(self, plan: ClipPlan, number: int) -> str:
        """Return the key of a window; by its first part `regen_train.data.opened.clip_of` knows the clip."""
        return f"{salted(self.sources.salt, 'source', plan.source_sha256)[:_SOURCE_DIGITS]}-{number:04d}"

    def _info(self, plan: ClipPlan, window: tuple[int, ...]) -> dict[str, Any]:
        """Return what the sample's json states: nothing that names the clip to those without the salt."""
        depth = "files" if plan.has_depth else self.settings.standin_depth
        return {
            "fps": self.settings.fps,
            "frames": {"first": window[0], "last": window[-1], "repeated": len(window) - len(set(window))},
            "depth": depth if DEPTH_CONDITIONS & set(self.conditions) else None,
            "guard": UNCHECKED,
            "fingerprints": {
                "encoder": fingerprint_of(self.encoder),
                "settings": fingerprint_of(self.stated),
                "source": salted(self.sources.salt, "source", plan.source_sha256),
                "signals": salted(self.sources.salt, "signals", plan.signals_sha256),
            },
        }

    def _compose(self, plan: ClipPlan) -> Iterator[ComposedClip]:
        clips = compose_clip(plan, self.settings, self.conditions)
        while True:
            try:
                with self.report.timed("compose"):
                    clip = next(clips, None)
            except OSError as error:  # a fault of the clip; one of the work folder must stop the run
                raise ValueError(f"cannot be read: {error}") from error
            if clip is None:
                return
            yield clip

    def _encode_window(
        self, clip: ComposedClip, caption: str, key: str, info: dict[str, Any], *, fingerprint: str
    ) -> None:
        with self.report.timed("encode"):
            if caption not in self.prompts:
                self.prompts = {caption: self.encoders.encode_prompts([caption])[0]}
            sample = encode_window(clip, self.prompts[caption], self.encoders, self.settings, key=key, info=info)
            encoded = encode_sample(sample)
        with self.report.timed("write"):
            entry = WorkEntry(encoded.payload, encoded.info.decode())
            self.sources.work.write(key, entry, fingerprint=fingerprint)
