"""What a batch would take is said before it is begun."""

from pathlib import Path

import pytest
from PIL import Image

from srcli.inference.jobs import plan_jobs
from srcli.inference.naming import Naming
from srcli.inference.preview import preview_batch
from srcli.inference.sizes import Goal
from srcli.inference.sources import expand_inputs
from srcli.inference.upscaler import Upscaler


def estimate_batch(jobs, upscaler):
    results, total = preview_batch(jobs, upscaler)
    return [result.estimate for result in results], total


@pytest.fixture
def plan(tmp_path, monkeypatch, picture):
    """A function that makes pictures of these sizes, and the jobs for them."""
    monkeypatch.chdir(tmp_path)

    def make(*sizes, scale=2.0, **naming):
        for number, (width, height) in enumerate(sizes):
            Image.fromarray(picture(height, width)).save(f"{number}.png")
        inputs = [f"{number}.png" for number in range(len(sizes))]
        chosen = Naming(model="m", goal=Goal(scale), **naming)
        return plan_jobs(expand_inputs(inputs), chosen)

    return make


def test_time_and_memory_grow_with_the_pixels(plan):
    jobs = plan((100, 100), (200, 200), (1000, 1000))
    estimates, total = estimate_batch(jobs, Upscaler("mrnet", 2, tile=0))
    small, middle, large = estimates
    assert middle.seconds == pytest.approx(4 * small.seconds)
    assert large.seconds == pytest.approx(100 * small.seconds)
    # The largest has its result, four times its size, and itself in memory.
    assert large.memory - small.memory > 1000 * 1000 * 3 * 4
    assert total.seconds == pytest.approx(sum(e.seconds for e in estimates))
    assert total.memory == max(e.memory for e in estimates)
    assert total.bytes == sum(e.bytes for e in estimates) > 0


def test_a_network_is_timed_and_every_pass_counts(plan):
    """The second pass sees what the first has made."""
    upscaler = Upscaler("mrnet", 8, tile=64)
    first, second = upscaler.runners(96, 96)
    (both,), _ = estimate_batch(plan((96, 96), scale=8.0), upscaler)
    alone = first.estimate_seconds(96, 96)
    assert both.seconds == alone + second.estimate_seconds(4 * 96, 4 * 96)
    assert alone > 0


def test_bicubic_takes_next_to_nothing(plan):
    (estimate,), _ = estimate_batch(plan((400, 300)), Upscaler("bicubic", 2))
    assert 0 < estimate.seconds < 5


def test_what_is_not_to_be_done_takes_nothing(plan):
    Path("1.png").write_text("no picture")
    jobs = plan((50, 50))
    jobs += plan_jobs(expand_inputs(["none.png"]), Naming(model="m", goal=Goal(2.0)))
    estimates, total = estimate_batch(jobs, Upscaler("bicubic", 2))
    assert estimates[1] is None
    assert total.bytes == estimates[0].bytes
