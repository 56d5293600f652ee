"""Pages: nothing from elsewhere, nothing by accident, whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest

from srcli.errors import OutputError
from srcli.pages.html import escape, isolate, write_page

NAMES = [
    "plain.png",
    "<b>bold</b> & \"quoted\" 'twice'.png",
    "</script><script>alert(1)</script>.png",
    "$body ${title} $$.png",
    "雪景色 \N{SNOWMAN} \u202egnp.exe",
    "broken \udcff\ud800 name.png",
    "bell \x07 and \x00 null",
    "--> ]]> <!-- ",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_only_text(name, tmp_path, read_page):
    path = tmp_path / "page.html"
    write_page(
        path, name, [f"<h1>{isolate(name)}</h1>", f'<p id="{escape(name)}"></p>']
    )
    page = read_page(path)
    shown = re.sub("[\ud800-\udfff\x00\x07]", "\ufffd", name)
    assert page.texts.count(shown) == 2  # in the window's title and in the heading
    assert [tag for tag, _ in page.tags if tag in ("script", "b")] == ["script"]
    assert next(known["id"] for tag, known in page.tags if tag == "p") == shown


def test_only_its_own_style_and_script_may_run(tmp_path):
    write_page(tmp_path / "page.html", "title", [])
    text = (tmp_path / "page.html").read_text("utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert "default-src 'none'; img-src data:;" in policy
    for tag in ("style", "script"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    # Neither attribute would pass the policy.
    assert not re.search(r"<[^>]* (style|on\w+)=", text)


def test_page_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    write_page(path, "first", [])
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "no space left")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OutputError, match=r"page\.html: no space left"):
        write_page(path, "second", [])
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["page.html"]
    with pytest.raises(OutputError, match="nowhere"):
        write_page(tmp_path / "nowhere" / "page.html", "third", [])
