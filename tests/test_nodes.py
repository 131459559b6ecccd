"""Two machines, as torchrun and SLURM start their processes; told to make room, a job saves and requeues itself."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_crash import DDP, Run
from test_requeue import write_scontrol

from regen_train.checkpoint_io import read_checkpoint

pytestmark = pytest.mark.long
NODES, STEPS = 2, 8


def options(folder: Path) -> list[str]:
    return [
        *("--trainer.num_nodes", str(NODES), "--trainer.devices", "1", "--trainer.strategy", "ddp"),
        *("--data.global_batch_size", "4", "--trainer.accumulate_grad_batches", "2"),
        *("--trainer.default_root_dir", str(folder), "--trainer.max_steps", str(STEPS)),
        *("--trainer.log_every_n_steps", "1", "--checkpoint.every_n_steps", "4", "--ckpt_path", "last"),
        *("--trainer.val_check_interval", "4"),
    ]


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


def start(command: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", **environment}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(nodes: list[subprocess.Popen[str]]) -> None:
    told = [node.communicate()[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0] * NODES, "".join(told)[-5000:]


def start_slurm_job(arguments: list[str], port: int) -> list[subprocess.Popen[str]]:
    job = {"SLURM_JOB_ID": "4242", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": str(NODES), "SLURM_NTASKS_PER_NODE": "1"}
    job |= {"SLURM_NNODES": str(NODES), "SLURM_LOCALID": "0", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "regen_train", "fit", *arguments]
    return [start(command, job | {"SLURM_PROCID": str(n), "SLURM_NODEID": str(n)}) for n in range(NODES)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(folder / "last.ckpt")["state_dict"]


def assert_same(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@pytest.fixture
def one_machine(quick_arguments: list[str], tmp_path: Path) -> Path:
    """A run on two processes of one machine."""
    Run(quick_arguments, tmp_path / "one machine", DDP, steps=STEPS).follow()
    return tmp_path / "one machine"


def test_torchrun_on_two_nodes_learns_what_one_machine_does(
    one_machine: Path, quick_arguments: list[str], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", str(NODES), "--nproc-per-node", "1"]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    fit = ["-m", "regen_train", "fit", *quick_arguments, *options(tmp_path / "nodes")]
    finish([start([*command, "--node-rank", str(node), *fit], {}) for node in range(NODES)])
    assert_same(tmp_path / "nodes", one_machine)


@pytest.mark.parametrize("told", [0, 1], ids=["first node", "second node"])
def test_a_slurm_job_told_to_make_room_saves_requeues_itself_and_goes_on(
    one_machine: Path, quick_arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: int
) -> None:
    (tmp_path / "bin").mkdir()
    write_scontrol(tmp_path / "bin", f'echo "$@" >> {tmp_path / "queue"}')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    arguments = [*quick_arguments, *options(tmp_path / "nodes")]
    nodes = start_slurm_job(arguments, free_port())
    assert nodes[0].stdout is not None
    for line in nodes[0].stdout:
        if re.search(r"step 2/", line):
            os.kill(nodes[told].pid, signal.SIGUSR1)
            break
    finish(nodes)
    assert (tmp_path / "queue").read_text() == "requeue 4242\n"
    assert 2 <= read_checkpoint(tmp_path / "nodes" / "last.ckpt")["global_step"] < STEPS
    assert not list((tmp_path / "nodes").glob("hpc_ckpt*")), "Lightning's own, saved amid a step"
    finish(start_slurm_job(arguments, free_port()))
    assert_same(tmp_path / "nodes", one_machine)
