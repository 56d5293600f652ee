"""Quantities as a sentence says them."""

import pytest

from srcli.errors import UsageError
from srcli.units import format_bytes, format_duration, parse_duration


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


def test_times_are_read_as_people_type_them():
    said = {
        "8h": 28_800,
        "25m": 1500,
        "1h30m": 5400,
        "1.5h": 5400,
        "90S": 90,
        "1d": 86_400,
    }
    assert {text: parse_duration(text) for text in said} == said
    for wrong in ("", "8", "h", "0m", "8x", "1.2.3h", "-5m", "8h late"):
        with pytest.raises(UsageError, match="say 8h, 25m or 1h30m"):
            parse_duration(wrong)
