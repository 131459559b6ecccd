"""What the scripts of data_prep share: the stages behind them, and the report at the end."""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from regen_train.encoders import load_encoders
from regen_train.guard import GuardSettings
from regen_train.preparation.encode_stage import EncodeStage
from regen_train.preparation.engines import Engine, LocalEngine, RayEngine, pick_devices, usable_cores
from regen_train.preparation.extract import Extractors
from regen_train.preparation.gate import Gate
from regen_train.preparation.jobs import EncoderChoice
from regen_train.preparation.ledger import Ledger, open_ledger
from regen_train.preparation.options import (
    EngineOptions,
    ModelOptions,
    PackOptions,
    RayOptions,
    SecondOpinions,
    SourceOptions,
)
from regen_train.preparation.pack import check_output, pack_dataset
from regen_train.preparation.pipeline import ClipState, Pipeline
from regen_train.preparation.probe import ProbeSettings
from regen_train.preparation.quarantine import LIST_NAME, Quarantine
from regen_train.preparation.record import record_run, write_run_record
from regen_train.preparation.report import PreparationReport, count_of
from regen_train.preparation.runner import StageRunner
from regen_train.preparation.salt import load_salt
from regen_train.preparation.settings import DEPTH_CONDITIONS, DatasetSettings
from regen_train.shards.dataset import INFO_NAME


class Preparation:
    """A run of data preparation, from the options of its command; the caller holds the work folder's lock.

    Args:
        options: What `parse_options` returned for `STAGES`, and for `ENCODING` if clips are to be encoded.
    """

    def __init__(self, options: dict[type, Any]) -> None:
        self.options = options
        self.source: SourceOptions = options[SourceOptions]
        self.workers: EngineOptions = options[EngineOptions]
        self.extractors: Extractors = with_caption_filter(options[Extractors], options.get(SecondOpinions))

    def extract(self) -> PreparationReport:
        """Look at the clips and make the signals they do not bring; print what came of it."""
        with self._pipeline() as pipeline:
            states = self._extract(pipeline)
            self._print(pipeline.report)
            print(f"{count_of(len(states), 'clip')} with signals in {self.source.extracted_folder}")
        return pipeline.report

    def encode(self) -> PreparationReport:
        """Look at the clips, make signals, and encode what may pass; print what came of it.

        Raises:
            FileNotFoundError: There is no such model, or there are no clips.
            ValueError: The settings do not fit the model or the clips.
        """
        check_output(self.source.output)
        salt = load_salt(self.source.salt_file, dataset=self.source.output)
        quarantine = Quarantine(self.source.quarantine_folder)
        released = quarantine.released()  # a list that cannot be understood is told before the work
        with self._pipeline() as pipeline:
            stage = self._encode_stage(pipeline, salt, quarantine)
            states = self._extract(pipeline)
            pipeline.encode(states, stage, released, salt)
            self._record(pipeline, stage, states)
            self._print(pipeline.report)
            self._print_doubtful(pipeline.report, quarantine)
        return pipeline.report

    @contextlib.contextmanager
    def _pipeline(self) -> Iterator[Pipeline]:
        with contextlib.closing(self._ledger()) as ledger:
            yield Pipeline(
                clips=self.source.clips,
                brought=self.source.brought_folder,
                extracted=self.source.extracted_folder,
                runner=StageRunner(
                    ledger=ledger,
                    engine=make_engine(self.workers, self.options[RayOptions]),
                    max_attempts=self.workers.max_attempts,
                ),
                shard=self.workers.part,
            )

    def _ledger(self) -> Ledger:
        """Return where outcomes are kept: one file on one machine, parts that many may write on a cluster."""
        work, part = self.source.work_folder.path, self.workers.part
        if part is None and self.workers.engine == "local":
            return open_ledger(work, "sqlite")
        return open_ledger(work, "parquet", writer="main" if part is None else f"{part.index}-of-{part.count}")

    def _extract(self, pipeline: Pipeline) -> list[ClipState]:
        return pipeline.extract(pipeline.probe(self.options[ProbeSettings]), self.extractors)

    def _encode_stage(self, pipeline: Pipeline, salt: bytes, quarantine: Quarantine) -> EncodeStage:
        settings: DatasetSettings = self.options[DatasetSettings]
        if self.options[GuardSettings].text == "blur" and self.options[SecondOpinions].text is None:
            raise ValueError("--guard.text blur needs something that finds text; name it, such as --text RapidOcrText")
        model: ModelOptions = self.options[ModelOptions]
        in_process = self.workers.engine == "local" and self.workers.num_workers == 0
        device = pick_devices(self.workers.devices)[0] if in_process else "cpu"
        encoders = load_encoders(
            model.pretrained, dtype=model.dtype, device=device, revision=model.revision, tiling=model.tiling
        )
        settings.check_geometry(encoders.geometry)
        choice = EncoderChoice(
            model.pretrained, model.revision, model.dtype, model.tiling, encoders.fingerprint(), encoders.geometry
        )
        gate = Gate(self.options[GuardSettings], self.options[SecondOpinions].detectors(), settings)
        conditions = decide_conditions(settings, pipeline.lacking_depth(self.extractors))
        stage = EncodeStage(
            self.source.work_folder,
            salt,
            settings,
            conditions=conditions,
            gate=gate,
            encoders=choice,
            quarantine=quarantine if self.source.review else None,
        )
        if in_process:
            stage.use(encoders)
        return stage

    def _record(self, pipeline: Pipeline, stage: EncodeStage, states: Sequence[ClipState]) -> None:
        signals = self.source.extracted_folder if self.extractors.by_kind() else self.source.brought_folder
        record = record_run(
            stage,
            self.options[ProbeSettings],
            signals,
            [state.path.name for state in states],
            rows=pipeline.runner.rows,
            verdicts=pipeline.report.verdicts,
        )
        write_run_record(self.source.work_folder, record, self.workers.part)

    def _print(self, report: PreparationReport) -> None:
        print(f"{report.table()}\n{report.totals()}")

    def _print_doubtful(self, report: PreparationReport, quarantine: Quarantine) -> None:
        waiting = report.windows["review"]
        if self.source.review:
            listed = quarantine.write_list()
            if listed:
                print(
                    f"{count_of(listed, 'window')} to be looked at: see the pictures in {quarantine.folder}, enter yes "
                    f"under release in {LIST_NAME} for those that may pass, and run the same command again"
                )
        elif waiting:
            print(f"{count_of(waiting, 'window')} left out as doubtful; --review puts them aside to be looked at")
        if not report.num_samples and self.workers.part is None:
            output = self.source.output
            older = f"; the one at {output} stays as it was" if (output / INFO_NAME).is_file() else ""
            print(f"no dataset was written: no clip was fit to pass{older}")


def with_caption_filter(extractors: Extractors, opinions: SecondOpinions | None) -> Extractors:
    """Let a caption source that filters what it writes use the gate's finders of names and text, if it has no own."""
    captions: Any = extractors.captions
    if opinions is None or not dataclasses.is_dataclass(captions) or isinstance(captions, type):
        return extractors
    given = {
        name: finder
        for name, finder in (("names", opinions.names), ("text", opinions.text))
        if finder is not None and getattr(captions, name, ...) is None
    }
    filtered: Any = dataclasses.replace(captions, **given)
    return dataclasses.replace(extractors, captions=filtered) if given else extractors


def decide_conditions(settings: DatasetSettings, lacking: Sequence[str]) -> tuple[str, ...]:
    """Return what every sample gets, and say what that means where depth is missing.

    Args:
        settings: Of the dataset.
        lacking: Clips without depth.
    """
    conditions = settings.resolve(lacking_depth=lacking)
    clips = ", ".join(lacking[:5]) + (f" and {len(lacking) - 5} more" if len(lacking) > 5 else "")
    if lacking and DEPTH_CONDITIONS & set(conditions):
        print(f"stand-in depth {settings.standin_depth} for {count_of(len(lacking), 'clip')}: {clips}", file=sys.stderr)
    elif lacking and settings.conditions is None:
        print(
            f"no structall in this dataset, for {count_of(len(lacking), 'clip')} bring no depth: {clips}. Bring their "
            "depth.mkv, name what makes it (--depth DepthAnythingV2), or ask for a stand-in by name: --standin_depth "
            "vertical_gradient",
            file=sys.stderr,
        )
    return conditions


def make_engine(options: EngineOptions, ray: RayOptions) -> Engine:
    """Return what does the work."""
    if options.engine == "ray":
        threads = options.threads or max(1, int(ray.num_cpus))
        return RayEngine(**vars(ray), threads=threads, timeout=options.timeout)
    devices, cores = pick_devices(options.devices), usable_cores()
    workers = len(devices) if options.num_workers is None else options.num_workers
    return LocalEngine(
        devices,
        num_workers=workers,
        cpu_workers=cores if options.cpu_workers is None else options.cpu_workers,
        threads=options.threads or max(1, cores // max(1, workers)),
        timeout=options.timeout,
    )


def pack_with(options: PackOptions) -> None:
    """Pack the work folder and print what came out; the caller holds the lock."""
    info = pack_dataset(options.work_folder, options.output, max_shard_bytes=options.max_shard_bytes)
    buckets = ", ".join(f"{count} of {bucket}" for bucket, count in info.buckets.items())
    samples, shards = count_of(info.num_samples, "sample"), count_of(len(info.shards), "shard")
    print(f"{options.output}: {samples} ({buckets}) in {shards}")
    print(f"conditions {', '.join(info.conditions)}; fingerprint {info.fingerprint}")
