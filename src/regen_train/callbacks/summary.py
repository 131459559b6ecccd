"""What a run is about to do, in words a person reads before it starts."""

from pathlib import Path

import lightning as L
from lightning.pytorch.utilities import rank_zero_only

from regen_train.callbacks.undeclared import data_of
from regen_train.model import estimate_bytes
from regen_train.training import VaceModule
from regen_train.training.workload import largest_tokens, upkeep_of


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
    together = data.processes_per_sample
    processes = f"{trainer.world_size} processes" + (f" / {together} a clip" if together > 1 else "")
    per_step = f"{processes} x {data.per_device_batch_size} x {trainer.accumulate_grad_batches}"
    buckets = {bucket: number for bucket, number in data.samples_per_bucket.items() if number}
    tokens = [
        f"{wan.geometry.num_tokens(bucket, reference=data.reference != 'none'):,} ({bucket})" for bucket in buckets
    ]
    needed = estimate_bytes(
        wan,
        wan.checkpointing,
        tokens=largest_tokens(data),
        batch=data.per_device_batch_size,
        upkeep=upkeep_of(trainer),
    )
    lora, recipe, left_out = module.lora, module.recipe, data.stream.samples_left_out
    learns = f"LoRA rank {lora.rank} on {lora.targets}" if lora is not None else module.trainable
    rows = {
        "base": f"{wan.base.name}  {count.total / 1e6:,.1f} M parameters, {module.base_dtype}, {wan.base.sha256[:12]}",
        "learns": f"{learns}  {count.trainable / 1e6:,.2f} M parameters, fp32",
        "recipe": f"sigma {recipe.sigma}, flow_shift {recipe.flow_shift:g}, weight {recipe.weight}",
        "dataset": f"{data.path}  {data.info.fingerprint[:12]}  {sum(buckets.values())} samples, {data.variant_name}",
        "held out": f"{data.num_held_out} samples",
        "epoch": f"{data.samples_per_epoch} samples; {left_out} that fill no global batch are left out",
        "tokens": "per clip " + ", ".join(tokens),
        "batch": f"{data.global_batch_size} samples a step = {per_step}",
        "memory": f"about {needed / 2**30:.2f} GiB a process (an estimate), checkpointing {wan.checkpointing}",
        "steps": f"{trainer.global_step} done of {trainer.max_steps}",
        "run": str(Path(trainer.default_root_dir)),
    }
    if wan.quantization is not None:
        rows["quantized"] = wan.quantization.describe()
    if wan.swap is not None:
        blocks = f"{wan.block_options.swap} of {len(wan.transformer.blocks)} main blocks"
        rows["swapped"] = f"{blocks}: {wan.swap.host_bytes / 2**30:.2f} GiB in each process's CPU memory"
    width = max(map(len, rows))
    return "\n".join(f"  {name:<{width}}  {text}" for name, text in rows.items())
