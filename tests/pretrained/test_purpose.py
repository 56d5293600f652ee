"""What weights are for: the words for it."""

import pytest

from srcli.imaging import degrade
from srcli.pretrained.purpose import DEGRADATIONS, find_nearest, name_task


@pytest.mark.parametrize(
    ("scales", "degradation", "name"),
    [((3,), "bi", "x3"), ((2, 3, 4), "bi", "x2 x3 x4"), ((3,), "dn", "x3 dn")],
)
def test_tasks_have_a_name(scales, degradation, name):
    assert name_task(scales, degradation) == name


def test_every_degradation_has_weights_that_come_nearest():
    nearest = {kind: find_nearest(kind) for kind in degrade.DEGRADATIONS}
    assert nearest == {"bi": "bi", "bd": "bd", "dn": "dn", "bd-bicubic": "bd"}
    assert set(nearest.values()) == set(DEGRADATIONS)
