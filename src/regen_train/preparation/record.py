"""What the last run was: its settings, and which rows of the ledger are its own.

A ledger keeps the rows of older settings, and of clips that are gone; the record names those of the last run that came
to its end. Like the ledger it only tells what was done: no output depends on it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from regen_train.files import write_atomically
from regen_train.guard import GuardSettings
from regen_train.preparation.encode_stage import EncodeStage
from regen_train.preparation.keys import signal_files
from regen_train.preparation.probe import ProbeSettings
from regen_train.preparation.settings import DatasetSettings
from regen_train.preparation.shard import Shard
from regen_train.preparation.survey import Verdict
from regen_train.preparation.work import WorkFolder, json_bytes, read_json
from regen_train.shards import fingerprint_of
from regen_train.shards.space import needs_space

RECORD_NAME = "run.json"
_PARTS = "run-*-of-*.json"


@dataclass(frozen=True)
class RunClip:
    """A clip of a run.

    Args:
        rows: Stage to the key of the clip's row in the ledger.
        signals: What `signals_stamp` gave when the clip was encoded; empty if it was not.
        refused: Why it gave nothing; empty if its windows were judged.
    """

    rows: Mapping[str, str] = field(default_factory=dict)
    signals: str = ""
    refused: str = ""


@dataclass(frozen=True)
class RunRecord:
    """A run.

    Args:
        settings: Of the dataset.
        guard: Of the gate.
        probe: How clips were looked at and cut.
        conditions: What every sample got.
        temporal_factor: Pixel frames per latent frame.
        hides_text: Whether readable text was hidden before anything was made of a clip.
        signals: The folder of signals folders.
        clips: File name to what became of the clip.
        missing: Shards of a job array that have not been prepared.
    """

    settings: DatasetSettings
    guard: GuardSettings
    probe: ProbeSettings
    conditions: tuple[str, ...]
    temporal_factor: int
    hides_text: bool
    signals: Path
    clips: Mapping[str, RunClip]
    missing: tuple[int, ...] = ()


def record_run(
    stage: EncodeStage,
    probe: ProbeSettings,
    signals: Path,
    encoded: Iterable[str],
    *,
    rows: Mapping[str, Mapping[str, str]],
    verdicts: Sequence[Verdict],
) -> RunRecord:
    """Return the record of a run.

    Args:
        stage: As it ran.
        probe: How clips were looked at.
        signals: The folder of signals folders.
        encoded: Names of the clips that came as far as encoding.
        rows: Clip to the key of its row by stage.
        verdicts: What became of every clip.
    """
    stamps = {name: signals_stamp(signals / Path(name).stem) for name in encoded}
    clips = {
        verdict.clip: RunClip(
            dict(rows.get(verdict.clip, {})),
            stamps.get(verdict.clip, ""),
            verdict.reason if verdict.state == "REFUSED" else "",
        )
        for verdict in verdicts
    }
    return RunRecord(
        settings=stage.settings,
        guard=stage.gate.settings,
        probe=probe,
        conditions=stage.conditions,
        temporal_factor=stage.choice.geometry.temporal_factor,
        hides_text=stage.gate.settings.text == "blur" and stage.gate.detectors.text is not None,
        signals=signals.resolve(),
        clips=clips,
    )


def signals_stamp(folder: Path) -> str:
    """Return what changes when a signal is written anew."""
    return fingerprint_of(signal_files(folder))[:16]


def write_run_record(work: WorkFolder, record: RunRecord, shard: Shard | None = None) -> None:
    """Write the record into the work folder; it replaces those of other cuts.

    Args:
        work: The work folder.
        record: Of the run, or of the shard.
        shard: The part of the clips that this is the record of; None for all.
    """
    path = work.path / (RECORD_NAME if shard is None else f"run-{shard.index}-of-{shard.count}.json")
    content = asdict(record) | {"settings": record.settings.to_dict(), "signals": str(record.signals)}
    with needs_space(path):
        write_atomically(path, json_bytes({name: value for name, value in content.items() if name != "missing"}))
    stale = [work.path / RECORD_NAME] if shard is not None else []
    stale += [p for p in work.path.glob(_PARTS) if shard is None or not p.name.endswith(f"-of-{shard.count}.json")]
    for old in stale:
        old.unlink(missing_ok=True)


def read_run_record(work: WorkFolder) -> RunRecord:
    """Read what `write_run_record` wrote; the records of the shards of a job array make one.

    Raises:
        FileNotFoundError: There is none, or it is torn.
        ValueError: Shards were prepared with different settings.
    """
    parts = sorted(work.path.glob(_PARTS))
    if not parts:
        return _read_one(work.path / RECORD_NAME)
    count = int(parts[0].stem.rpartition("-")[2])
    found = {int(path.stem.split("-")[1]): _read_one(path) for path in parts}
    first = next(iter(found.values()))
    for number, part in found.items():
        if replace(part, clips=first.clips) != first:
            raise ValueError(
                f"shard {number} was prepared with other settings than shard {min(found)}; prepare it again"
            )
    clips = {name: clip for number in sorted(found) for name, clip in found[number].clips.items()}
    return replace(first, clips=clips, missing=tuple(sorted(set(range(count)) - set(found))))


def _read_one(path: Path) -> RunRecord:
    content = read_json(path)
    if content is None:
        raise FileNotFoundError(f"{path} is missing or torn; run data_prep.run or data_prep.encode to its end first")
    try:
        return _parse(content)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is of another version: {error!r}; run the same preparation again") from error


def _parse(content: Mapping[str, Any]) -> RunRecord:
    settings = content["settings"]
    sizes = tuple((height, width) for height, width in settings["sizes"])
    chosen = None if settings["conditions"] is None else tuple(settings["conditions"])
    return RunRecord(
        settings=DatasetSettings(**(settings | {"sizes": sizes, "conditions": chosen})),
        guard=GuardSettings(**content["guard"]),
        probe=ProbeSettings(**content["probe"]),
        conditions=tuple(content["conditions"]),
        temporal_factor=content["temporal_factor"],
        hides_text=content["hides_text"],
        signals=Path(content["signals"]),
        clips={name: RunClip(**clip) for name, clip in content["clips"].items()},
    )
