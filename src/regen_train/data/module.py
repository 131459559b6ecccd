"""The LightningDataModule: which samples, in which order, with which draws; and where a run stands in them."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info

from regen_train.data.collate import Choice, collate
from regen_train.data.conditioning import Conditioning, Dropout, Variants
from regen_train.data.loader import HeldOutLoader, Loading, StreamLoader
from regen_train.data.opened import HeldOut, OpenData, open_data
from regen_train.data.place import Place, check_groups
from regen_train.data.stream import Stream
from regen_train.schema import Batch, Bucket
from regen_train.shards import DatasetInfo, ShardReader

log = logging.getLogger(__name__)


class ShardDataModule(L.LightningDataModule):
    """Trains on shards: one infinite stream of samples, resumed exactly, on any number of processes.

    Args:
        path: The dataset: a folder, or an s3, gs, hf or http address.
        variant: The condition to train on, such as ``structhuman``; or a mix, such as
            ``{structhuman: 0.5, structall: 0.5}``.
        global_batch_size: Samples of one optimizer step: processes x per_device_batch_size x accumulated gradients.
        per_device_batch_size: Samples of one forward pass on one process.
        seed: Of the order and of every draw; the noise of training is keyed by it too.
        reference: Whether VACE gets the first condition frame as its reference image.
        dropout: How often a sample goes without prompt or reference.
        validation: What validation is measured on.
        loading: Threads, prefetch and cache.
        expect: What dataset.json must state, as dotted fields: ``{settings.fps: 7.5}``; else training is refused.
        processes_per_sample: Neighbouring processes that are given the same samples; the command line takes
            ``model.context_parallel``.
    """

    def __init__(
        self,
        path: str,
        variant: str | dict[str, float],
        global_batch_size: int,
        per_device_batch_size: int = 1,
        *,
        seed: int = 0,
        reference: Literal["first_condition", "none"] = "first_condition",
        dropout: Dropout = Dropout(),
        validation: HeldOut = HeldOut(),
        loading: Loading = Loading(),
        expect: dict[str, Any] | None = None,
        processes_per_sample: int = 1,
    ) -> None:
        super().__init__()
        self.path, self.variants = path, Variants.parse(variant)
        self.global_batch_size, self.per_device_batch_size = global_batch_size, per_device_batch_size
        self.seed, self.reference, self.processes_per_sample = seed, reference, processes_per_sample
        self.conditioning = Conditioning(self.variants, seed, use_reference=reference != "none", dropout=dropout)
        self.validation, self.loading, self.expect = validation, loading, expect or {}
        self._data: OpenData | None = None
        self._stream: Stream | None = None
        self._loader: StreamLoader | None = None
        self._start_position = self._start_step = 0

    def setup(self, stage: str) -> None:
        """Open the datasets and check them against the config.

        Raises:
            FileNotFoundError: A dataset is missing.
            ValueError: A dataset is damaged or not the one the config expects, or the batch sizes do not fit.
        """
        if self._data is None:
            self._data = open_data(
                self.path, self.validation, variants=self.variants, expect=self.expect, cache=self.loading.cache
            )
        if stage == "fit" and self._stream is None:
            self._check_batches()
            self._stream = Stream(
                self.data.training_samples(), global_batch_size=self.global_batch_size, seed=self.seed
            )
            rank_zero_info(
                f"{self.path}: an epoch trains on {self.samples_per_epoch} samples; {self._stream.samples_left_out} "
                "that fill no global batch are left out, others in each epoch"
            )
            for bucket in self._stream.untrained_buckets:
                log.warning("bucket %s has fewer samples than a global batch: no epoch trains on it", bucket)

    def teardown(self, stage: str) -> None:
        """Let go of the mapped shards."""
        if self._data is not None:
            self._data.close()

    def train_dataloader(self) -> StreamLoader:
        """Return the stream, which begins where the run stands."""
        self._loader = StreamLoader(self._training_batch, self._next_microbatch, self.loading)
        return self._loader

    def val_dataloader(self) -> HeldOutLoader | list[Any]:
        """Return the held-out samples: as many steps on every process, in a fixed order."""
        steps = self._place().held_out_steps(self.data.held_out_buckets())
        if not steps:
            return []
        return HeldOutLoader(lambda number: self._validation_batch(*steps[number]), len(steps), self.loading)

    def test_dataloader(self) -> HeldOutLoader | list[Any]:
        """Return the held-out samples."""
        return self.val_dataloader()

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Copy a batch to the device; where it was pinned nothing waits for that but the step itself."""
        return batch.to(device, non_blocking=device.type == "cuda")

    def state_dict(self) -> dict[str, Any]:
        """Return where the run stands, and in which stream."""
        step = self.trainer.global_step if self.trainer is not None else self._start_step
        return {"position": self.position, "step": step} | self._identity()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from there.

        Raises:
            ValueError: The run trained on another stream; names every difference.
        """
        if self.trainer is not None and self.trainer.state.fn != "fit":
            return
        faults = [
            f"{name}: the checkpoint has {state_dict.get(name)!r}, the config {value!r}"
            for name, value in self._identity().items()
            if state_dict.get(name) != value
        ]
        if faults:
            raise ValueError(
                "the checkpoint's run trained on another stream of samples and cannot be continued exactly:\n  "
                + "\n  ".join(faults)
                + "\nGive it the dataset and settings it was trained with; or start a new run from its weights: export "
                "them and name the file in model.lora.init"
            )
        self._start_position, self._start_step = state_dict["position"], state_dict["step"]

    @property
    def data(self) -> OpenData:
        """The opened datasets, once `setup` has run."""
        assert self._data is not None, "setup has not run"
        return self._data

    @property
    def info(self) -> DatasetInfo:
        """What the training dataset states about itself."""
        return self.data.reader.dataset.info

    @property
    def variant_name(self) -> str:
        """The condition, or the mix in words."""
        return str(self.variants)

    def describe(self) -> dict[str, Any]:
        """Return what shapes what is learned, as plain values: the options, and how the dataset was composed."""
        dataset = {"settings": dict(self.info.settings), "buckets": list(self.info.buckets)}
        return {
            "dataset": dataset,
            "seed": self.seed,
            "global_batch_size": self.global_batch_size,
            "reference": self.reference,
            "dropout": asdict(self.conditioning.dropout),
        }

    @property
    def position(self) -> int:
        """Samples consumed by finished optimizer steps, over all processes; the same number on each."""
        step = self.trainer.global_step if self.trainer is not None else self._start_step
        return self._start_position + (step - self._start_step) * self.global_batch_size

    @property
    def epoch(self) -> float:
        """How often the run has gone through the data."""
        return self.position / self.samples_per_epoch

    @property
    def stream(self) -> Stream:
        """The order of the samples, once `setup` has run for training."""
        assert self._stream is not None, "setup has not run for fit"
        return self._stream

    @property
    def samples_per_epoch(self) -> int:
        """Samples that one epoch trains on."""
        return self.stream.samples_per_epoch

    @property
    def samples_per_bucket(self) -> Mapping[Bucket, int]:
        """Samples to train on, by bucket."""
        return {bucket: len(samples) for bucket, samples in self.data.training_samples().items()}

    @property
    def num_held_out(self) -> int:
        """Samples that validation is measured on."""
        return len(self.data.held_out)

    @property
    def wait_seconds(self) -> float:
        """How long training has waited for batches so far."""
        return self._loader.wait_seconds if self._loader is not None else 0.0

    def _identity(self) -> dict[str, Any]:
        """Return what the order of the stream follows from; a run that resumes must have the same."""
        return {
            "dataset fingerprint": self.info.fingerprint,
            "data.seed": self.seed,
            "data.global_batch_size": self.global_batch_size,
            "samples held out of it": self.data.num_taken_from_training,
        }

    def _place(self) -> Place:
        """Return which process this is, as far as data is concerned."""
        place = (self.trainer.distributed_sampler_kwargs if self.trainer is not None else None) or {}
        rank, processes, together = place.get("rank", 0), place.get("num_replicas", 1), self.processes_per_sample
        check_groups(processes, together)
        return Place(rank // together, processes // together, self.per_device_batch_size)

    def _check_batches(self) -> None:
        accumulate = self.trainer.accumulate_grad_batches if self.trainer is not None else self._num_microbatches()
        self._place().check_factors(self.global_batch_size, accumulate)
        if self.trainer is None or vars(self.trainer).get("fast_dev_run"):
            return
        if self.trainer.limit_train_batches != 1.0 or vars(self.trainer).get("overfit_batches"):
            raise ValueError(
                "trainer.limit_train_batches and overfit_batches cut epochs, and the stream of samples has none; "
                "use trainer.max_steps to train less"
            )

    def _num_microbatches(self) -> int:
        """Return the microbatches of one optimizer step on this process."""
        return self.global_batch_size // (self._place().world_size * self.per_device_batch_size)

    def _next_microbatch(self) -> int:
        return self.position // self.global_batch_size * self._num_microbatches()

    def _training_batch(self, number: int) -> Batch:
        """Make this process's microbatch ``number``, counted from the start of the stream."""
        step, microbatch = divmod(number, self._num_microbatches())
        whole, offsets = self.stream.global_batch(step), self._place().offsets(microbatch)
        choices = [self.conditioning.draw(whole.numbers()[offset]) for offset in offsets]
        return self._collate(self.data.reader, [whole.samples[offset] for offset in offsets], choices)

    def _validation_batch(self, numbers: list[int], weights: list[float]) -> Batch:
        rows, data = self.data.held_out_reader.dataset.rows, self.data
        samples = [data.held_out[number] for number in numbers]
        choices = [
            self.conditioning.fixed(number, rows[sample].key, weight=weight)
            for number, sample, weight in zip(numbers, samples, weights, strict=True)
        ]
        return self._collate(data.held_out_reader, samples, choices)

    def _collate(self, reader: ShardReader, samples: list[int], choices: list[Choice]) -> Batch:
        pin = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        dataset = reader.dataset
        return collate(
            [reader.read(sample) for sample in samples], choices, dataset.constants, dataset.info.geometry, pin=pin
        )
