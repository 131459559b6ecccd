"""The LightningModule: which weights learn, what is drawn for a step, what a checkpoint holds."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import lightning as L
import torch
from jaxtyping import Float
from torch import Tensor

import regen_train
from regen_train import draws, flow
from regen_train.adapter import AdapterMetadata
from regen_train.flow import RECIPES, FlowRecipe
from regen_train.model import BlockOptions, Checkpointing, LoraSpec, WanVace, load_wan_vace
from regen_train.schema import Batch
from regen_train.training.dataset_check import check_dataset
from regen_train.training.objective import LossSpec, SampleLosses, sample_losses
from regen_train.training.optimizer import OptimizerSpec
from regen_train.training.progress import align_progress
from regen_train.training.same_run import check_same_run
from regen_train.training.strategies import hide_from_ddp, spread_of
from regen_train.training.strategy_checks import check_context_parallel, check_run
from regen_train.training.workload import workload_of

VALIDATION_SIGMAS = (0.1, 0.3, 0.5, 0.7, 0.9)


class VaceModule(L.LightningModule):
    """Rectified-flow training of Wan VACE on precomputed latents; the base frozen, a LoRA learning.

    Args:
        pretrained: Diffusers folder, hub id, original-named safetensors file, or ``random:NAME``.
        revision: Revision of a hub id.
        lora: The LoRA; null with ``trainable`` vace or all.
        trainable: ``lora``; ``vace`` = the context blocks themselves; ``all`` = the whole transformer.
        recipe: ``paper`` (the released ReGenHuman weights), ``rectified_flow``, ``logit_normal``, or all its fields.
        loss: What of a clip counts, and how much.
        optimizer: AdamW and its schedule.
        dtype: Number format of the frozen base; what learns is always fp32.
        checkpointing: What the backward pass computes again to save memory, at equal gradients: ``none``;
            ``selective`` = all but attention; ``full`` = every block; ``offload`` = ``full``, with the blocks' inputs
            in CPU memory meanwhile; ``auto`` = the fastest of them that fits the memory there is.
        attention: Kernel of attention by the name of diffusers' dispatcher: ``native``, ``_native_flash``,
            ``_native_cudnn``, ``flash``, ``_flash_3`` and so on; ``auto`` leaves it to PyTorch, or to
            what the environment names in ``DIFFUSERS_ATTN_BACKEND``.
        blocks: Whether the blocks are compiled, quantized or swapped.
        context_parallel: Processes that compute each clip together, a share of its tokens each: for clips too long for
            one GPU. Works under DDP and FSDP2; must divide the number of processes and the model's attention heads.
        seed: Keys the noise, the noise level and the LoRA's initialisation; the command line takes ``data.seed``.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - each is a key of the configuration
        self,
        pretrained: str,
        revision: str | None = None,
        lora: LoraSpec | None = LoraSpec(),
        trainable: Literal["lora", "vace", "all"] = "lora",
        recipe: Literal["paper", "rectified_flow", "logit_normal"] | FlowRecipe = "paper",
        loss: LossSpec = LossSpec(),
        optimizer: OptimizerSpec = OptimizerSpec(),
        dtype: Literal["bf16", "fp32"] = "bf16",
        checkpointing: Checkpointing = "full",
        attention: str = "auto",
        blocks: BlockOptions = BlockOptions(),
        context_parallel: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_context_parallel(context_parallel, lora if trainable == "lora" else None)
        self.context_parallel = context_parallel
        self.pretrained, self.revision, self.trainable = pretrained, revision, trainable
        self.lora = lora if trainable == "lora" else None
        self.recipe = RECIPES[recipe] if isinstance(recipe, str) else recipe
        self.loss_spec, self.optimizer_spec = loss, optimizer
        self.base_dtype, self.checkpointing, self.attention, self.seed = dtype, checkpointing, attention, seed
        self.blocks = blocks
        self.strict_loading = False  # a checkpoint holds only what learns; on_load_checkpoint checks the keys
        self.model: WanVace | None = None

    @property
    def wan(self) -> WanVace:
        """The model, once `configure_model` has loaded it."""
        assert self.model is not None, "configure_model has not run"
        return self.model

    def configure_model(self) -> None:
        """Load the base and insert the LoRA; Lightning calls this once the processes are up."""
        if self.model is not None:
            return
        check_run(self.trainer, self)
        self.model = load_wan_vace(
            self.pretrained,
            revision=self.revision,
            lora=self.lora,
            trainable=self.trainable,
            dtype=self.base_dtype,
            checkpointing=self.checkpointing,
            workload=workload_of(self.trainer) if self.checkpointing == "auto" else None,
            attention=self.attention,
            blocks=self.blocks,
            seed=self.seed,
            spread=spread_of(self.trainer.strategy, self.context_parallel),
        ).train()  # diffusers loads for evaluation, where LoRA dropout would sleep
        datamodule = getattr(self.trainer, "datamodule", None)
        if datamodule is not None:
            check_dataset(datamodule.info, self.model.geometry, self.pretrained, self.revision)
        if self.model.swap is not None:
            hide_from_ddp(self, self.model.swap.parameters)

    def configure_optimizers(self) -> Any:
        """Return the optimizer of what learns, with its schedule per optimizer step."""
        spec = self.optimizer_spec
        optimizer = spec.build(self.wan.trained_parameters())
        max_steps = self.trainer.max_steps
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: spec.factor(step, max_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return the mean loss of a microbatch, and what the callbacks show of each sample."""
        losses = self.losses(batch)
        return {
            "loss": losses.loss.mean(),
            "sample_loss": losses.loss.detach(),
            "error": losses.error.detach(),
            "sigma": losses.sigma,
        }

    def losses(self, batch: Batch) -> SampleLosses:
        """Return the losses of a training microbatch, its noise and sigma keyed by the samples' numbers.

        Samples without reference frame, where a batch mixes them, come after those with one.
        """
        parts = [self._losses(part, self._sigma(part), list(part.numbers)) for part in self._parts(batch)]
        return SampleLosses(
            loss=torch.cat([part.loss for part in parts]),
            error=torch.cat([part.error for part in parts]),
            sigma=torch.cat([part.sigma for part in parts]),
        )

    def validation_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, "b s"]:
        """Return each held-out clip's velocity error at each of `VALIDATION_SIGMAS`, its noise fixed by its key."""
        rows = []
        for part in self._parts(batch):
            names = [f"validation {key}" for key in part.keys]
            levels = [torch.full((len(part),), level, device=self.device) for level in VALIDATION_SIGMAS]
            rows.append(torch.stack([self._losses(part, level, names).error for level in levels], dim=1))
        return torch.cat(rows)

    def test_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, "b s"]:
        """Do as `validation_step`."""
        return self.validation_step(batch, batch_idx)

    def _losses(self, part: Batch, sigma: Float[Tensor, " b"], names: Sequence[int | str]) -> SampleLosses:
        channels, frames, height, width = part.latents.shape[1:]
        shape = (channels, frames + 1, height, width)
        drawn = [torch.randn(shape, generator=draws.generator_for(self.seed, name, "noise")) for name in names]
        left_out = int(not part.use_reference[0])
        noise = draws.send(torch.stack([one[:, left_out:] for one in drawn]), self.device)
        if self.training and self._drops_inputs:
            # peft draws from the global generator; _parts has cut the batch into single samples
            torch.manual_seed(draws.generator_for(self.seed, names[0], "LoRA dropout").initial_seed())
        return sample_losses(self.wan, part, noise=noise, sigma=sigma, recipe=self.recipe, spec=self.loss_spec)

    def _sigma(self, part: Batch) -> Float[Tensor, " b"]:
        uniform = [draws.uniform(self.seed, number, "sigma") for number in part.numbers]
        sigma = flow.sample_sigma(torch.tensor(uniform, dtype=torch.float64), self.recipe)
        return draws.send(sigma.float(), self.device)

    @property
    def _drops_inputs(self) -> bool:
        return self.lora is not None and self.lora.dropout > 0

    @property
    def _must_keep_pace(self) -> bool:
        """Whether processes need equally many forward passes and the samples of each decide on theirs."""
        if not self.wan.spread.lockstep:
            return False
        data = getattr(self.trainer, "datamodule", None)
        return data is not None and 0 < data.conditioning.dropout.reference < 1

    def _parts(self, batch: Batch) -> list[Batch]:
        """Cut a batch into runs of samples that one forward pass can take."""
        uses = batch.use_reference.tolist()
        if self.training and (self._drops_inputs or self._must_keep_pace):
            return [batch.select([i]) for i in range(len(batch))]
        if len(set(uses)) == 1:
            return [batch]
        return [batch.select([i for i, use in enumerate(uses) if use is wanted]) for wanted in (True, False)]

    def metadata(self, *, weights: Literal["raw", "ema"] = "raw") -> AdapterMetadata:
        """Return what an adapter or a checkpoint states of itself."""
        datamodule = getattr(self.trainer, "datamodule", None)
        lora = self.lora if self.lora is not None else LoraSpec()
        base = self.wan.base
        return AdapterMetadata(
            base_name=base.name,
            base_revision=base.revision,
            base_sha256=base.sha256,
            dataset_fingerprint=datamodule.info.fingerprint if datamodule is not None else "",
            variant=datamodule.variant_name if datamodule is not None else "",
            rank=lora.rank,
            alpha=lora.effective_alpha,
            targets=lora.targets,
            dropout=lora.dropout,
            use_dora=lora.use_dora,
            use_rslora=lora.use_rslora,
            step=self.trainer.global_step,
            weights=weights,
            recipe=dataclasses.asdict(self.recipe),
            settings=self._settings(datamodule),
            code_version=regen_train.__version__,
        )

    def _settings(self, datamodule: Any) -> dict[str, Any]:
        data = {} if datamodule is None else datamodule.describe()
        clip = self.trainer.gradient_clip_val
        return data | {
            "optimizer": dataclasses.asdict(self.optimizer_spec) | {"betas": list(self.optimizer_spec.betas)},
            "gradient_clip_val": None if clip is None else float(clip),
            "loss": dataclasses.asdict(self.loss_spec),
            "base_dtype": self.base_dtype,
            "quantize": self.blocks.quantize,
            "precision": str(self.trainer.precision),
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep only what learns, and state what it was trained on."""
        checkpoint["state_dict"] = {f"model.{name}": value for name, value in self.wan.trainable_state().items()}
        checkpoint["regen_train"] = self._stated()

    def _stated(self) -> dict[str, Any]:
        own = {"pretrained": self.pretrained, "trainable": self.trainable}
        return dataclasses.asdict(self.metadata()) | own

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another run; line Lightning's counters up with the optimizer step.

        Raises:
            ValueError: It was trained on another base, with another LoRA, recipe or variant, or its tensors are not
                the ones that learn here; names every difference.
        """
        stated = checkpoint.get("regen_train", {})
        check_same_run(stated, self._stated(), lora=self.lora is not None, continues=self.trainer.state.fn == "fit")
        # Lightning would pass over names it does not know: the model sets its weights itself and refuses other names
        state = {name.removeprefix("model."): value for name, value in checkpoint["state_dict"].items()}
        self.wan.load_trainable_state(state)
        if self.trainer.state.fn == "fit":
            align_progress(checkpoint, self.trainer.accumulate_grad_batches)
