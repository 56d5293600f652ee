"""What learns: a network with its optimiser and averages, and all that resumes it."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import torch
from torch import Tensor

from srcli import __version__
from srcli.errors import InputError
from srcli.models.base import SRModel
from srcli.training.checkpoint import check_network
from srcli.training.data import CropSampler
from srcli.training.distributed import ALONE, World
from srcli.training.gradients import Crops, Gradients
from srcli.training.optimizer import (
    Average,
    Plateau,
    clip_gradients,
    load_state,
    make_optimizer,
)
from srcli.training.recipe import Recipe, make_recipe
from srcli.training.teacher import describe_facts, read_facts

log = logging.getLogger(__name__)


class Learner:
    """A network in training, one step at a time.

    Args:
        model: The network, already on the device, with the recursion limit to begin at.
        recipe: How to train it.
        sampler: Where crops come from, on the same device.
        precision: dtype of the forward pass under autocast; float32 turns it off.
        world: The processes that share the steps' crops.
    """

    def __init__(
        self,
        model: SRModel,
        recipe: Recipe,
        sampler: CropSampler,
        *,
        precision: torch.dtype = torch.float32,
        world: World = ALONE,
    ) -> None:
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model.recompute = recipe.recompute
        self.recipe = recipe
        self.sampler = sampler
        self.world = world
        self.gradients = Gradients(model, recipe, precision)
        self.optimizer = make_optimizer(model, recipe)
        self.average = Average(model, recipe.ema)
        self.step = 0
        self.seconds = 0.0  # wall clock of all calls
        self.reserve = 0.0  # of a time budget, the seconds that the end will take
        self.plateau = Plateau(recipe)
        # Falls by half whenever the loss is no number.
        self.caution = 1.0
        # Everyone's that have taught, also before a run was gone on with.
        self.taught_by = sampler.taught_by
        # Seconds spent on drawing crops, in all; None where a GPU does it meanwhile.
        self.drawing = 0.0 if sampler.device.type == "cpu" else None

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
        drawn = []
        for scale, count in counts.items():
            lr, hr = self.sampler.draw(scale, count)
            if len(lr):
                drawn.append(Crops(scale, lr, hr, len(lr) / every))
        return drawn

    @property
    def position(self) -> float:
        """Where the schedule stands, as one of the recipe's steps."""
        return self.recipe.position(self.step, self.seconds + self.reserve)

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        factor = self.plateau.factor * self.caution
        return self.recipe.learning_rate_at(self.position) * factor

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

    @property
    def story(self) -> dict[str, str]:
        """What a weight file says of its training."""
        return {
            "recipe": json.dumps(self.recipe.as_dict()),
            "recipe_hash": self.recipe.fingerprint,
            "data": f"{self.sampler.count} pictures, {self.sampler.fingerprint}",
            "steps": str(self.step),
            **describe_facts(self.taught_by),
        }

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
        self.caution = state["caution"]
        self.plateau.factor = state["rate_factor"]
        self.plateau.step = state["plateau_step"]
        self.plateau.best = state["plateau_best"]
        place = before.position(max(0, self.step - 1), self.seconds)
        last = before.learning_rate_at(place)
        last *= self.plateau.factor * self.caution
        if before.learning_rate != self.recipe.learning_rate:
            # Whoever asks for a rate means the rate of the next step.
            self.caution = self.plateau.factor = 1.0
        if self.rate > 3 * last:
            log.warning(
                "the learning rate jumps from %.3g to %.3g, which may undo what was "
                "learned: a new run with --init and a warmup is gentler",
                last,
                self.rate,
            )

    def _restore_random(self, state: dict[str, Any]) -> None:
        generator, kept = self.sampler.generator, state["sampler"]
        if kept.shape == generator.get_state().shape:
            generator.set_state(kept)
        else:
            log.warning("the checkpoint is of another kind of device: other crops now")
            self.draw_others()
        self.sampler.scale_generator.set_state(state["scales"])
        torch.set_rng_state(state["torch_rng"])
        if state["cuda_rng"] is not None and self.sampler.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], self.sampler.device)

    def draw_others(self) -> None:
        """Let the crops to come be others than those that would have been drawn."""
        for generator in (self.sampler.generator, self.sampler.scale_generator):
            generator.manual_seed((generator.initial_seed() + self.step + 1) % 2**63)

    def has_finite_weights(self) -> bool:
        """Whether every weight is a number."""
        return all(bool(w.isfinite().all()) for w in self.model.parameters())

    @property
    def finished(self) -> bool:
        """Whether steps or time are used up, or the plateau has ended the run."""
        return self.position >= self.recipe.steps or self.plateau.is_over
