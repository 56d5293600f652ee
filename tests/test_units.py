"""Quantities as a sentence says them."""

import pytest

from srcli.units import format_bytes, format_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (725, "12 min 5 s"),
        (3600, "1 h 0 min"),
        (86399, "23 h 59 min"),
        (4 * 86400 + 3 * 3600 + 59, "4 d 3 h"),
    ],
)
def test_durations_have_two_units(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0.0 MB"), (1_234_567, "1.2 MB"), (2_613_508_000, "2.6 GB")]
)
def test_bytes(size, text):
    assert format_bytes(size) == text
