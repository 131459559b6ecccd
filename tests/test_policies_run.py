"""Policies in a whole run."""

from pathlib import Path

from regen_train.training_cli import TrainingCLI


def test_a_run_chooses_and_says_so(quick_arguments: list[str], tmp_path: Path, capsys) -> None:
    done = TrainingCLI.run(["fit", *quick_arguments, "--model.checkpointing", "auto", "--trainer.max_steps", "1"])
    assert done.model.wan.checkpointing == "none", "the tiny model fits any machine as it is"
    assert "GiB a process (an estimate), checkpointing none" in capsys.readouterr().out
