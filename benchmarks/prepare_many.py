"""How fast are many small clips prepared, on one machine's processes and on Ray, and are the datasets the same?

    python benchmarks/prepare_many.py [--clips 2000] [--workers 2] [--output DIR]

Draws toy clips of 9 frames of 64x64 with exact signals, of which every tenth is spoilt (a person left open, masks
dropped, a broken file), and prepares them with a tiny random model: what is measured is the engine, the gate and the
disk, not a VAE.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from regen_train.files import file_sha256
from regen_train.preparation.ledger import read_ledger, summarize_ledger
from regen_train.toy.faults import delete_frames, drop_person
from regen_train.toy.tiny import build_tiny_wan_vace
from regen_train.toy.world import ClipFormat, WorldOptions, draw_clip, render, write_clip


def draw(folder: Path, count: int) -> None:
    """Write the clips; of every ten, one is at fault."""
    folder.mkdir(parents=True)
    form, options = ClipFormat(num_frames=9, height=64, width=64, fps=8.0), WorldOptions(2, 2, story="apart")
    for number in range(count):
        clip = render(draw_clip(11, number, form, options))
        if number % 30 == 7:
            clip = replace(clip, mask=drop_person(clip.mask))
        if number % 30 == 17:
            clip = replace(clip, mask=delete_frames(clip.mask, 6))
        files = write_clip(folder, f"clip-{number:05d}", clip)
        if number % 30 == 27:
            files.video.write_bytes(files.video.read_bytes()[:300])


def prepare(clips: Path, output: Path, model: Path, salt: Path, *engine: str) -> dict[str, float]:
    """Run data_prep.run in a process of its own; return seconds and the peak memory of all its processes in GB."""
    command = [
        *(sys.executable, "-W", "ignore", "-m", "data_prep.run", "--clips", str(clips), "--output", str(output)),
        *("--pretrained", str(model), "--salt_file", str(salt), "--fps", "8", "--num_frames", "9", "--dtype", "fp32"),
        *("--sizes", "[[64,64]]", "--guard.when_absent", "accept", "--threads", "1", *engine),
    ]
    start, peak = time.perf_counter(), 0.0
    with tempfile.TemporaryFile() as said, subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT) as process:
        while process.poll() is None:
            peak = max(peak, memory_of(process.pid))
            time.sleep(0.5)
        said.seek(0)
        text = said.read().decode()
    print("\n".join(text.splitlines()[-6:]))
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return {"seconds": time.perf_counter() - start, "GB": peak}


def memory_of(pid: int) -> float:
    """Return what a process and all below it hold for themselves, GB."""
    import psutil

    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        return sum(process.memory_full_info().uss for process in family) / 1e9
    except psutil.Error:
        return 0.0


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp()) if options.output is None else options.output
    model = build_tiny_wan_vace(folder / "model")
    start = time.perf_counter()
    draw(folder / "clips", options.clips)
    print(f"drawn: {options.clips / (time.perf_counter() - start):.1f} clips/s")
    workers = str(options.workers)
    engines = {
        "local": ("--num_workers", workers, "--cpu_workers", workers),
        "ray": ("--engine", "ray", "--ray.num_actors", workers, "--ray.num_gpus", "0"),
    }
    shards: dict[str, list[str]] = {}
    for name, flags in engines.items():
        output = folder / name
        spent = prepare(folder / "clips", output, model, folder / "salt", *flags)
        again = prepare(folder / "clips", output, model, folder / "salt", *flags)
        shards[name] = [file_sha256(path) for path in sorted(output.glob("*.*")) if path.is_file()]
        totals = json.dumps(summarize_ledger(read_ledger(output / ".work")))
        print(
            f"| {name} | {options.clips / spent['seconds']:.1f} clips/s | {spent['seconds']:.0f} s "
            f"| {spent['GB']:.1f} GB | again {again['seconds']:.0f} s | {totals} |"
        )
    print(f"the two datasets are {'the same, byte for byte' if shards['local'] == shards['ray'] else 'DIFFERENT'}")


if __name__ == "__main__":
    main()
