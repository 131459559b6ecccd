"""How long a command takes before it does anything: imports and ``--help``, beside the libraries they stand on.

    python benchmarks/start_up.py [--rounds 3]

Every time is a new process, the best of the rounds, in turns: seconds, and the processor's seconds, on which other
programs' work falls less. Prints markdown.
"""

import argparse
import os
import subprocess
import sys
import time

_COMMANDS = {
    "import torch, lightning": ["-c", "import torch, lightning"],
    "import torch, lightning, peft, and diffusers' transformer": [
        "-c",
        "import torch, lightning, peft; from diffusers import WanVACETransformer3DModel",
    ],
    "import regen_train.model": ["-c", "import regen_train.model"],
    "import regen_train.training_cli": ["-c", "import regen_train.training_cli"],
    "regen_train --version": ["-m", "regen_train", "--version"],
    "regen_train fit --help": ["-m", "regen_train", "fit", "--help"],
}


def seconds(arguments: list[str]) -> tuple[float, float]:
    """Return what a process takes, by the clock and of the processor."""
    before, since = os.times(), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    taken, after = time.perf_counter() - since, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return taken, used


def main() -> None:
    """Run all in turns and print the best of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in _COMMANDS}
    for _ in range(parser.parse_args().rounds):
        for name, arguments in _COMMANDS.items():
            times[name].append(seconds(arguments))
    print("| | seconds | of the processor |\n|---|---|---|")
    for name, found in times.items():
        print(f"| {name} | {min(taken for taken, _ in found):.2f} | {min(used for _, used in found):.2f} |")


if __name__ == "__main__":
    main()
