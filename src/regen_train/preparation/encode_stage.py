"""The last stage before packing: a clip's windows composed, judged, and encoded if they may pass."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor

from regen_train.encoders import WanEncoders, load_encoders
from regen_train.guard import GuardReport, SignalEvidence
from regen_train.preparation.compose import ComposedWindow, compose_windows
from regen_train.preparation.encode import encode_constants, encode_window
from regen_train.preparation.engines import Processed, StorageError
from regen_train.preparation.gate import Gate
from regen_train.preparation.jobs import ClipResult, EncodeJob, EncoderChoice, WindowResult
from regen_train.preparation.keys import constants_name, sample_key
from regen_train.preparation.ledger import Status
from regen_train.preparation.quarantine import Quarantine, QuarantinedWindow
from regen_train.preparation.salt import salted
from regen_train.preparation.settings import DEPTH_CONDITIONS, DatasetSettings
from regen_train.preparation.storage import storing
from regen_train.preparation.survey import ClipPlan, survey_clip
from regen_train.preparation.work import WorkEntry, WorkFolder
from regen_train.schema import Bucket
from regen_train.shards import encode_sample, fingerprint_of
from regen_train.shards.dataset import encode_constants as constants_bytes

COMPOSITION_VERSION = 2
"""Goes up whenever the same clip, signals and settings give other pictures, so that old samples are made again."""


class EncodeStage:
    """Compose, judge and encode the windows of a clip; see the module.

    Args:
        work: Where encoded samples wait for packing.
        salt: The secret of the keys.
        settings: Of the dataset.
        conditions: What every sample gets.
        gate: Judges every window.
        encoders: Which encoders.
        quarantine: Where doubtful windows are put aside; None only counts them.
    """

    name = "encode"
    uses_device = True

    def __init__(
        self,
        work: WorkFolder,
        salt: bytes,
        settings: DatasetSettings,
        *,
        conditions: Sequence[str],
        gate: Gate,
        encoders: EncoderChoice,
        quarantine: Quarantine | None,
    ) -> None:
        self.work, self.settings, self.conditions = work, settings, tuple(conditions)
        self.gate, self.choice, self.quarantine = gate, encoders, quarantine
        self._salt = salt
        self._encoders: WanEncoders | None = None
        self._prompts: dict[str, Tensor] = {}
        self._seconds: dict[str, float] = {}
        stated = {"conditions": list(conditions), "composition_version": COMPOSITION_VERSION}
        # Thresholds decide what passes, mending what a sample holds; a sample answers for both.
        self.stated = settings.sample_dict() | stated | {"guard": gate.settings.to_dict()}
        self.identity: dict[str, Any] = {
            "encoder": dict(encoders.fingerprint),
            "settings": self.stated,
            "gate": gate.identity(),
            "salt": salted(salt, "identity"),
        }

    def setup(self, device: str) -> None:
        """Load encoders and detectors."""
        choice = self.choice
        if self._encoders is None:
            self._encoders = load_encoders(
                choice.pretrained,
                dtype=choice.dtype,
                device=device,
                revision=choice.revision,
                tiling=choice.tiling,
            )
        self.gate.setup(device)

    def use(self, encoders: WanEncoders) -> None:
        """Take encoders that are loaded already; they do not go along to other processes."""
        self._encoders = encoders

    def __getstate__(self) -> dict[str, Any]:
        """Leave weights behind when going to a worker."""
        return self.__dict__ | {"_encoders": None, "_prompts": {}}

    def process(self, job: EncodeJob) -> Processed:
        """Encode what may pass and is missing.

        Raises:
            ValueError: The clip or its signals are not fit, or damaged.
        """
        self._seconds = {}
        factor = self.choice.geometry.temporal_factor
        with self._timed("survey"):
            plan = survey_clip(job.clip, job.signals, self.settings, temporal_factor=factor, probed=job.probed)
        infos = {self._key(plan, number): self._info(plan, window) for number, window in enumerate(plan.windows)}
        with self._timed("check"):
            kept = {key: self._held(key, infos[key], plan, key in job.released) for key in infos}
        windows = dict(zip(infos, plan.windows, strict=True))
        results = {
            key: WindowResult(key, held[0], windows[key][0], windows[key][-1], "ok", "", held[1], made=False)
            for key, held in kept.items()
            if held is not None
        }
        todo = replace(plan, windows=tuple(window for key, window in windows.items() if key not in results))
        missing = [key for key in infos if key not in results]
        if missing:
            with self._timed("gate"):
                evidence = self.gate.gather(plan)
            for key, window in zip(missing, self._compose(todo), strict=True):
                results[key] = self._judge_and_encode(job, plan, window, evidence, key=key, info=infos[key])
        ordered = tuple(results[key] for key in infos)
        if any(result.status == "ok" for result in ordered):
            self._encode_constants(plan.bucket)
        return Processed(ClipResult(str(plan.bucket), plan.notes, ordered, dict(self._seconds)))

    def _judge_and_encode(
        self,
        job: EncodeJob,
        plan: ClipPlan,
        window: ComposedWindow,
        evidence: SignalEvidence,
        *,
        key: str,
        info: Mapping[str, Any],
    ) -> WindowResult:
        with self._timed("gate"):
            report = self.gate.inspect(plan, window, evidence)
        found = fingerprint_of({"info": dict(info), "findings": [f.to_dict() for f in report.findings]})
        released = report.verdict == "review" and job.released.get(key) == found
        passes = report.verdict == "accept" or released
        fingerprint = self._fingerprint(info, plan, released=released)
        if passes:
            judged = report.to_dict() | ({"released": True} if released else {}) | self._class_of(report)
            self._encode(window, plan, key, dict(info) | {"guard": judged}, fingerprint=fingerprint)
        self._put_aside(plan, window, report, QuarantinedWindow(
            key, found, plan.path.name, window.frames[0], window.frames[-1], "; ".join(report.reasons)
        ), waits=report.verdict == "review" and not released)  # fmt: skip
        status: Status = "ok" if passes else "review" if report.verdict == "review" else "rejected"
        reason = "" if passes else "; ".join(report.reasons)
        frames = window.frames
        verdict = report.to_dict()
        return WindowResult(key, fingerprint, frames[0], frames[-1], status, reason, verdict, made=passes, found=found)

    def _put_aside(
        self, plan: ClipPlan, window: ComposedWindow, report: GuardReport, waiting: QuarantinedWindow, *, waits: bool
    ) -> None:
        if self.quarantine is None:
            return
        if waits:
            with self._timed("write"), storing(self.quarantine.folder / waiting.picture):
                self.quarantine.put(waiting, report, window)
        elif report.verdict != "review":
            self.quarantine.remove(waiting.key)

    def _class_of(self, report: GuardReport) -> dict[str, Any]:
        negative = not report.has_people and self.gate.settings.no_human == "negative"
        return {"class": "negative"} if negative else {}

    def _held(
        self, key: str, info: Mapping[str, Any], plan: ClipPlan, released: bool
    ) -> tuple[str, dict[str, Any]] | None:
        """Return the fingerprint of a sample that is there already, and the gate's report of it."""
        for flag in (False, True) if released else (False,):
            fingerprint = self._fingerprint(info, plan, released=flag)
            stated = self.work.stated(key, fingerprint)
            if stated is not None:
                return fingerprint, stated["guard"]
        return None

    def _fingerprint(self, info: Mapping[str, Any], plan: ClipPlan, *, released: bool) -> str:
        return fingerprint_of(dict(info) | {"bucket": str(plan.bucket), "cuts": list(plan.cuts), "released": released})

    def _key(self, plan: ClipPlan, number: int) -> str:
        return sample_key(self._salt, plan.source_sha256, number)

    def _info(self, plan: ClipPlan, window: tuple[int, ...]) -> dict[str, Any]:
        """Return what the sample's json states: nothing that names the clip to those without the salt."""
        depth = "files" if plan.has_depth else self.settings.standin_depth
        return {
            "fps": self.settings.fps,
            "frames": {"first": window[0], "last": window[-1], "repeated": len(window) - len(set(window))},
            "depth": depth if DEPTH_CONDITIONS & set(self.conditions) else None,
            "fingerprints": {
                "encoder": fingerprint_of(self.choice.fingerprint),
                "settings": fingerprint_of(self.stated),
                "gate": fingerprint_of(self.gate.identity()),
                "source": salted(self._salt, "source", plan.source_sha256),
                "signals": salted(self._salt, "signals", plan.signals_sha256),
            },
        }

    def _compose(self, plan: ClipPlan) -> Iterator[ComposedWindow]:
        guard, reader = self.gate.settings, self.gate.detectors.text
        windows = compose_windows(plan, self.settings, self.conditions, guard, reader)
        while True:
            try:
                with self._timed("compose"):
                    window = next(windows, None)
            except OSError as error:  # a fault of the clip; one of the work folder must stop the run
                raise ValueError(f"cannot be read: {error}") from error
            if window is None:
                return
            yield window

    def _encode(
        self, window: ComposedWindow, plan: ClipPlan, key: str, info: dict[str, Any], *, fingerprint: str
    ) -> None:
        assert self._encoders is not None
        with self._timed("encode"):
            if plan.caption not in self._prompts:
                self._prompts = {plan.caption: self._encoders.encode_prompts([plan.caption])[0]}
            prompt = self._prompts[plan.caption]
            sample = encode_window(window.clip, prompt, self._encoders, self.settings, key=key, info=info)
            encoded = encode_sample(sample)
        self._write(key, WorkEntry(encoded.payload, encoded.info.decode()), fingerprint)

    def _encode_constants(self, bucket: Bucket) -> None:
        """Encode what the samples of a bucket share, whoever comes first; others would write the same bytes."""
        assert self._encoders is not None
        name, fingerprint = constants_name(bucket), constants_fingerprint(self.choice.fingerprint, bucket)
        if not self.work.holds(name, fingerprint):
            with self._timed("encode"):
                payload = constants_bytes(encode_constants({bucket}, self._encoders))
            self._write(name, WorkEntry(payload, "{}"), fingerprint)

    def _write(self, name: str, entry: WorkEntry, fingerprint: str) -> None:
        with self._timed("write"):
            try:
                self.work.write(name, entry, fingerprint=fingerprint)
            except OSError as error:  # no fault of the clip
                raise StorageError(str(error)) from error

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[step] = self._seconds.get(step, 0.0) + time.perf_counter() - start


def constants_fingerprint(encoder: Mapping[str, str], bucket: Bucket) -> str:
    """Return what the constants of a bucket depend on."""
    return fingerprint_of({"encoder": dict(encoder), "bucket": str(bucket)})
