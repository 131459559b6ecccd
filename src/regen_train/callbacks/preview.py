"""Videos of what the model paints, while it learns: condition | sample | original."""

import io
import logging
from pathlib import Path
from typing import Any

import lightning as L
import torch
from jaxtyping import Float, UInt8
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from regen_train.callbacks.undeclared import data_of, module_of
from regen_train.encoders import WanVae, load_vae
from regen_train.sampling import SamplingSettings, generate
from regen_train.schema import Batch
from regen_train.training import VaceModule
from regen_train.video import write_video

log = logging.getLogger(__name__)


class Preview(L.Callback):
    """Paints held-out clips after validation: an MP4 in ``previews/`` and an animation in TensorBoard.

    The original beside the sample shows the real person: the run's folder is as sensitive as the dataset.

    Args:
        num_clips: Held-out clips to paint; 0 for none.
        every_n_validations: Paint after every n-th validation.
        pretrained: Where the VAE comes from; null takes ``model.pretrained``.
        num_inference_steps: Euler steps.
        guidance_scale: Strength of classifier-free guidance.
        show_original: Show the original beside the sample.
    """

    def __init__(
        self,
        num_clips: int = 0,
        every_n_validations: int = 1,
        pretrained: str | None = None,
        num_inference_steps: int = 25,
        guidance_scale: float = 5.0,
        show_original: bool = True,
    ) -> None:
        if num_clips < 0 or every_n_validations < 1:
            raise ValueError(
                "preview.num_clips must not be negative and preview.every_n_validations at least 1; "
                f"got {num_clips} and {every_n_validations}"
            )
        self.num_clips, self.every_n_validations, self.pretrained = num_clips, every_n_validations, pretrained
        self.settings = SamplingSettings(guidance_scale=guidance_scale, num_inference_steps=num_inference_steps)
        self.show_original = show_original
        self._clips: list[Batch] = []
        self._validations = 0

    def state_dict(self) -> dict[str, Any]:
        """Return how many validations there were, so that a resumed run keeps its pace."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue counting."""
        self._validations = int(state_dict["validations"])

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find the VAE now rather than hours into the run.

        Raises:
            FileNotFoundError: There is none where the model comes from.
        """
        if self.num_clips and trainer.is_global_zero:
            try:
                self._load_vae(module_of(trainer), device="cpu")
            except (FileNotFoundError, ValueError) as error:
                raise FileNotFoundError(
                    f"previews need a VAE: {error}; name a pipeline in preview.pretrained, or set preview.num_clips 0"
                ) from error

    def _load_vae(self, module: VaceModule, *, device: str | torch.device) -> WanVae:
        if self.pretrained is not None:
            return load_vae(self.pretrained, device=device)
        return load_vae(module.pretrained, device=device, revision=module.revision)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget the clips of the last validation."""
        self._clips = []

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first clips."""
        room = self.num_clips - len(self._clips)
        if trainer.is_global_zero and room > 0:
            self._clips += [batch.select([i]) for i in range(min(room, len(batch)))]

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Paint and write them; the other processes paint along where they share the model, or wait."""
        self._validations += 1
        if self.num_clips and trainer.state.fn == "fit" and self._validations % self.every_n_validations == 0:
            try:
                self._paint(trainer)
            except (OSError, RuntimeError) as error:  # a full disk or GPU must not end the training
                log.warning("no preview at step %d: %s", trainer.global_step, error)
            finally:
                self._clips = []
                trainer.strategy.barrier("previews")

    def _paint(self, trainer: L.Trainer) -> None:
        module = module_of(trainer)
        clips = self._clips
        if module.wan.spread.lockstep:
            clips = trainer.strategy.broadcast([clip.to(torch.device("cpu")) for clip in clips])
        # all before the first file: a process that fails to write would leave the others waiting for it
        painted = [self._sample(trainer, clip.to(module.device), number) for number, clip in enumerate(clips)]
        if self._clips:
            vae = self._load_vae(module, device=module.device)
            for number, (clip, latents) in enumerate(zip(self._clips, painted, strict=True)):
                self._write(trainer, vae, clip, latents, number)

    def _sample(self, trainer: L.Trainer, clip: Batch, number: int) -> Float[Tensor, "c f h w"]:
        module = module_of(trainer)
        negative = data_of(trainer).data.reader.dataset.constants.negative_prompt
        latents: Tensor = generate(
            module.wan,
            vace_context=clip.vace_context.float(),
            prompt_embeds=clip.prompt_embeds.float(),
            negative_prompt_embeds=negative[None].to(module.device, torch.float32),
            reference=clip.reference.float() if bool(clip.use_reference[0]) else None,
            noise=number,
            settings=self.settings,
        )
        return latents[0]

    def _write(
        self, trainer: L.Trainer, vae: WanVae, clip: Batch, latents: Float[Tensor, "c f h w"], number: int
    ) -> None:
        fps = float(data_of(trainer).info.settings["fps"])
        channels = module_of(trainer).wan.geometry.latent_channels
        panels = [clip.vace_context[0, channels : 2 * channels], latents]
        panels += [clip.latents[0]] if self.show_original else []
        frames = torch.cat([vae.decode_video(panel.float()) for panel in panels], dim=2)
        step = trainer.global_step
        folder = Path(trainer.default_root_dir) / "previews"
        folder.mkdir(parents=True, exist_ok=True)
        write_video(folder / f"step-{step:06d}-clip-{number}.mp4", frames, fps)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                show_animation(logger, f"preview/clip-{number}", frames, fps=fps, step=step)


def show_animation(
    logger: TensorBoardLogger, tag: str, frames: UInt8[Tensor, "t h w 3"], *, fps: float, step: int
) -> None:
    """Write frames to TensorBoard as an animated GIF, which it plays among the images."""
    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import Summary

    pictures = [Image.fromarray(frame.numpy()) for frame in frames]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer, format="GIF", save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0
    )
    height, width = frames.shape[1:3]
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=buffer.getvalue())
    writer = logger.experiment._get_file_writer()
    writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
