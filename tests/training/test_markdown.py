"""Pieces of Markdown: nothing a user can name breaks out of its cell or code."""

import pytest

from srcli.training.markdown import (
    format_duration,
    format_table,
    join_words,
    quote_code,
)


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


def test_tables_keep_their_shape():
    lines = format_table(["a", "b"], [["1|2", "3"], ["4"]])
    assert lines == ["| a | b |", "| --- | --- |", "| 1\\|2 | 3 |", "| 4 |  |"]


@pytest.mark.parametrize(
    ("text", "code"),
    [("a b", "`a b`"), ("a\n# b", "`a # b`"), ("a`b", "`` a`b ``"), ("", "")],
)
def test_code_stays_on_its_line(text, code):
    assert quote_code(text) == code


@pytest.mark.parametrize(
    ("words", "text"),
    [([], ""), (["x2"], "x2"), (["x2", "x3", "x4"], "x2, x3 and x4")],
)
def test_words_are_listed_as_in_a_sentence(words, text):
    assert join_words(words) == text
