"""The training loop: step, validate, keep what is best, and survive what goes wrong."""

from __future__ import annotations

import copy
import json
import logging
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from srcli.errors import (
    OutputError,
    TrainingStoppedError,
    TrainingTerminatedError,
    UsageError,
)
from srcli.models.base import SRModel
from srcli.pretrained.weight_file import save_weights
from srcli.progress import SILENT, Progress
from srcli.storage import quote_path
from srcli.training.checkpoint import save_checkpoint
from srcli.training.data import CropSampler
from srcli.training.distributed import ALONE, World
from srcli.training.learner import Learner
from srcli.training.log import Journal, StepTotals, read_history
from srcli.training.recipe import Recipe, make_recipe
from srcli.training.validation import Validator
from srcli.writing import make_folder, write_whole

log = logging.getLogger(__name__)

_REPORT_EVERY = 100  # steps
_MOST_SETBACKS = 8  # in a row, each with half the learning rate
GIVEN_UP = "given up: no learning rate helps"  # the event of a diverged run


class DivergedError(UsageError):
    """The loss stayed no number, whatever the learning rate; a checkpoint is there."""


@contextmanager
def catch_stops() -> Iterator[list[int]]:
    """SIGINT and SIGTERM, gathered in the list instead of ending the process."""
    received: list[int] = []
    before: dict[int, Any] = {}
    # Only the main thread can catch signals; elsewhere they are its affair.
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, lambda got, _: received.append(got))
    try:
        yield received
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)


class Trainer(Learner):
    """One run: a learner and the folder it lives in, which the main process writes.

    Args:
        model: As for a learner, like `recipe`, `sampler`, `precision` and `world`.
        folder: The run's folder; made if missing.
        validate: Measures a network; called every `recipe.validate_every` steps.
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
        super().__init__(model, recipe, sampler, precision=precision, world=world)
        self.folder = folder
        self.validate = validate
        self.progress = progress
        self.best: dict[str, float] = {}
        self.best_step = 0
        self.setbacks = 0  # since the last checkpoint that the recipe asked for
        self._good: dict[str, Any] = {}  # the last checkpoint
        self._journal = Journal(None, 0)
        self._tally = StepTotals()
        self._note = ""
        self._first = 0  # step of this call
        self._begun = 0.0  # when it began, by `time.perf_counter`
        self._earlier = 0.0  # seconds of the calls before this one
        # Where the schedule stood when a time budget's run last did what is due.
        self._done = {"validate_every": 0.0, "checkpoint_every": 0.0}

    def state(self) -> dict[str, Any]:
        """The learner's state, and what the run has found so far."""
        return {
            **super().state(),
            "best": self.best,
            "best_step": self.best_step,
            "setbacks": self.setbacks,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` described.

        Raises:
            UsageError: If the checkpoint is of another network.
        """
        super().restore(state)
        self.best, self.best_step = dict(state["best"]), state["best_step"]
        # Another recipe may be what helps.
        same = make_recipe(state["recipe"]) == self.recipe
        self.setbacks = state["setbacks"] if same else 0

    def forget_best(self) -> None:
        """Compare no more with figures that were measured on something else."""
        self.best, self.best_step = {}, 0
        self.plateau.best, self.plateau.step = -math.inf, self.step
        log.warning("validated on something else than before: the best begins anew")

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
            self._earlier = self.seconds
            self._begun = time.perf_counter() if begun is None else begun
            self._tell_time()
            self._done = dict.fromkeys(self._done, self.position)
            if self.finished and self.step == 0:
                raise UsageError("the time was over before the first step: allow more")
            self._start_bar()
            with catch_stops() as received:
                stopped = self._steps(max_minutes, received)
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

    def _close(self, *, measure: bool) -> None:
        """Keep what the last steps came to."""
        if not self.has_finite_weights():
            self._fall_back()
        # A call before this one may have been killed between the last step and this.
        new = self.step not in read_history(self.folder).validations
        if measure and self.world.share(new):
            self._validate()
        self._save()
        with self.average.applied(self.model):
            self._keep("last.safetensors")

    def _keep(self, name: str) -> None:
        """Write the network's present weights as a weight file."""
        if self.world.is_main:
            save_weights(self.model, self.folder / name, self.story)

    @property
    def has_just_finished(self) -> bool:
        """Whether the last step was one of this call."""
        return self.finished and self.step > self._first

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

    def _save(self) -> None:
        """Write a checkpoint, which is also what the run would fall back to."""
        state = copy.deepcopy(self.state())
        if self.world.is_main:
            save_checkpoint(self.folder, state)
        self._good = state

    def _steps(self, max_minutes: float | None, received: list[int]) -> int | None:
        """Take steps until there is a reason to stop; the signal, if that was one."""
        started = time.perf_counter()
        self._tally = StepTotals(self.drawing)
        self.model.train()
        while not self.finished:
            if stopped := self.world.any_signal(max(received, default=None)):
                return stopped
            begun = time.perf_counter()
            seconds = self.seconds
            self._tally.add(self.train_step())
            self._tell_time()
            timed = self.recipe.minutes > 0
            self.progress.advance(self.seconds - seconds if timed else 1)
            due = self._list_due()
            sound = self._is_sound(keeping=bool(due) or self.finished)
            self._tally.seconds += time.perf_counter() - begun
            if sound:
                self._attend(due)
            else:
                self._fall_back()
            spent = (time.perf_counter() - started) / 60
            if max_minutes is not None and self.world.agree([spent >= max_minutes])[0]:
                log.info("stopped after %.1f minutes at step %d", spent, self.step)
                break
        return None

    def _tell_time(self) -> None:
        """Note how much time is spent; where the schedule follows it, all alike."""
        self.seconds = self._earlier + time.perf_counter() - self._begun
        if self.recipe.minutes:
            milliseconds = round(1000 * self.seconds)
            self.seconds = self.world.agree([milliseconds])[0] / 1000

    def _list_due(self) -> list[str]:
        """What the recipe wants after this step: to validate, to keep a checkpoint."""
        recipe, names = self.recipe, ("validate_every", "checkpoint_every")
        if not recipe.minutes:
            return [name for name in names if self.step % getattr(recipe, name) == 0]
        # No more than a tenth of the time goes into validations.
        least = recipe.position(0, 10 * self.reserve)
        due = [
            name
            for name in names
            if self.position - self._done[name] >= max(getattr(recipe, name), least)
        ]
        self._done |= dict.fromkeys(due, self.position)
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
        if not math.isfinite(float(self.world.sum_scalar(self._tally.loss))):
            return False
        # A gradient can overflow where the loss did not.
        return not keeping or self.has_finite_weights()

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
        self.draw_others()
        text = (
            f"the loss is no number any more at step {failed}: back to step "
            f"{self.step} with half the learning rate ({self.rate:.3g})"
        )
        log.warning("%s", text)
        self._journal.write(self.step, event=text)
        self._tally = StepTotals(self.drawing)
        self._start_bar()
        self._save()

    def _report(self) -> None:
        """Log what the steps since the last report came to."""
        tally, self._tally = self._tally, StepTotals(self.drawing)
        loss = float(self.world.sum_scalar(tally.loss)) / tally.steps
        values = {
            "loss": loss,
            "rate": self.optimizer.param_groups[0]["lr"],
            "seconds_per_step": tally.seconds / tally.steps,
        }
        if (share := tally.data_share(self.drawing)) is not None:
            values["data_share"] = share
        self._journal.write(self.step, **values)
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
