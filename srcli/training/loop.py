"""The training loop: draw, step, average, validate, keep."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srcli import __version__
from srcli.errors import OutputError, SrcliError, UsageError
from srcli.models.base import SRModel
from srcli.pretrained.catalog import save_weights
from srcli.progress import SILENT, Progress
from srcli.training.average import Average
from srcli.training.checkpoint import load_checkpoint, save_checkpoint
from srcli.training.data import CropSampler
from srcli.training.journal import Journal
from srcli.training.losses import Norm, supervised_loss
from srcli.training.optimizer import clip_gradients, make_optimizer
from srcli.training.recipe import Recipe
from srcli.training.stopping import StopSignals

log = logging.getLogger(__name__)

# Mean PSNR in dB by scale, of a network in evaluation mode.
Validator = Callable[[SRModel], dict[int, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a run ends, besides the recipe's last step."""

    max_minutes: float | None = None  # wall clock, of this call


class Trainer:
    """One run: a network, a recipe, its pictures, and the folder it lives in.

    Args:
        model: The network, already on the device.
        recipe: How to train it.
        sampler: Where crops come from, on the same device.
        folder: The run's folder; made if missing.
        validate: Measures a network; called every `recipe.validate_every` steps.
        precision: dtype of the forward pass under autocast; float32 turns it off.
        progress: Told about every step.
    """

    def __init__(
        self,
        model: SRModel,
        recipe: Recipe,
        sampler: CropSampler,
        folder: Path,
        *,
        validate: Validator | None = None,
        precision: torch.dtype = torch.float32,
        progress: Progress = SILENT,
    ) -> None:
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.recipe = recipe
        self.sampler = sampler
        self.folder = folder
        self.validate = validate
        self.precision = precision
        self.progress = progress
        self.optimizer = make_optimizer(model, recipe)
        self.average = Average(model, recipe.ema)
        self.step = 0
        self.rate_factor = 1.0  # what a plateau has taken off the learning rate
        self.plateau_step = 0  # when it last did, or when the best came
        self.best: dict[str, float] = {}
        self.best_step = 0

    # -- state -----------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything that decides the steps to come, as tensors and plain values."""
        device = self.sampler.device
        cuda = device.type == "cuda"
        return {
            "srcli": __version__,
            "step": self.step,
            "recipe": self.recipe.as_dict(),
            "config": self.model.config.as_dict(),
            "data": self.sampler.fingerprint,
            "model": self.model.state_dict(),
            "average": self.average.values,
            "average_updates": self.average.updates,
            "optimizer": self.optimizer.state_dict(),
            "sampler": self.sampler.generator.get_state(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(device) if cuda else None,
            "rate_factor": self.rate_factor,
            "plateau_step": self.plateau_step,
            "best": self.best,
            "best_step": self.best_step,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` described.

        Raises:
            UsageError: If the checkpoint is of another network.
        """
        if state["recipe"]["model"] != self.recipe.model:
            raise UsageError(
                f"the checkpoint is of {state['recipe']['model']}, "
                f"not of {self.recipe.model}"
            )
        if state["data"] != self.sampler.fingerprint:
            log.warning("the training pictures are not those of the checkpoint")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name, value in state["average"].items():
            self.average.values[name].copy_(value)
        self.average.updates = state["average_updates"]
        self.sampler.generator.set_state(state["sampler"])
        torch.set_rng_state(state["torch_rng"])
        if state["cuda_rng"] is not None and self.sampler.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], self.sampler.device)
        self.step = state["step"]
        self.rate_factor = state["rate_factor"]
        self.plateau_step = state["plateau_step"]
        self.best = dict(state["best"])
        self.best_step = state["best_step"]

    def resume(self) -> None:
        """Go on from the folder's newest checkpoint.

        Raises:
            InputError: If there is none or it is damaged.
        """
        self.restore(load_checkpoint(self.folder))
        log.info("resumed %s at step %d", self.folder, self.step)

    # -- one step --------------------------------------------------------------------

    def train_step(self) -> float:
        """Draw a batch, take one optimiser step; returns the loss."""
        recipe = self.recipe
        limit = recipe.recursions_at(self.step)
        if limit != self.model.recursion_limit:
            self.model.limit_recursions(limit)
        rate = recipe.learning_rate_at(self.step) * self.rate_factor
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        scales = self.sampler.draw_scales()
        total = 0.0
        for scale in scales:
            lr, hr = self.sampler.draw(scale, max(1, recipe.batch // len(scales)))
            loss = self._loss(lr, hr, scale) / len(scales)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        clip_gradients(self.model, recipe, rate)
        self.optimizer.step()
        self.average.update(self.model)
        self.step += 1
        if not math.isfinite(total):
            raise SrcliError(
                f"the loss is no number any more at step {self.step}: resume "
                f"{self.folder} with a lower learning_rate"
            )
        return total

    def _loss(self, lr: Tensor, hr: Tensor, scale: int) -> Tensor:
        autocast = torch.autocast(
            lr.device.type,
            dtype=self.precision,
            enabled=self.precision != torch.float32,
        )
        with autocast:
            if self.recipe.supervision == "final":
                predictions: tuple[Tensor, ...] = (self.model(lr, scale),)
            else:
                predictions = self.model.predictions(lr, scale)
        return supervised_loss(
            predictions,
            hr,
            Norm(self.recipe.loss, self.recipe.reduction),
            self.recipe.supervision,
            self.recipe.alpha_at(self.step),
        )

    # -- the run ---------------------------------------------------------------------

    def run(self, limits: Limits | None = None) -> None:
        """Train to the recipe's last step or a limit; always ends with a checkpoint.

        Raises:
            TrainingStoppedError: After Ctrl-C or SIGTERM, with the checkpoint written.
            OutputError: If the folder cannot be written.
        """
        limits = limits or Limits()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            journal = Journal(self.folder / "log.jsonl", self.step)
            text = json.dumps(self.recipe.as_dict(), indent=2)
            (self.folder / "recipe.json").write_text(text + "\n", "utf-8")
        except OSError as error:
            raise OutputError(f"cannot write to {self.folder}: {error}") from error
        self.progress.start("Training", self.recipe.steps)
        self.progress.advance(self.step)
        with StopSignals() as signals:
            self._steps(limits, journal, signals)
        save_checkpoint(self.folder, self.state())
        with self.average.applied(self.model):
            self._export(self.folder / "last.safetensors")
        signals.raise_received(
            f"at step {self.step}: go on with --resume --out {self.folder}"
        )

    def _steps(self, limits: Limits, journal: Journal, signals: StopSignals) -> None:
        started = time.monotonic()
        since, losses = time.monotonic(), 0.0
        first = self.step
        self.model.train()
        while not self.finished and signals.received is None:
            losses += self.train_step()
            self.progress.advance()
            if self.step % 100 == 0:
                now = time.monotonic()
                count = min(100, self.step - first) or 1
                journal.write(
                    step=self.step,
                    loss=losses / count,
                    rate=self.optimizer.param_groups[0]["lr"],
                    seconds_per_step=(now - since) / count,
                )
                self.progress.note(f"loss {losses / count:.5f}")
                since, losses = now, 0.0
            if self.step % self.recipe.validate_every == 0:
                self._validate(journal)
                since = time.monotonic()
            if self.step % self.recipe.checkpoint_every == 0:
                save_checkpoint(self.folder, self.state())
            minutes = (time.monotonic() - started) / 60
            if limits.max_minutes is not None and minutes >= limits.max_minutes:
                log.info("stopped after %.1f minutes at step %d", minutes, self.step)
                break
        if self.step > first and self.step % self.recipe.validate_every:
            self._validate(journal)

    def _validate(self, journal: Journal) -> None:
        """Measure the averaged weights; keep them if they are the best so far."""
        if self.validate is None:
            return
        with self.average.applied(self.model):
            psnr = self.validate(self.model)
            mean = sum(psnr.values()) / len(psnr)
            journal.write(step=self.step, psnr={str(k): v for k, v in psnr.items()})
            text = ", ".join(
                f"x{scale} {value:.3f} dB" for scale, value in psnr.items()
            )
            log.info("step %d: %s", self.step, text)
            if mean > self.best.get("mean", -math.inf):
                self.best = {"mean": mean, **{f"x{k}": v for k, v in psnr.items()}}
                self.best_step = self.plateau_step = self.step
                self._export(self.folder / "best.safetensors")
        self._watch_plateau()

    def _watch_plateau(self) -> None:
        """Cut the learning rate when validation has not improved for long enough."""
        recipe = self.recipe
        if (
            recipe.schedule == "plateau"
            and self.step - self.plateau_step >= recipe.decay_every
        ):
            self.rate_factor *= recipe.decay_factor
            self.plateau_step = self.step
            log.info("no better: the learning rate is now %.3g times", self.rate_factor)

    @property
    def finished(self) -> bool:
        """Whether the recipe's last step is done, or its plateau has ended the run."""
        rate = self.recipe.learning_rate * self.rate_factor
        return self.step >= self.recipe.steps or rate < self.recipe.min_rate

    def _export(self, path: Path) -> None:
        """Write the network's present weights as a weight file."""
        metadata = {
            "recipe": json.dumps(self.recipe.as_dict()),
            "recipe_hash": self.recipe.fingerprint,
            "data": f"{self.sampler.count} pictures, {self.sampler.fingerprint}",
            "steps": str(self.step),
        }
        save_weights(self.model, path, metadata)
