"""`make toy-model`, with a little of everything: its stages fit together and end with a toy."""

import subprocess
import sys
from pathlib import Path

import pytest

from regen_train.model import load_wan_vace
from regen_train.pretrained import resolve_folder


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_toy_is_made(tmp_path: Path) -> None:
    little = ("clips=80", "steps=20", "vae_clips=32", "vae_steps=2", "text_steps=2")
    command = [sys.executable, "-m", "regen_train.toy.making", "--output", "toy_model"]
    for amount in little:
        command += [f"--amounts.{amount}"]
    subprocess.run(command, cwd=tmp_path, check=True)
    made, shipped = tmp_path / "toy_model" / "model", resolve_folder("toy", revision=None, parts=()).path
    names = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()}
    assert names == {str(path.relative_to(shipped)) for path in shipped.rglob("*") if path.is_file()}
    assert load_wan_vace(str(made), dtype="fp32").geometry == load_wan_vace("toy", dtype="fp32").geometry
    assert "{" not in (made / "README.md").read_text()
    again = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert again.stdout.count("is there") == 8
