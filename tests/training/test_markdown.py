"""Pieces of Markdown: nothing a user can name breaks out of its cell or code."""

import pytest

from srcli.training.report import (
    format_table,
    join_words,
    quote_code,
)


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
