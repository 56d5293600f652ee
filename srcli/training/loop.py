"""The training loop: draw, step, average, validate, keep."""

from __future__ import annotations

import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srcli import __version__
from srcli.errors import UsageError
from srcli.models.base import SRModel
from srcli.pretrained.catalog import save_weights
from srcli.progress import SILENT, Progress
from srcli.training.average import Average
from srcli.training.checkpoint import check_network, save_checkpoint
from srcli.training.data import CropSampler
from srcli.training.journal import Journal, Tally
from srcli.training.losses import Norm, supervised_loss
from srcli.training.optimizer import clip_gradients, load_state, make_optimizer
from srcli.training.plateau import Plateau
from srcli.training.recipe import Recipe, make_recipe
from srcli.training.stopping import StopSignals
from srcli.training.validation import Validator
from srcli.writing import make_folder, write_whole

log = logging.getLogger(__name__)

_REPORT_EVERY = 100  # steps


class Trainer:
    """One run: a network, a recipe, its pictures, and the folder it lives in.

    Args:
        model: The network, already on the device, with the recursion limit to begin at.
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
        self.plateau = Plateau(recipe)
        self.best: dict[str, float] = {}
        self.best_step = 0

    def state(self) -> dict[str, Any]:
        """Everything that decides the steps to come, as tensors and plain values."""
        device = self.sampler.device
        cuda = device.type == "cuda"
        return {
            "srcli": __version__,
            "step": self.step,
            "recipe": self.recipe.as_dict(),
            "config": self.model.config.as_dict(),
            "recursions": self.model.recursion_limit,
            "data": self.sampler.fingerprint,
            "model": self.model.state_dict(),
            "average": self.average.values,
            "average_updates": self.average.updates,
            "optimizer": self.optimizer.state_dict(),
            "sampler": self.sampler.generator.get_state(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(device) if cuda else None,
            "rate_factor": self.plateau.factor,
            "plateau_step": self.plateau.step,
            "plateau_best": self.plateau.best,
            "best": self.best,
            "best_step": self.best_step,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` described.

        Raises:
            UsageError: If the checkpoint is of another network.
        """
        check_network(state, self.recipe.model, self.model)
        before = make_recipe(state["recipe"], "the checkpoint's recipe")
        if state["data"] != self.sampler.fingerprint:
            log.warning("the training pictures are not those of the checkpoint")
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        # More steps in all would ask for fewer recursions at this one.
        reached = before.recursions_at(max(0, self.step - 1))
        self.model.limit_recursions(state.get("recursions", reached))
        for name, value in state["average"].items():
            self.average.values[name].copy_(value)
        self.average.updates = state["average_updates"]
        if before.optimizer == self.recipe.optimizer:
            load_state(self.optimizer, state["optimizer"])
        else:
            log.warning("another optimiser than the checkpoint's: it begins anew")
        self._restore_random(state)
        self.best = dict(state["best"])
        self.best_step = state["best_step"]
        self.plateau.factor = state["rate_factor"]
        self.plateau.step = state["plateau_step"]
        best = self.best.get("mean", -math.inf)
        self.plateau.best = state.get("plateau_best", best)
        log.info("resumed %s at step %d", self.folder, self.step)

    def _restore_random(self, state: dict[str, Any]) -> None:
        generator, kept = self.sampler.generator, state["sampler"]
        if kept.shape == generator.get_state().shape:
            generator.set_state(kept)
        else:
            log.warning("the checkpoint is of another kind of device: other crops now")
            generator.manual_seed(generator.initial_seed() + self.step)
        torch.set_rng_state(state["torch_rng"])
        if state["cuda_rng"] is not None and self.sampler.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], self.sampler.device)

    def train_step(self) -> float:
        """Draw a batch, take one optimiser step; returns the loss.

        Raises:
            UsageError: If the loss is no number any more; the step is not taken.
        """
        recipe = self.recipe
        self._deepen()
        rate = recipe.learning_rate_at(self.step) * self.plateau.factor
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        batches = recipe.divide_batch(self.sampler.draw_scales())
        crops = sum(batches.values())
        total = 0.0
        for scale, count in batches.items():
            lr, hr = self.sampler.draw(scale, count)
            loss = self._loss(lr, hr, scale) * (count / crops)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        if not math.isfinite(total):
            raise UsageError(
                f"the loss is no number any more at step {self.step}: a lower "
                "learning_rate may help, also with --resume from the last checkpoint"
            )
        clip_gradients(self.model, recipe, rate)
        self.optimizer.step()
        self.average.update(self.model)
        self.step += 1
        return total

    def _deepen(self) -> None:
        """Let as many recursions run as the recipe asks for; never fewer than before.

        Fewer would throw away what the later ones have learned.
        """
        now = self.model.recursion_limit
        limit = self.recipe.recursions_at(self.step)
        if now is not None and (limit is None or limit > now):
            self.model.limit_recursions(limit)

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

    def run(self, max_minutes: float | None = None) -> None:
        """Train to the recipe's last step or a limit; always ends with a checkpoint.

        Args:
            max_minutes: Wall clock for the steps of this call.

        Raises:
            TrainingStoppedError: After Ctrl-C or SIGTERM, with the checkpoint written.
            OutputError: If the folder cannot be written.
            UsageError: If the loss is no number any more.
        """
        make_folder(self.folder)
        journal = Journal(self.folder / "log.jsonl", self.step)
        with write_whole(self.folder / "recipe.json") as part:
            text = json.dumps(self.recipe.as_dict(), indent=2)
            part.write_text(text + "\n", "utf-8")
        self.progress.start("Training", self.recipe.steps)
        self.progress.advance(self.step)
        first = self.step
        if self.finished:
            log.info("%s has done its %d steps", self.folder, self.step)
        with StopSignals() as signals:
            self._steps(max_minutes, journal, signals)
            unmeasured = self.step > first and self.step % self.recipe.validate_every
            if unmeasured and signals.received is None:
                self._validate(journal)
            save_checkpoint(self.folder, self.state())
            with self.average.applied(self.model):
                self._export(self.folder / "last.safetensors")
        signals.raise_received(
            f"at step {self.step}: `srcli train -m {self.recipe.model} --resume "
            f"--out {self.folder}` goes on"
        )

    def _steps(
        self, max_minutes: float | None, journal: Journal, signals: StopSignals
    ) -> None:
        started = time.monotonic()
        tally = Tally()
        self.model.train()
        while not self.finished and signals.received is None:
            begun = time.monotonic()
            loss = self.train_step()
            tally.add(loss, time.monotonic() - begun)
            self.progress.advance()
            if self.step % _REPORT_EVERY == 0:
                self._report(journal, tally)
            if self.step % self.recipe.validate_every == 0:
                mean = self._validate(journal)
                if mean is not None:
                    self.plateau.watch(self.step, mean)
            if self.step % self.recipe.checkpoint_every == 0:
                save_checkpoint(self.folder, self.state())
            minutes = (time.monotonic() - started) / 60
            if max_minutes is not None and minutes >= max_minutes:
                log.info("stopped after %.1f minutes at step %d", minutes, self.step)
                break

    def _report(self, journal: Journal, tally: Tally) -> None:
        loss, seconds = tally.read()
        rate = self.optimizer.param_groups[0]["lr"]
        journal.write(step=self.step, loss=loss, rate=rate, seconds_per_step=seconds)
        self.progress.note(f"loss {loss:.5f}")

    def _validate(self, journal: Journal) -> float | None:
        """The averaged weights' mean PSNR, dB; they are kept if it is the best."""
        if self.validate is None:
            return None
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
                self.best_step = self.step
                self._export(self.folder / "best.safetensors")
        return mean

    @property
    def finished(self) -> bool:
        """Whether the recipe's last step is done, or its plateau has ended the run."""
        return self.step >= self.recipe.steps or self.plateau.is_over

    def _export(self, path: Path) -> None:
        """Write the network's present weights as a weight file."""
        metadata = {
            "recipe": json.dumps(self.recipe.as_dict()),
            "recipe_hash": self.recipe.fingerprint,
            "data": f"{self.sampler.count} pictures, {self.sampler.fingerprint}",
            "steps": str(self.step),
        }
        save_weights(self.model, path, metadata)
