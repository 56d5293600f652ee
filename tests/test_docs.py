"""The documents say what the program does: options, exit codes, counts, examples."""

import re
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from srcli.cli.app import app
from srcli.errors import ExitCode
from srcli.evaluation.published import lookup
from srcli.models import MODELS, variant_names
from srcli.pretrained.catalog import manifest

ROOT = Path(__file__).parent.parent
PAGES = {
    p.name: p.read_text("utf-8") for p in [ROOT / "README.md", *ROOT.glob("docs/*.md")]
}
OPTIONS = {
    name: {
        option
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("--")
    }
    for name, command in typer.main.get_command(app).commands.items()
}
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGES["python.md"], re.M | re.S)


@pytest.mark.parametrize("name", OPTIONS)
def test_options_are_documented_and_exist(name):
    text = PAGES["usage.md"] + PAGES["training.md"]
    assert OPTIONS[name] <= set(re.findall(r"(?<![\w-])--[a-z-]+", text)) | {"--help"}
    for block in re.findall(r"```\n(.*?)```", "".join(PAGES.values()), re.S):
        for call in re.findall(
            rf"srcli {name}\b([^|#>\n]*)", block.replace("\\\n", "")
        ):
            used = set(re.findall(r"(?<!\S)--[a-z-]+", call))
            assert used <= {*OPTIONS[name], "--help"}, call


def test_every_exit_code_and_network_is_documented():
    for code in ExitCode:
        assert re.search(rf"^\| {code.value} \| ", PAGES["errors.md"], re.M)
    for name in MODELS:
        assert re.search(rf"^## {name}$", PAGES["models.md"], re.M | re.I)
    missing = [n for n in variant_names() if f"`{n}`" not in PAGES["models.md"]]
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^):#]*)(?:#([^)]*))?\)", PAGES[page]):
        folder = ROOT if page == "README.md" else ROOT / "docs"
        assert (folder / target).exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", PAGES[Path(target or page).name], re.M)
            plain = (re.sub(r"[^\w -]", "", title.lower()) for title in titles)
            assert anchor in {title.replace(" ", "-") for title in plain}


def test_readme_test_command_is_what_ci_runs():
    command = re.search(r"^.*\.venv/bin/pytest$", PAGES["README.md"], re.M)[0]
    script = (ROOT / ".ci" / "run").read_text("utf-8").replace("--quiet ", "")
    assert all(part in script for part in command.split(" && "))


def test_every_room_is_on_the_folder_map():
    for file in (ROOT / "srcli").glob("*/__init__.py"):
        assert f"`srcli/{file.parent.name}/`" in PAGES["contributing.md"]


@pytest.mark.parametrize("code", EXAMPLES, ids=range(1, len(EXAMPLES) + 1))
def test_examples_run_and_print_what_they_say(
    code, tmp_path, monkeypatch, picture, capsys
):
    pixels = picture(24, 32)
    noise = np.random.default_rng(0).normal(0, 30, pixels.shape)
    alpha = np.repeat(np.linspace(0, 255, 32).round().astype(np.uint8)[None], 24, 0)
    pictures = {
        "photo": pixels,
        "noisy": np.clip(pixels + noise, 0, 255).astype(np.uint8),
        "logo": np.dstack((pixels, alpha)),
        "scan": pixels[:, :, 0] * np.uint16(257),
    }
    for name, array in pictures.items():
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "example", "exec"), {"__name__": "example"})
    said = re.findall(r"^ *print\(.*\)  # (.*)$", code, re.M)
    assert capsys.readouterr().out.splitlines() == said


def read_row(text, label, scale):
    """Ours, the paper's and the difference at a scale, each PSNR and perhaps more."""
    line = re.search(rf"^\| {re.escape(label)} \|.*", text, re.M)[0]
    cells = line.replace("\N{MINUS SIGN}", "-").split("|")[3 * scale - 4 :][:3]
    return zip(*(cell.strip().split(" / ") for cell in cells), strict=True)


@pytest.mark.parametrize("entry", manifest(), ids=lambda entry: entry.file)
def test_tables_of_weights_are_those_of_the_manifest_and_the_papers(entry):
    name = MODELS[entry.arch].__name__
    section = PAGES["weights.md"].partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    kind = {"drrn": ", B1U25", "drrn-b1u9": ", B1U9"}.get(entry.model, "")
    if entry.degradation != "bi":
        kind = f", `{entry.degradation}`"
    for dataset, scale in ((d, int(s)) for d, psnr in entry.psnr.items() for s in psnr):
        measured = entry.psnr[dataset][str(scale)], entry.ssim[dataset][str(scale)]
        paper = lookup(entry.model, dataset, scale, entry.degradation)
        rows = [read_row(section, dataset.capitalize() + kind, scale)]
        if dataset == "set5" and kind in ("", ", B1U25"):
            rows.append(read_row(PAGES["README.md"], name, scale))
        for row in rows:
            # The manifest has one digit more and is rounded, too; there may be an IFC.
            for (ours, theirs, difference), value, published in zip(
                row, measured, (paper.psnr, paper.ssim), strict=False
            ):
                digit = 10.0 ** -len(theirs.partition(".")[2].strip())
                assert float(theirs) == published
                assert float(ours) == pytest.approx(value, abs=0.51 * digit)
                assert float(difference) == pytest.approx(
                    value - published, abs=1.01 * digit
                )
