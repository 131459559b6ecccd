"""The Ray engine: actors, on this machine or on a cluster that shares the work folder."""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from regen_train.preparation.engines.slots import Slot, drive
from regen_train.preparation.engines.stage import Attempt, Fault, Finished, Job, Stage
from regen_train.preparation.engines.worker import Worker

_REMEDY = "--engine ray needs Ray: pip install -c constraints.txt '.[ray]'; or use --engine local"


@dataclass(frozen=True)
class RayEngine:
    """Ray actors, one job at a time each. All nodes must see the clips and the work folder under the same paths.

    Args:
        num_gpus: GPUs of an actor, for stages with a model; a part of one lets actors share it, 0 uses the CPU. None
            takes one, or the CPU where the cluster has no GPU.
        num_cpus: Cores of an actor.
        num_actors: How many; None takes as many as the cluster has room for when the stage starts.
        address: Of the cluster, such as ``auto``; None joins the one of RAY_ADDRESS, or starts one here.
        threads: CPU threads of an actor.
        timeout: Seconds after which an attempt is given up; None waits for ever.
    """

    num_gpus: float | None = None
    num_cpus: float = 1.0
    num_actors: int | None = None
    address: str | None = None
    threads: int = 2
    timeout: float | None = None

    def run(self, stage: Stage, jobs: Sequence[Job], *, max_attempts: int) -> Iterator[Finished]:
        """Work on the jobs; see `Engine`."""
        if not jobs:
            return iter(())
        ray = _import_ray()
        if not ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing about a preparation leaves the machine
            ray.init(address=self.address, log_to_driver=False)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        given = float(any("GPU" in node for node in nodes)) if self.num_gpus is None else self.num_gpus
        gpus = given if stage.uses_device else 0.0
        room = self._room(nodes, gpus)
        # An actor more than there is room for would wait for ever, and its clip with it.
        wanted = room if self.num_actors is None else min(room, self.num_actors)
        slots: list[Slot] = [_ActorSlot(self, stage, gpus) for _ in range(min(wanted, len(jobs)))]
        return drive(slots, jobs, max_attempts=max_attempts)

    def _room(self, nodes: Sequence[dict[str, float]], gpus: float) -> int:
        """Return how many actors the nodes hold; each must fit into one node."""
        room = 0
        for node in nodes:
            needs = {"CPU": self.num_cpus, "GPU": gpus}
            room += min(int(node.get(kind, 0.0) / need) if need else len(nodes) * 64 for kind, need in needs.items())
        if room < 1:
            held = "; ".join(f"{node.get('CPU', 0.0):g} CPU and {node.get('GPU', 0.0):g} GPU" for node in nodes)
            raise ValueError(
                f"no actor fits: one needs {self.num_cpus:g} CPU and {gpus:g} GPU, the nodes have {held}; lower "
                "--ray.num_cpus or --ray.num_gpus (0 for none)"
            )
        return room


class _ActorSlot:
    """One actor, replaced when it dies."""

    def __init__(self, engine: RayEngine, stage: Stage, gpus: float) -> None:
        self._engine, self._stage, self._gpus = engine, stage, gpus
        self._prepared: Future[Any] | None = None
        self._since: float | None = None
        self._is_late = False
        self._open()

    def submit(self, task: Any) -> "Future[Any]":
        if self._prepared is None:
            self._prepared = self._actor.prepare.remote().future()
        self._since, self._is_late = None, False
        future: Future[Any] = self._actor.attempt.remote(task).future()
        return future

    def collect(self, future: "Future[Any]") -> Attempt:
        from ray.exceptions import RayError

        try:
            result: Attempt = future.result()
        except RayError as error:
            late = f"took more than {self._engine.timeout or 0:g} seconds; give it more with --timeout"
            died = f"the actor died: {str(error).splitlines()[0]}"
            fault = Fault("timeout", late) if self._is_late else Fault("crash", died)
        else:
            return result
        self.renew()
        return Attempt(fault, device=self._device)

    def give_up_if_late(self) -> None:
        if self._engine.timeout is None or self._prepared is None or not self._prepared.done():
            return  # the time of an attempt begins when the stage is set up
        if self._since is None:
            self._since = time.monotonic()
        elif time.monotonic() - self._since > self._engine.timeout and not self._is_late:
            self._is_late = True
            _import_ray().kill(self._actor)

    def renew(self) -> None:
        self.close()
        self._open()

    def close(self) -> None:
        _import_ray().kill(self._actor)

    def _open(self) -> None:
        actor = _import_ray().remote(Worker)
        self._device = "cuda" if self._gpus else "cpu"
        options = {"num_gpus": self._gpus, "num_cpus": self._engine.num_cpus, "max_restarts": 0}
        self._actor = actor.options(**options).remote(self._stage, self._device, self._engine.threads)
        self._prepared = None


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ValueError(f"{_REMEDY} ({error})") from error
    return ray
