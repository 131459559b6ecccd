"""What a user can say of a preparation beside the dataset's own settings."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from regen_train.guard import Detector, Detectors, NameFinder
from regen_train.preparation.shard import Shard
from regen_train.preparation.work import WorkFolder
from regen_train.pretrained import Precision


@dataclass(frozen=True)
class SourceOptions:
    """Where clips come from, and where everything goes.

    Args:
        clips: Folder of video files.
        output: The dataset's folder.
        signals: Signals that clips bring, one folder a clip, named like it without suffix; only read. Default:
            CLIPS/signals.
        extracted: Signals that are made here. Default: WORK/signals.
        work: Encoded samples, the ledger and doubtful windows: as private as the clips. Default: OUTPUT/.work.
        salt_file: The secret from which samples' keys are made; created if missing, and never inside the dataset.
            Default: ~/.config/regen_train/salt.
        review: Put doubtful windows aside in WORK/quarantine, with pictures and a list in which you release them.
    """

    clips: Path
    output: Path
    signals: Path | None = None
    extracted: Path | None = None
    work: Path | None = None
    salt_file: Path | None = None
    review: bool = False

    @property
    def brought_folder(self) -> Path:
        """Where brought signals lie."""
        return self.clips / "signals" if self.signals is None else self.signals

    @property
    def work_folder(self) -> WorkFolder:
        """Where encoded samples wait."""
        return WorkFolder(self.output / ".work" if self.work is None else self.work)

    @property
    def extracted_folder(self) -> Path:
        """Where signals made here lie."""
        return self.work_folder.path / "signals" if self.extracted is None else self.extracted

    @property
    def quarantine_folder(self) -> Path:
        """Where doubtful windows are put aside."""
        return self.work_folder.path / "quarantine"


@dataclass(frozen=True)
class ModelOptions:
    """The model to be trained; its encoders make the samples.

    Args:
        pretrained: A diffusers folder or a hub id.
        revision: Branch, tag or commit of a hub id.
        dtype: Precision of the text encoder; the VAE always runs in fp32.
        tiling: Encode in overlapping tiles, for GPUs with little memory; slower, and not quite the same latents.
    """

    pretrained: str = "Wan-AI/Wan2.1-VACE-1.3B-diffusers"
    revision: str | None = None
    dtype: Precision = "bf16"
    tiling: bool = False


@dataclass(frozen=True)
class SecondOpinions:
    """Detectors for the gate. What is not named was not checked, and the gate counts that.

    Args:
        people: TorchvisionPeople or TransformersPeople.
        faces: YuNetFaces.
        text: RapidOcrText.
        names: TransformersNames or SpacyNames.
    """

    people: Detector | None = None
    faces: Detector | None = None
    text: Detector | None = None
    names: NameFinder | None = None

    def detectors(self) -> Detectors:
        """Return them as the gate takes them."""
        return Detectors(self.people, self.faces, self.text, self.names)


@dataclass(frozen=True)
class EngineOptions:
    """How the work is spread. The result does not depend on it, but on ``threads``.

    Args:
        engine: ``local``: worker processes on this machine. ``ray``: actors on a Ray cluster.
        devices: Devices of the local engine, for stages that hold a model; ``auto`` takes all GPUs, or the CPU.
        num_workers: Processes of the local engine for stages with a model. 0 works in this process. Default: one a
            device.
        cpu_workers: Processes for stages without a model. Default: one a core.
        threads: CPU threads of a worker. Default: the cores, shared among the workers.
        timeout: Seconds that a worker may take for one clip before it is stopped and the clip tried again.
        max_attempts: How often a clip is tried on which a worker dies, runs out of time or fails unforeseen.
        shard: Do part I of N parts of the clips, for a job array: I/N. Then run data_prep.pack once.
    """

    engine: Literal["local", "ray"] = "local"
    devices: tuple[str, ...] = ("auto",)
    num_workers: int | None = None
    cpu_workers: int | None = None
    threads: int | None = None
    timeout: float | None = 3600.0
    max_attempts: int = 2
    shard: str | None = None

    def __post_init__(self) -> None:
        checks = {
            "num_workers": (self.num_workers is None or self.num_workers >= 0, "0 or more"),
            "cpu_workers": (self.cpu_workers is None or self.cpu_workers >= 1, "at least 1"),
            "threads": (self.threads is None or self.threads >= 1, "at least 1"),
            "timeout": (self.timeout is None or 0 < self.timeout < math.inf, "a positive number of seconds"),
            "max_attempts": (self.max_attempts >= 1, "at least 1"),
            "devices": (bool(self.devices), "at least one"),
        }
        faults = [f"{n} must be {wanted}, got {getattr(self, n)}" for n, (holds, wanted) in checks.items() if not holds]
        if self.shard is not None:
            try:
                Shard.parse(self.shard)
            except ValueError as error:
                faults.append(str(error))
        if faults:
            raise ValueError("; ".join(faults))

    @property
    def part(self) -> Shard | None:
        """The part of the clips, if not all."""
        return None if self.shard is None else Shard.parse(self.shard)


@dataclass(frozen=True)
class RayOptions:
    """The Ray engine; all nodes must see clips and work folder under the same paths.

    Args:
        num_gpus: GPUs of an actor, for stages with a model; 0.25 puts four on one, 0 uses the CPU. Default: one, or the
            CPU where the cluster has no GPU.
        num_cpus: Cores of an actor.
        num_actors: How many. Default: as many as the cluster has room for.
        address: Of the cluster, such as ``auto``. Default: that of RAY_ADDRESS, or one on this machine.
    """

    num_gpus: float | None = None
    num_cpus: float = 1.0
    num_actors: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        checks = {
            "num_gpus": (self.num_gpus is None or 0 <= self.num_gpus < math.inf, "0 or more"),
            "num_cpus": (0 <= self.num_cpus < math.inf, "0 or more"),
            "num_actors": (self.num_actors is None or self.num_actors >= 1, "at least 1"),
        }
        faults = [f"ray.{n} must be {wanted}, got {getattr(self, n)}"
                  for n, (holds, wanted) in checks.items() if not holds]  # fmt: skip
        if faults:
            raise ValueError("; ".join(faults))


@dataclass(frozen=True)
class PackOptions:
    """Where samples come from and how they are cut into shards.

    Args:
        output: The dataset's folder.
        work: Folder of encoded samples. Default: OUTPUT/.work.
        max_shard_bytes: A shard ends before the sample that would make it larger.
    """

    output: Path
    work: Path | None = None
    max_shard_bytes: int = 1 << 30

    @property
    def work_folder(self) -> WorkFolder:
        """Where encoded samples wait."""
        return WorkFolder(self.output / ".work" if self.work is None else self.work)
