"""The training loop: step, validate, keep what is best, and survive what goes wrong."""

from __future__ import annotations

import copy
import json
import logging
import math
import signal
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srcli import __version__
from srcli.errors import (
    InputError,
    OutputError,
    TrainingStoppedError,
    TrainingTerminatedError,
    UsageError,
)
from srcli.models.base import SRModel
from srcli.pretrained.weight_file import save_weights
from srcli.progress import SILENT, Progress
from srcli.storage import quote_path
from srcli.training.checkpoint import check_network, save_checkpoint
from srcli.training.data import CropSampler
from srcli.training.distributed import ALONE, World, catch_stops
from srcli.training.gradients import Crops, Gradients
from srcli.training.log import Journal, read_history
from srcli.training.optimizer import (
    Average,
    Plateau,
    clip_gradients,
    load_state,
    make_optimizer,
)
from srcli.training.recipe import Recipe, make_recipe
from srcli.training.teacher import describe_facts, read_facts
from srcli.training.validation import Validator
from srcli.units import format_count
from srcli.writing import make_folder, write_whole

log = logging.getLogger(__name__)

_REPORT_EVERY = 100  # steps
_MOST_SETBACKS = 8  # in a row, each with half the learning rate
GIVEN_UP = "given up: no learning rate helps"  # the event of a diverged run


class DivergedError(UsageError):
    """The loss stayed no number, whatever the learning rate; a checkpoint is there."""


class Trainer:
    """A network in training, and its run's folder, which the main process writes.

    Args:
        model: On its device, with the recursion limit to begin at.
        recipe: How to train it.
        sampler: Where crops come from, on the same device.
        folder: The run's; made if missing.
        validate: Measures a network; called every `recipe.validate_every` steps.
        precision: dtype of the forward pass under autocast; float32 turns it off.
        world: The processes that share the steps' crops.
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
        world: World = ALONE,
        progress: Progress = SILENT,
    ) -> None:
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model.recompute = recipe.recompute
        self.recipe, self.sampler, self.folder = recipe, sampler, folder
        self.validate, self.world, self.progress = validate, world, progress
        self.gradients = Gradients(model, recipe, precision)
        self.optimizer = make_optimizer(model, recipe)
        self.average = Average(model, recipe.ema)
        self.plateau = Plateau(recipe)
        self.step = 0
        self.seconds = 0.0  # wall clock of all calls
        self.reserve = 0.0  # of a time budget, the seconds that the end will take
        self.caution = 1.0  # falls by half whenever the loss is no number
        self.setbacks = 0  # since the last checkpoint that the recipe asked for
        self.best: dict[str, float] = {}  # PSNR in dB by scale, and their mean
        self.best_step = 0
        # Everyone's that have taught, also before a run was gone on with.
        self.taught_by = sampler.taught_by
        # Seconds spent on drawing crops, in all; None where a GPU does it meanwhile.
        self.drawing = 0.0 if sampler.device.type == "cpu" else None
        self._good: dict[str, Any] = {}  # the last checkpoint
        self._journal = Journal(None, 0)
        self._note = ""
        self._first = 0  # step of this call
        self._begun = 0.0  # when it would have begun, had it taken all of `seconds`
        # Where the schedule stood when a time budget's run last did what is due.
        self._done = {"validate_every": 0.0, "checkpoint_every": 0.0}
        # Sums over the steps since the last report; the loss stays on its device.
        self._loss: Tensor = torch.zeros((), device=sampler.device)
        self._counted: int = 0
        self._spent: float = 0.0  # seconds
        self._drawn: float | None = None  # what `drawing` was then

    @property
    def position(self) -> float:
        """Where the schedule stands, as one of the recipe's steps."""
        return self.recipe.position(self.step, self.seconds + self.reserve)

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        factor = self.plateau.factor * self.caution
        return self.recipe.learning_rate_at(self.position) * factor

    @property
    def finished(self) -> bool:
        """Whether steps or time are used up, or the plateau has ended the run."""
        return self.position >= self.recipe.steps or self.plateau.is_over

    @property
    def has_just_finished(self) -> bool:
        """Whether the last step was one of this call."""
        return self.finished and self.step > self._first

    # A step

    def train_step(self) -> Tensor:
        """Draw crops, take one optimiser step; returns this process's part of the loss.

        The loss stays on the device, a scalar: reading it would make the processor wait
        for a GPU that it should be ahead of.
        """
        self._deepen()
        rate = self.rate
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        begun = time.perf_counter()
        crops = self._draw()
        if self.drawing is not None:
            self.drawing += time.perf_counter() - begun
        loss = self.gradients.compute(crops, self.recipe.alpha_at(self.position))
        self.world.sum_gradients(self.model.parameters())
        clip_gradients(self.model, self.recipe, rate)
        self.optimizer.step()
        self.average.update()
        self.step += 1
        return loss

    def _draw(self) -> list[Crops]:
        counts = self.recipe.divide_batch(self.sampler.draw_scales())
        every = sum(counts.values())
        drawn = [(s, *self.sampler.draw(s, count)) for s, count in counts.items()]
        return [Crops(s, lr, hr, len(lr) / every) for s, lr, hr in drawn if len(lr)]

    def _deepen(self) -> None:
        """Let as many recursions run as the recipe asks for; never fewer than before.

        Fewer would throw away what the later ones have learned.
        """
        now = self.model.recursion_limit
        limit = self.recipe.recursions_at(self.position)
        if now is not None and (limit is None or limit > now):
            before = {k: v.clone() for k, v in self.model.state_dict().items()}
            self.model.limit_recursions(limit)
            after = self.model.state_dict()
            if not all(torch.equal(before[name], after[name]) for name in after):
                self.average.restart()  # it would mix two networks

    # What resumes a run

    def state(self) -> dict[str, Any]:
        """Everything that decides the steps to come, as tensors and plain values."""
        device = self.sampler.device
        cuda = device.type == "cuda"
        return {
            "srcli": __version__,
            "step": self.step,
            "seconds": self.seconds,
            "recipe": self.recipe.as_dict(),
            "config": self.model.config.as_dict(),
            "recursions": self.model.recursion_limit,
            "data": self.sampler.fingerprint,
            "model": self.model.state_dict(),
            "average": self.average.values,
            "average_updates": self.average.updates,
            "optimizer": self.optimizer.state_dict(),
            "sampler": self.sampler.generator.get_state(),
            "scales": self.sampler.scale_generator.get_state(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(device) if cuda else None,
            "caution": self.caution,
            "rate_factor": self.plateau.factor,
            "plateau_step": self.plateau.step,
            "plateau_best": self.plateau.best,
            "best": self.best,
            "best_step": self.best_step,
            "setbacks": self.setbacks,
            **describe_facts(self.taught_by),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` described.

        Raises:
            UsageError: If the checkpoint is of another network.
            InputError: If it is of another version of srcli.
        """
        check_network(state, self.recipe.model, self.model)
        if missing := self.state().keys() - state.keys() - {"teachers"}:
            raise InputError(
                f"the checkpoint lacks {', '.join(sorted(missing))}: another version "
                "of srcli wrote it; --init FILE begins a new run from its weights"
            )
        before = make_recipe(state["recipe"], "the checkpoint's recipe")
        if state["data"] != self.sampler.fingerprint:
            log.warning("the training pictures are not those of the checkpoint")
        self.taught_by = tuple(dict.fromkeys((*read_facts(state), *self.taught_by)))
        self.step, self.seconds = state["step"], state["seconds"]
        # More steps in all would ask for fewer recursions at this one. The limit comes
        # first, since a raise may change weights.
        self.model.limit_recursions(state["recursions"])
        self.model.load_state_dict(state["model"])
        for name, value in state["average"].items():
            self.average.values[name].copy_(value)
        self.average.updates = state["average_updates"]
        if before.optimizer == self.recipe.optimizer:
            load_state(self.optimizer, state["optimizer"])
        else:
            log.warning("another optimiser than the checkpoint's: it begins anew")
        self._restore_random(state)
        self.plateau.step, self.plateau.best = (
            state["plateau_step"],
            state["plateau_best"],
        )
        self.caution, self.plateau.factor = state["caution"], state["rate_factor"]
        if before.learning_rate != self.recipe.learning_rate:
            # Whoever asks for a rate means the rate of the next step.
            self.caution = self.plateau.factor = 1.0
        self.best, self.best_step = dict(state["best"]), state["best_step"]
        # Another recipe may be what helps.
        self.setbacks = state["setbacks"] if before == self.recipe else 0

    def _restore_random(self, state: dict[str, Any]) -> None:
        generator, kept = self.sampler.generator, state["sampler"]
        if kept.shape == generator.get_state().shape:
            generator.set_state(kept)
        else:
            log.warning("the checkpoint is of another kind of device: other crops now")
            self._draw_others()
        self.sampler.scale_generator.set_state(state["scales"])
        torch.set_rng_state(state["torch_rng"])
        if state["cuda_rng"] is not None and self.sampler.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], self.sampler.device)

    def _draw_others(self) -> None:
        """Let the crops to come be others than those that would have been drawn."""
        for generator in (self.sampler.generator, self.sampler.scale_generator):
            generator.manual_seed((generator.initial_seed() + self.step + 1) % 2**63)

    def forget_best(self) -> None:
        """Compare no more with figures that were measured on something else."""
        self.best, self.best_step = {}, 0
        self.plateau.best, self.plateau.step = -math.inf, self.step
        log.warning("validated on something else than before: the best begins anew")

    # A run

    def run(self, max_minutes: float | None = None, begun: float | None = None) -> None:
        """Train to the recipe's last step or a limit, and write a checkpoint.

        Args:
            max_minutes: Wall clock for the steps of this call.
            begun: When this call began, by `time.perf_counter`, which is what a time
                budget counts from; None: now.

        Raises:
            TrainingStoppedError: After Ctrl-C or SIGTERM, with the checkpoint written.
            OutputError: If the folder cannot be written; the last checkpoint is whole.
            DivergedError: If the loss is no number again and again.
        """
        try:
            self._open()
            self._first = self.step
            self._begun = (
                time.perf_counter() if begun is None else begun
            ) - self.seconds
            self._tell_time()
            self._done = dict.fromkeys(self._done, self.position)
            if self.finished and self.step == 0:
                raise UsageError("the time was over before the first step: allow more")
            self._start_bar()
            with catch_stops() as received:
                stopped = self._take_steps(max_minutes, received)
                self._close(measure=stopped is None)
                # One that came meanwhile counts as well.
                stopped = stopped or self.world.any_signal(max(received, default=None))
        except OutputError as error:
            if not self._good:
                raise
            kept = f"the checkpoint of step {self._good['step']} is whole"
            raise OutputError(f"{error}; {kept}: --resume goes on") from error
        finally:
            self._journal.close()
        if stopped is not None:
            terminated = stopped == signal.SIGTERM
            kind = TrainingTerminatedError if terminated else TrainingStoppedError
            raise kind(
                f"{'terminated' if terminated else 'interrupted'} at step {self.step}: "
                f"`srcli train -m {self.recipe.model} --resume "
                f"--out {quote_path(self.folder)}` goes on"
            )

    def _open(self) -> None:
        """Begin the folder's records; a disk that cannot be written shows at once."""
        if self.world.is_main:
            make_folder(self.folder)
            self._journal = Journal(self.folder, self.step)
            text = json.dumps(self.recipe.as_dict(), indent=2) + "\n"
            with write_whole(self.folder / "recipe.json") as part:
                part.write_text(text, "utf-8")
        if self.step == 0:
            self._save()
        else:
            self._good = copy.deepcopy(self.state())

    def _close(self, *, measure: bool) -> None:
        """Keep what the last steps came to."""
        if not self._has_finite_weights():
            self._fall_back()
        # A call before this one may have been killed between the last step and this.
        new = self.step not in read_history(self.folder).validations
        if measure and self.world.share(new):
            self._validate()
        self._save()
        with self.average.applied(self.model):
            self._keep("last.safetensors")

    def _save(self) -> None:
        """Write a checkpoint, which is also what the run would fall back to."""
        state = copy.deepcopy(self.state())
        if self.world.is_main:
            save_checkpoint(self.folder, state)
        self._good = state

    def _keep(self, name: str) -> None:
        """Write the network's present weights as a file that tells their story."""
        count = self.sampler.count
        story = {
            "recipe": json.dumps(self.recipe.as_dict()),
            "recipe_hash": self.recipe.fingerprint,
            "data": f"{format_count(count, 'picture')}, {self.sampler.fingerprint}",
            "steps": str(self.step),
            **describe_facts(self.taught_by),
        }
        if self.world.is_main:
            save_weights(self.model, self.folder / name, story)

    def _take_steps(self, max_minutes: float | None, received: list[int]) -> int | None:
        """Take steps until there is a reason to stop; the signal, if that was one."""
        started = time.perf_counter()
        self._count_anew()
        self.model.train()
        while not self.finished:
            if stopped := self.world.any_signal(max(received, default=None)):
                return stopped
            begun, seconds = time.perf_counter(), self.seconds
            self._loss = self._loss + self.train_step()
            self._counted += 1
            self._tell_time()
            self.progress.advance(self.seconds - seconds if self.recipe.minutes else 1)
            due = self._list_due()
            sound = self._is_sound(keeping=bool(due) or self.finished)
            self._spent += time.perf_counter() - begun
            if sound:
                self._attend(due)
            else:
                self._fall_back()
            minutes = (time.perf_counter() - started) / 60
            if (
                max_minutes is not None
                and self.world.agree([minutes >= max_minutes])[0]
            ):
                log.info("stopped after %.1f minutes at step %d", minutes, self.step)
                break
        return None

    def _tell_time(self) -> None:
        """Note how much time is spent; where the schedule follows it, all alike."""
        self.seconds = time.perf_counter() - self._begun
        if self.recipe.minutes:
            milliseconds = round(1000 * self.seconds)
            self.seconds = self.world.agree([milliseconds])[0] / 1000

    def _list_due(self) -> list[str]:
        """What the recipe wants after this step: to validate, to keep a checkpoint."""
        recipe, every = self.recipe, {n: getattr(self.recipe, n) for n in self._done}
        if not recipe.minutes:
            return [name for name in every if self.step % every[name] == 0]
        # No more than a tenth of the time goes into validations.
        least, now = recipe.position(0, 10 * self.reserve), self.position
        due = [n for n in every if now - self._done[n] >= max(every[n], least)]
        self._done |= dict.fromkeys(due, now)
        return due

    def _start_bar(self) -> None:
        """Show how far the run is, in steps or in seconds of its time."""
        if self.recipe.minutes:
            self.progress.start("Training (seconds)", round(60 * self.recipe.minutes))
            self.progress.advance(self.seconds)
        else:
            self.progress.start("Training", self.recipe.steps)
            self.progress.advance(self.step)

    def _is_sound(self, *, keeping: bool) -> bool:
        """Whether loss and weights are numbers; asked only where it costs nothing.

        A GPU would stand still while its loss is read: there it is read with the
        reports, and before anything is kept.
        """
        waits = self.sampler.device.type != "cpu"
        if waits and self.step % _REPORT_EVERY and not keeping:
            return True
        if not math.isfinite(float(self.world.sum_scalar(self._loss))):
            return False
        # A gradient can overflow where the loss did not.
        return not keeping or self._has_finite_weights()

    def _has_finite_weights(self) -> bool:
        return all(bool(w.isfinite().all()) for w in self.model.parameters())

    def _attend(self, due: list[str]) -> None:
        """Do what is due after a step."""
        if self.step % _REPORT_EVERY == 0:
            self._report()
        if "validate_every" in due and (mean := self._validate()) is not None:
            self.plateau.watch(self.step, mean)
        if "checkpoint_every" in due:
            self.setbacks = 0
            self._save()

    def _fall_back(self) -> None:
        """Go back to the last checkpoint, with half its rate and other crops."""
        failed, setbacks = self.step, self.setbacks + 1
        best, best_step = self.best, self.best_step
        self.restore(self._good)
        self.best, self.best_step = best, best_step  # whose file is still there
        if setbacks > _MOST_SETBACKS:
            self._journal.write(self.step, event=GIVEN_UP)
            raise DivergedError(
                f"the loss is no number any more at step {failed}, whatever the "
                f"learning rate: {self.folder} keeps the checkpoint of step "
                f"{self.step}; other settings of the recipe may help (--set)"
            )
        self.setbacks = setbacks
        self.caution *= 0.5
        self._draw_others()
        text = (
            f"the loss is no number any more at step {failed}: back to step "
            f"{self.step} with half the learning rate ({self.rate:.3g})"
        )
        log.warning("%s", text)
        self._journal.write(self.step, event=text)
        self._count_anew()
        self._start_bar()
        self._save()

    def _count_anew(self) -> None:
        """Begin the sums that the next report is made of."""
        self._loss = torch.zeros_like(self._loss)
        self._counted, self._spent, self._drawn = 0, 0.0, self.drawing

    def _report(self) -> None:
        """Log what the steps since the last report came to."""
        loss = float(self.world.sum_scalar(self._loss)) / self._counted
        values = {
            "loss": loss,
            "rate": self.optimizer.param_groups[0]["lr"],
            "seconds_per_step": self._spent / self._counted,
        }
        if self.drawing is not None and self._drawn is not None:
            values["data_share"] = (self.drawing - self._drawn) / max(self._spent, 1e-9)
        self._journal.write(self.step, **values)
        self._count_anew()
        self._note = f"loss {loss:.5f}"
        self._show()

    def _show(self) -> None:
        """Loss and best PSNR beside the progress bar."""
        best = f", best {self.best['mean']:.2f} dB" if self.best else ""
        self.progress.note(self._note + best)

    def _validate(self) -> float | None:
        """The averaged weights' mean PSNR, dB; kept if it is the best."""
        if self.validate is None:
            return None
        begun = time.perf_counter()
        with self.average.applied(self.model):
            psnr = self.validate(self.model) if self.world.is_main else {}
            took = time.perf_counter() - begun
            psnr, self.reserve = self.world.share((psnr, took))
            mean = sum(psnr.values()) / len(psnr)
            self._journal.write(self.step, psnr=psnr)
            named = {f"x{scale}": value for scale, value in psnr.items()}
            texts = (f"{name} {value:.3f} dB" for name, value in named.items())
            log.info("step %d: %s", self.step, ", ".join(texts))
            if mean > self.best.get("mean", -math.inf):
                self.best, self.best_step = {"mean": mean, **named}, self.step
                self._keep("best.safetensors")
        self._show()
        return mean
