"""What can be told before anything heavy is loaded: files that are missing, and how to make them."""

import shlex
import tempfile
from pathlib import Path

from regen_train.anonymize.options import AnonymizeOptions, VideoOptions
from regen_train.preparation.extract import FILES
from regen_train.sampling import check_cache
from regen_train.signals import meta as metas

_ENDINGS = (".mp4", ".mov", ".mkv")
_EXTRACTORS = {
    FILES["mask"]: "--masks Sam3Masks",
    FILES["pose"]: "--poses DwPose",
    FILES["depth"]: "--depth DepthAnythingV2",
    FILES["caption"]: "--captions Qwen3VlCaptions",
}


def check_request(options: AnonymizeOptions) -> None:
    """Refuse what cannot be done, all faults at once.

    Raises:
        FileNotFoundError: The input or some of its signals are missing; says how to make them.
        ValueError: The output cannot be written or is one of the files that are read, text is to be hidden that nothing
            finds, or attention is to be predicted within compiled blocks.
    """
    video = options.video
    faults = _output_faults(video.input, video.output, video.signals)
    if video.codec == "ffv1" and video.output.suffix.lower() != ".mkv":
        faults.append(f"--codec ffv1 needs an --output that ends with .mkv, got {video.output.name!r}")
    if options.guard.text == "blur" and options.opinions.text is None:
        faults.append("--guard.text blur needs something that finds text; name it, such as --text RapidOcrText")
    if video.caption is not None and not video.caption.strip():
        faults.append("--caption is empty; say how the new people look, or leave it away for the signals' own")
    faults = faults or _writing_faults(video.output)
    if faults:
        raise ValueError("; ".join(faults))
    check_cache(options.sampling.cache, options.model.blocks)
    if not video.input.is_file():
        raise FileNotFoundError(f"there is no input at {video.input}")
    wanted = _wanted_signals(options)
    missing = [name for name in wanted if not (video.signals / name).is_file()]
    if missing:
        raise FileNotFoundError(_missing_signals(video, wanted, missing))


def _wanted_signals(options: AnonymizeOptions) -> list[str]:
    needs_depth = options.video.variant == "structall" and options.window.standin_depth is None
    needed = {FILES["depth"]: needs_depth, FILES["caption"]: options.video.caption is None}
    return [name for name in (*FILES.values(), metas.FILE) if needed.get(name, True)]


def _output_faults(source: Path, output: Path, signals: Path) -> list[str]:
    faults = []
    if output.suffix.lower() not in _ENDINGS:
        faults.append(f"--output must end with {', '.join(_ENDINGS)}, got {output.name!r}")
    if output.exists() and source.exists() and output.samefile(source):
        faults.append(f"--output {output} is the input itself, which is never changed; give it another name")
    if signals.resolve() in output.resolve().parents:
        faults.append(f"--output {output} lies among the signals, which are only read; write it elsewhere")
    if output.is_dir():
        faults.append(f"--output {output} is a folder; give a file")
    return faults


def _writing_faults(output: Path) -> list[str]:
    """Try now what would else fail once the video is painted; leaves nothing behind."""
    folder = next(parent for parent in output.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            return []
    except OSError as error:
        return [f"--output {output} cannot be written, for {folder} takes no files ({error.strerror}); name another"]


def _missing_signals(video: VideoOptions, wanted: list[str], missing: list[str]) -> str:
    """Say what is missing, and which commands make it; extraction works on a folder of clips."""
    stem, lacks_depth, alone = shlex.quote(video.input.stem), FILES["depth"] in missing, metas.FILE in missing
    state = f"lacks {', '.join(missing)}" if video.signals.is_dir() else "does not exist"
    commands = [f"mkdir -p work/clips && cp {shlex.quote(str(video.input))} work/clips/"]
    if not alone:  # else nobody knows what the rest was made of: make all of it
        brought = shlex.quote(str(video.signals))
        commands.append(f"mkdir -p work/clips/signals && cp -r {brought} work/clips/signals/{stem}")
    if video.caption is not None:  # extraction makes whole folders only
        told = f"work/clips/signals/{stem}"
        commands.append(f"mkdir -p {told} && printf %s {shlex.quote(video.caption)} > {told}/caption.txt")
    makes = [flag for name, flag in _EXTRACTORS.items() if name in (wanted if alone else missing)]
    commands.append(f"python -m data_prep.extract --clips work/clips --output work {' '.join(makes)}")
    text = f"the people in {video.input.name} are known by its signals alone, and --signals {video.signals} {state}. "
    text += "Bring them (README, section 1, has the format), or make them:\n  " + "\n  ".join(commands)
    text += f"\nand give --signals work/.work/signals/{stem}"
    if lacks_depth:
        text += (
            "\nstructall needs depth.mkv: without it there is --variant structhuman, or a stand-in that knows nothing "
            "of the scene, --standin_depth vertical_gradient"
        )
    return text
