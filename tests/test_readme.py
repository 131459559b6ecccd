"""What the README says works: its commands parse, its sampling code runs, its rooms and configurations exist."""

import importlib
import re
import shlex
from pathlib import Path

import jsonargparse
import pytest
import torch
import yaml

from regen_train.adapter import AdapterMetadata, save_adapter
from regen_train.cli import main
from regen_train.configs import shipped_configs
from regen_train.encoders import NEGATIVE_PROMPT
from regen_train.model import LoraSpec, load_wan_vace

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_sampling_code_runs(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base = load_wan_vace(str(tiny_model), lora=LoraSpec(rank=32), dtype="fp32")
    metadata = AdapterMetadata(base.base.name, None, base.base.sha256, rank=32, alpha=32.0)
    save_adapter(Path("exported/pytorch_lora_weights.safetensors"), base.lora_state(), metadata)
    code = re.search(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert code is not None
    settings = "SamplingSettings()"
    assert settings in code[1]
    names = {
        "PRETRAINED": str(tiny_model),
        "DEVICE": "cpu",
        "CAPTION": "a person walks",
        "NEGATIVE_PROMPT": NEGATIVE_PROMPT,
        "frames": torch.full((5, 32, 48, 3), 128, dtype=torch.uint8),
    }
    exec(code[1].replace(settings, "SamplingSettings(num_inference_steps=2)"), names)  # noqa: S102
    assert names["video"].shape == (5, 32, 48, 3)


class UnderstoodError(Exception):
    """The command line was understood."""


def commands() -> list[str]:
    """Return the README's calls of our own commands, those in tables too."""
    shell = "\n".join(re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)).replace("\\\n", " ")
    lines = [line.split("#")[0].removeprefix("srun ").strip() for line in shell.splitlines()]
    written = [line for line in lines if line.startswith(("regen_train ", "python -m data_prep"))]
    fit = next(line for line in written if line.startswith("regen_train fit"))
    additions = re.findall(r"`(--config strategy_\w+\.yaml)`", README)
    inline = re.findall(r"`((?:regen_train \w+|python -m data_prep\.\w+) -[^`]*)`", README)
    inline = [line for line in inline if "--help" not in line]
    return [*written, *inline, *(f"{fit} {addition}" for addition in additions)]


@pytest.mark.parametrize("command", commands())
def test_the_commands_are_understood(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parse = jsonargparse.ArgumentParser.parse_args

    def parse_and_stop(parser: jsonargparse.ArgumentParser, *given: object, **options: object) -> None:
        parse(parser, *given, **options)
        raise UnderstoodError

    monkeypatch.setattr(jsonargparse.ArgumentParser, "parse_args", parse_and_stop)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command.replace("$SLURM_ARRAY_TASK_ID", "3").replace("...", ""))
    run = main if words[0] == "regen_train" else importlib.import_module(words[2]).main
    with pytest.raises(UnderstoodError):
        run(words[1:] if words[0] == "regen_train" else words[3:])


def test_there_are_commands_of_every_kind() -> None:
    kinds = {tuple(command.split()[:3])[-1 if command.startswith("python") else 1] for command in commands()}
    assert {"fit", "export", "anonymize", "profile", "data_prep.run", "data_prep.sheets"} <= kinds


def test_every_room_is_in_the_table() -> None:
    table = README.split("## What is where")[1].split("## ")[0]
    package = ROOT / "src" / "regen_train"
    rooms = {f"{path.name}/" for path in package.iterdir() if (path / "__init__.py").is_file()}
    rooms |= {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
    named = set(re.findall(r"`([\w/.]+)`", table))
    assert rooms - named == set()
    assert {name for name in named if name.endswith((".py", "/")) and not _exists(name)} == set()


def _exists(name: str) -> bool:
    return (ROOT / "src" / "regen_train" / name).exists() or (ROOT / name).exists()


def test_the_named_configurations_and_tests_exist() -> None:
    for name in shipped_configs():
        assert f"`{name.removesuffix('.yaml')}`" in README
    for pattern in re.findall(r"`(test_[\w*]+\.py)`", README):
        assert list((ROOT / "tests").glob(pattern)), pattern


def test_configurations_tell_the_papers_values_from_ours() -> None:
    for name in ("structhuman.yaml", "structall.yaml"):
        text = shipped_configs()[name].read_text()
        assert "# paper" in text
        assert "# ours" in text
        assert yaml.safe_load(text)["trainer"]["max_steps"] == 16_000
