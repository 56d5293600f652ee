"""A page that is one file: no script, style, font or picture comes from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterable
from importlib.resources import files
from string import Template

from srcli import __version__
from srcli.storage import Place
from srcli.writing import write_whole

# What text may hold, a file's name for example, but no page.
_UNPRINTABLE = re.compile(r"[\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def escape(text: str) -> str:
    """`text` for a page, as content or between the quotes of an attribute.

    Lone surrogates, as in file names that are no UTF-8, and control characters become
    U+FFFD.
    """
    return html.escape(_UNPRINTABLE.sub("\ufffd", text))


def isolate(text: str) -> str:
    """`text`, escaped, whose writing direction does not reach what is around it."""
    return f"<bdi>{escape(text)}</bdi>"


def render_page(title: str, body: Iterable[str]) -> str:
    """The page.

    Args:
        title: Plain text for the window.
        body: HTML, part by part.
    """
    style, script = _read("page.css"), _read("page.js")
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none';"
        f" style-src {_hash(style)}; script-src {_hash(script)}"
    )
    return Template(_read("page.html")).substitute(
        policy=policy,
        title=escape(title),
        style=style,
        body="".join(f"{part}\n" for part in body),
        version=__version__,
        script=script,
    )


def write_page(path: Place, title: str, body: Iterable[str]) -> None:
    """Write the page, which appears whole or not at all; see `render_page`.

    Raises:
        OutputError: If it cannot be written.
    """
    text = render_page(title, body)
    with write_whole(path) as part:
        part.write_text(text, "utf-8", newline="\n")


def _read(name: str) -> str:
    return files("srcli.pages").joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    """How a content security policy names just this text."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
