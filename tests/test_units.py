"""Quantities as a sentence says them."""

from srcli.units import format_bytes, format_duration, join_words


def test_quantities():
    said = {0: "0 s", 59.6: "1 min 0 s", 725: "12 min 5 s", 86399: "23 h 59 min",
            4 * 86400 + 3 * 3600 + 59: "4 d 3 h"}  # fmt: skip
    assert {seconds: format_duration(seconds) for seconds in said} == said
    said = {
        None: "?",
        0: "0 B",
        999: "999 B",
        610_000: "610 kB",
        3_530_603_713: "3.5 GB",
    }
    assert {size: format_bytes(size) for size in said} == said
    assert join_words(["a", "b", "c"]) == "a, b and c"
