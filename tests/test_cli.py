"""The command line as a user meets it: configurations found by name, mistakes told in a line."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from regen_train.cli import COMMANDS, main
from regen_train.configs import find_config, resolve_arguments, shipped_configs
from regen_train.training_cli import TrainingCLI


def _fault(arguments: list[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return str(caught.value)


def test_without_a_command_it_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    shown = capsys.readouterr().out
    assert all(command in shown for command in COMMANDS)


def test_an_unknown_command_is_told_the_known_ones() -> None:
    assert "no command 'train'; the commands are fit, profile, validate" in _fault(["train"])


def test_a_bare_name_is_looked_up_here_first_then_among_the_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = find_config("structhuman.yaml")
    assert shipped.parent.name in ("configs", "shipped_configs")
    assert resolve_arguments(["--config", "structhuman.yaml", "--x=1"]) == ["--config", str(shipped), "--x=1"]
    assert resolve_arguments(["--config=structhuman.yaml"]) == [f"--config={shipped}"]
    (tmp_path / "structhuman.yaml").write_text("{}")
    assert find_config("structhuman.yaml") == Path("structhuman.yaml")


def test_a_missing_configuration_is_told_the_shipped_ones() -> None:
    assert "no configuration 'mine.yaml'; the shipped ones are quickstart.yaml" in _fault(
        ["fit", "--config", "mine.yaml"]
    )


OVERRIDES = sorted(name for name in shipped_configs() if name.startswith("strategy_"))


@pytest.mark.parametrize("name", sorted(shipped_configs().keys() - set(OVERRIDES)))
def test_every_shipped_configuration_parses_and_says_how_it_is_run(name: str) -> None:
    text = shipped_configs()[name].read_text()
    assert text.startswith("# ")
    assert f"regen_train fit --config {name}" in text
    assert "# Hardware:" in text
    stated = yaml.safe_load(text)
    batch = stated["data"]["global_batch_size"]
    processes, each = stated["trainer"]["devices"], stated["data"]["per_device_batch_size"]
    assert processes * each * stated["trainer"]["accumulate_grad_batches"] == batch
    for option in ("--model.nonsense", "--data.nonsense", "--trainer.nonsense"):
        with pytest.raises(SystemExit):
            TrainingCLI.run(["fit", *resolve_arguments(["--config", name, "--data.path", "x", option, "1"])])
    with pytest.raises(SystemExit) as printed:
        TrainingCLI.run(["fit", *resolve_arguments(["--config", name, "--data.path", "x", "--print_config"])])
    assert printed.value.code == 0


@pytest.mark.parametrize("name", OVERRIDES)
def test_every_override_says_how_it_is_run_and_fits_the_papers_configuration(name: str) -> None:
    text = shipped_configs()[name].read_text()
    assert re.search(rf"regen_train fit --config \w+\.yaml --config {name}", text)
    assert "# Hardware:" in text
    command = ["fit", "--config", "structhuman.yaml", "--config", name, "--data.path", "x", "--print_config"]
    with pytest.raises(SystemExit) as printed:
        TrainingCLI.run(resolve_arguments(command))
    assert printed.value.code == 0


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--model.rank", "3", "model.rank"),
        ("--model.lora.rank", "many", "rank"),
        ("--model.recipe", "papr", "papr"),
        ("--data.reference", "last", "reference"),
        ("--model.checkpointing", "ful", "Literal['none', 'selective', 'full', 'offload', 'auto']. Got value: ful"),
        ("--model.blocks.quantize", "int4", "Literal['none', 'int8', 'fp8', 'nf4']. Got value: int4"),
    ],
)
def test_an_unknown_key_or_a_wrong_type_is_named(
    option: str, value: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["fit", "--config", "quickstart.yaml", option, value])
    assert caught.value.code == 2
    assert told in capsys.readouterr().err


def test_a_users_mistake_is_one_line_without_traceback(quick_arguments: list[str]) -> None:
    missing = _fault(["fit", *quick_arguments, "--data.path", "/nowhere"])
    assert missing.startswith("regen_train fit: there is no dataset at /nowhere")
    unfit = _fault(["fit", *quick_arguments, "--trainer.accumulate_grad_batches", "3"])
    assert "global_batch_size is 2" in unfit
    assert "--trainer.accumulate_grad_batches 2" in unfit


def test_export_names_its_formats(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    assert "--formats {diffusers,wan,merged}" in capsys.readouterr().out
    assert "no such checkpoint" in _fault(["export", "--checkpoint", "nothing.ckpt", "--output", "x"])


@pytest.mark.slow
def test_help_comes_within_twice_the_import_of_torch_and_lightning_plus_a_second() -> None:
    def seconds(*command: str) -> float:
        times = []
        for _ in range(3):
            start = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - start)
        return min(times)

    imports = seconds("-c", "import torch, lightning")
    shown = seconds("-m", "regen_train", "fit", "--help")
    assert shown <= 2 * imports + 1, f"help {shown:.1f} s, imports {imports:.1f} s"
