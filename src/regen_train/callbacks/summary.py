"""What a run is about to do, in words a person reads before it starts."""

from pathlib import Path

import lightning as L
from lightning.pytorch.utilities import rank_zero_only

from regen_train.callbacks.undeclared import data_of
from regen_train.training import VaceModule


class StartSummary(L.Callback):
    """Prints base, what learns, data, batch and a memory estimate before the first step."""

    @rank_zero_only
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the summary."""
        assert isinstance(pl_module, VaceModule)
        print(describe(trainer, pl_module), flush=True)


def describe(trainer: L.Trainer, module: VaceModule) -> str:
    """Return the start-up summary."""
    wan, data = module.wan, data_of(trainer)
    count = wan.num_parameters()
    per_step = f"{trainer.world_size} processes x {data.per_device_batch_size} x {trainer.accumulate_grad_batches}"
    buckets = {bucket: number for bucket, number in data.samples_per_bucket.items() if number}
    tokens = [
        f"{wan.geometry.num_tokens(bucket, reference=data.reference != 'none'):,} ({bucket})" for bucket in buckets
    ]
    largest = max(wan.geometry.num_tokens(bucket, reference=data.reference != "none") for bucket in buckets)
    lora, recipe = module.lora, module.recipe
    learns = f"LoRA rank {lora.rank} on {lora.targets}" if lora is not None else module.trainable
    rows = {
        "base": f"{wan.base.name}  {count.total / 1e6:,.1f} M parameters, {module.base_dtype}, {wan.base.sha256[:12]}",
        "learns": f"{learns}  {count.trainable / 1e6:,.2f} M parameters, fp32",
        "recipe": f"sigma {recipe.sigma}, flow_shift {recipe.flow_shift:g}, weight {recipe.weight}",
        "dataset": f"{data.path}  {data.info.fingerprint[:12]}  {sum(buckets.values())} samples, {data.variant_name}",
        "held out": f"{data.num_held_out} samples",
        "epoch": f"{data.samples_per_epoch} samples; {data.samples_left_out} that fill no global batch are left out",
        "tokens": "per clip " + ", ".join(tokens),
        "batch": f"{data.global_batch_size} samples a step = {per_step}",
        "memory": f"about {estimate_gib(module, largest, data.per_device_batch_size):.2f} GiB a process (an estimate)",
        "steps": f"{trainer.global_step} done of {trainer.max_steps}",
        "run": str(Path(trainer.default_root_dir)),
    }
    width = max(map(len, rows))
    return "\n".join(f"  {name:<{width}}  {text}" for name, text in rows.items())


def estimate_gib(module: VaceModule, tokens: int, batch: int) -> float:
    """Estimate a training process's memory from sizes alone.

    Weights as stored, 16 bytes for each learning parameter (fp32 weight, gradient and two moments), and activations:
    one hidden state a block with full checkpointing and about 30 without, the ratio of 113 to 4.4 GiB measured at
    1.3B and 32,760 tokens, plus one block's 30 that live while it is recomputed.
    """
    wan = module.wan
    frozen = sum(p.numel() * p.element_size() for p in wan.parameters() if not p.requires_grad)
    learning = wan.num_parameters().trainable * 16
    hidden_state = batch * tokens * wan.hidden_size * (2 if module.base_dtype == "bf16" else 4)
    states = wan.num_blocks + 30 if module.checkpointing == "full" else 30 * wan.num_blocks
    return (frozen + learning + states * hidden_state) / 2**30
