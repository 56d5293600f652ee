"""The "plateau" schedule: a lower rate whenever validation stands still."""

from __future__ import annotations

import logging
import math

from srcli.training.recipe import Recipe

log = logging.getLogger(__name__)


class Plateau:
    """Watches the validations at the recipe's own steps.

    Others are not told to it, so that a run that was stopped in between goes on as if
    it had not been.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.factor = 1.0  # what it has taken off the learning rate
        self.step = 0  # when it last did, or when the best came
        self.best = -math.inf  # mean PSNR in dB

    def watch(self, step: int, psnr: float) -> None:
        """Cut the rate if validation has not improved for long enough."""
        recipe = self.recipe
        if psnr > self.best:
            self.best, self.step = psnr, step
        elif recipe.schedule == "plateau" and step - self.step >= recipe.decay_every:
            self.factor *= recipe.decay_factor
            self.step = step
            log.info("no better: the learning rate is now %.3g times", self.factor)

    @property
    def is_over(self) -> bool:
        """Whether the rate has fallen so far that the run ends."""
        recipe = self.recipe
        rate = recipe.learning_rate * recipe.rate_for_batch * self.factor
        return recipe.schedule == "plateau" and rate < recipe.min_rate
