"""All stages of a preparation, one after another over all clips, each worker holding one stage's models."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from regen_train.preparation.assembly import Brought, assemble, find_brought
from regen_train.preparation.encode_stage import EncodeStage, constants_fingerprint
from regen_train.preparation.extract import (
    FILES,
    ExtractJob,
    Extractors,
    ExtractStage,
    Kind,
    files_read,
    holds_signal,
)
from regen_train.preparation.jobs import ClipResult, EncodeJob
from regen_train.preparation.keys import clip_key, clip_of, constants_name, signal_files
from regen_train.preparation.ledger import LedgerRow
from regen_train.preparation.pack import Manifest, write_manifest
from regen_train.preparation.probe import Probed, ProbeSettings, ProbeStage, probe_key
from regen_train.preparation.report import PreparationReport, reason_of
from regen_train.preparation.runner import StageRunner
from regen_train.preparation.shard import Shard
from regen_train.preparation.survey import find_clips
from regen_train.schema import Bucket
from regen_train.shards import fingerprint_of


@dataclass(frozen=True)
class ClipState:
    """A clip on its way through the stages.

    Args:
        path: The video file.
        probed: What it is.
        signals: The folder of its signals; may be empty yet.
    """

    path: Path
    probed: Probed
    signals: Path


@dataclass
class Pipeline:
    """Runs stages over clips, and keeps every outcome; the caller holds the work folder's lock.

    Args:
        clips: Folder of video files.
        brought: Folder of signals that are only read.
        extracted: Folder of signals that are made.
        runner: Runs a stage over clips.
        shard: The part of the clips to work on; None for all.
    """

    clips: Path
    brought: Path
    extracted: Path
    runner: StageRunner
    shard: Shard | None = None

    @property
    def report(self) -> PreparationReport:
        """What was done, for the person at the screen."""
        return self.runner.report

    def probe(self, settings: ProbeSettings) -> list[ClipState]:
        """Look at every video file; files that are no fit videos, twins and namesakes fall out with their reason.

        Raises:
            FileNotFoundError: There is no clip at all.
        """
        everything = find_clips(self.clips)
        clips = everything if self.shard is None else self.shard.of(everything)
        stems = Counter(clip.stem for clip in everything)
        unique = [clip for clip in clips if stems[clip.stem] == 1]
        for clip in set(clips) - set(unique):
            self.report.refuse(
                clip.name, f"shares its name {clip.stem!r} with another clip, and so its signals; rename it"
            )
        keys = {clip: probe_key(clip, settings) for clip in unique}
        outcomes = self.runner.run(ProbeStage(settings), [(keys[clip], clip.name, "", clip) for clip in unique])
        states, seen = [], dict[str, Path]()
        for clip in unique:
            outcome = outcomes[keys[clip]]
            if outcome.status != "ok":
                self.report.refuse(clip.name, reason_of(outcome))
                continue
            probed = Probed.parse(outcome.result)
            twin = seen.setdefault(probed.sha256, clip)
            if twin is not clip:
                self.report.refuse(clip.name, f"is the same file as {twin.name}")
                continue
            states.append(ClipState(clip, probed, self.brought / clip.stem))
        return states

    def extract(self, states: Sequence[ClipState], extractors: Extractors) -> list[ClipState]:
        """Make what signals clips do not bring; clips whose signals cannot be made fall out with their reason."""
        sources = extractors.by_kind()
        if not sources:
            return list(states)
        brought = self._find_brought(states, sources)
        left = [state for state in states if state.path in brought]
        for kind, source in sources.items():
            stage = ExtractStage(kind, source)
            jobs = {}
            for state in left:  # only now: a source may read what an earlier one has made
                job = self._extract_job(state, brought[state.path])
                jobs[state.path] = replace(job, files=files_read(kind, source, state.path))
            keys = {path: stage.key(job) for path, job in jobs.items()}
            outcomes = self.runner.run(
                stage,
                [(keys[s.path], s.path.name, s.probed.sha256, jobs[s.path]) for s in left],
                is_there=partial(_signal_is_there, kind),
            )
            left = self._keep_ok(left, {state.path: outcomes[keys[state.path]] for state in left})
        whole = [state for state in left if self._assembled(state, brought[state.path], sources)]
        return [replace(state, signals=self.extracted / state.path.stem) for state in whole]

    def encode(
        self, states: Sequence[ClipState], stage: EncodeStage, released: Mapping[str, str], salt: bytes
    ) -> Manifest:
        """Compose, judge and encode every clip, and write the manifest of what may pass."""
        jobs, by_clip = {}, dict[str, dict[str, str]]()
        for key, found in released.items():
            by_clip.setdefault(clip_of(key), {})[key] = found
        for state in states:
            mine = by_clip.get(clip_key(salt, state.probed.sha256), {})
            jobs[state.path] = EncodeJob(state.path, state.signals, state.probed, mine)
        identity = fingerprint_of(stage.identity)
        keys = {path: _encode_key(job, identity, stage.settings.to_dict()) for path, job in jobs.items()}
        outcomes = self.runner.run(
            stage,
            [(keys[s.path], s.path.name, s.probed.sha256, jobs[s.path]) for s in states],
            is_there=partial(_all_held, stage),
        )
        left = self._keep_ok(states, {state.path: outcomes[keys[state.path]] for state in states})
        samples, buckets = dict[str, str](), set[str]()
        for state in left:
            outcome = outcomes[keys[state.path]]
            result = ClipResult.parse(outcome.result)
            self.report.add_clip(state.path.name, result, fresh=outcome.key in self.report.fresh)
            passed = {window.key: window.fingerprint for window in result.windows if window.status == "ok"}
            samples |= passed
            if stage.quarantine is not None:
                stage.quarantine.forget_settled(result.windows, released)
            buckets |= {result.bucket} if passed else set()
        constants = {b: constants_fingerprint(stage.choice.fingerprint, Bucket.parse(b)) for b in sorted(buckets)}
        encoder, geometry = dict(stage.choice.fingerprint), stage.choice.geometry
        manifest = Manifest(
            samples,
            constants,
            encoder,
            stage.stated,
            geometry,
            gate=fingerprint_of(stage.identity["gate"]),
            salt=stage.identity["salt"],
        )
        # Also an empty one: what an older run let pass must not be packed after a stricter one.
        write_manifest(stage.work, manifest, self.shard)
        return manifest

    def lacking_depth(self, extractors: Extractors) -> list[str]:
        """Return the names of the clips with signals but no depth, among all clips, so that every shard agrees."""
        if extractors.depth is not None:
            return []
        folders = {clip.name: self.brought / clip.stem for clip in find_clips(self.clips)}
        # A clip that brings nothing falls out, unless all that it must have is made here.
        suffices = set(FILES) - {"depth"} <= set(extractors.by_kind())
        return sorted(
            name
            for name, folder in folders.items()
            if (suffices or folder.is_dir()) and not (folder / FILES["depth"]).is_file()
        )

    def _keep_ok(self, states: Iterable[ClipState], outcomes: Mapping[Path, LedgerRow]) -> list[ClipState]:
        left = []
        for state in states:
            outcome = outcomes[state.path]
            if outcome.status == "ok":
                left.append(state)
            else:
                self.report.refuse(state.path.name, reason_of(outcome))
        return left

    def _find_brought(self, states: Iterable[ClipState], extracted: Collection[Kind]) -> dict[Path, Brought]:
        found = {}
        for state in states:
            folder, probed = self.brought / state.path.stem, state.probed
            try:
                found[state.path] = find_brought(folder, extracted, sha256=probed.sha256, num_frames=probed.num_frames)
            except ValueError as error:
                self.report.refuse(state.path.name, str(error))
        return found

    def _extract_job(self, state: ClipState, brought: Brought) -> ExtractJob:
        return ExtractJob(state.path, state.probed.sha256, self.extracted / state.path.stem, brought.num_frames)

    def _assembled(self, state: ClipState, brought: Brought, extracted: Collection[Kind]) -> bool:
        try:
            assemble(self._extract_job(state, brought), brought, extracted)
        except ValueError as error:
            self.report.refuse(state.path.name, str(error))
            return False
        return True


def _encode_key(job: EncodeJob, identity: str, settings: Mapping[str, Any]) -> str:
    """Return what the outcome of encoding a clip depends on; a signal's size and time stand for its content."""
    return fingerprint_of(
        {
            "source": job.probed.sha256,
            "cuts": list(job.probed.cuts),
            "signals": signal_files(job.signals),
            "stage": identity,
            "settings": dict(settings),
            "released": dict(job.released),
        }
    )


def _signal_is_there(kind: Kind, outcome: LedgerRow, job: ExtractJob) -> bool:
    return holds_signal(job.folder, kind, outcome.key)


def _all_held(stage: EncodeStage, outcome: LedgerRow, job: EncodeJob) -> bool:
    result = ClipResult.parse(outcome.result)
    passed = [window for window in result.windows if window.status == "ok"]
    constants = constants_fingerprint(stage.choice.fingerprint, Bucket.parse(result.bucket))
    held = all(stage.work.holds(window.key, window.fingerprint) for window in passed)
    if stage.quarantine is not None:  # as an earlier run without --review did not put them
        doubtful = [window for window in result.windows if window.status == "review"]
        held = held and all(stage.quarantine.holds(window.key, window.found) for window in doubtful)
    return held and (not passed or stage.work.holds(constants_name(Bucket.parse(result.bucket)), constants))
