"""Pieces of Markdown that reports are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from srcli.storage import show_message


def format_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table; a row that is too short ends in empty cells."""
    lines = [_join_cells(head), _join_cells(["---"] * len(head))]
    for row in rows:
        cells = [cell.replace("|", "\\|") for cell in row]
        lines.append(_join_cells(cells + [""] * (len(head) - len(cells))))
    return lines


def _join_cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def quote_code(text: str) -> str:
    """`text` as code on one line, whatever it holds."""
    line = show_message(text)
    if "`" in line:
        return f"`` {line} ``"
    return f"`{line}`" if line else ""


def join_words(words: Sequence[str]) -> str:
    """The words as a sentence lists them: a, b and c."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
