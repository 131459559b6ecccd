"""Does the demo still show what it is there for? Reads the report of one and exits with 1 where a claim fell.

    regen_train demo --output demo_output && python benchmarks/hold_demo.py demo_output

The claims: StructHuman's LoRA adds to how well people follow the pose; who either variant paints is not told from
chance, while originals are; the whole demo needs under 4 GB. "Not told": as many hits as there were, or more, would
come by chance in one of a thousand runs at least, so that few runs fail by bad luck. The time, which depends on the
machine, is printed and not judged.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scipy.stats import binom

_BYTES = 4e9
_SURE = 0.001


def main(folder: Path) -> None:
    """Read ``report.json`` of a demo's folder, and say which claims hold."""
    report = json.loads((folder / "report.json").read_text())
    failed = False
    for claim, holds in claims(report):
        print(f"{'holds ' if holds else 'FAILED'}  {claim}")
        failed |= not holds
    print(f"it took {report['seconds']:.0f} s")
    if failed:
        sys.exit(f"the demo in {folder} no longer shows all that it is there for")


def claims(report: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """Give each claim, with its figures, and whether it holds."""
    methods = {figures["method"]: figures for figures in report["figures"]["methods"]}
    gain = next(gain for gain in report["figures"]["gains"] if gain["variant"] == "structhuman")["mask_iou"]
    yield (
        f"StructHuman's LoRA adds {gain['value']:.2f} [{gain['low']:.2f}, {gain['high']:.2f}] of mask IoU",
        gain["low"] > 0,
    )
    for attacker in ("clean", "adaptive"):
        original = methods["original"][attacker]
        yield f"originals are re-identified ({attacker}): {original['rate']:.2f}", original["low"] > original["chance"]
        for variant in ("structhuman", "structall"):
            found = methods[variant][attacker]
            text = f"{variant} is not ({attacker}): {found['rate']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
            yield text, binom.sf(round(found["rate"] * found["n"]) - 1, found["n"], found["chance"]) >= _SURE
    peak = report["peak_bytes"]
    yield f"memory {peak / 1e9:.1f} GB", peak < _BYTES


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo_output"))
