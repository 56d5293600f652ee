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


def read_figures(text):
    """Ours, the paper's and the difference, by a row's label and a column's title."""
    figures, titles = {}, []
    plain = text.replace("\N{MULTIPLICATION SIGN}", "x").replace("\N{MINUS SIGN}", "-")
    for line in plain.splitlines():
        row = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            titles = []
        elif "paper" in row:
            titles = row
        elif titles and not line.startswith("|-"):
            for place in range(1, len(titles), 3):
                cells = (cell.split(" / ") for cell in row[place:][:3])
                figures[row[0], titles[place]] = list(zip(*cells, strict=True))
    return figures


def check_figures(figures, measured, published):
    """`figures` as printed, PSNR and perhaps SSIM, are these to the last digit."""
    for (ours, theirs, difference), value, paper in zip(
        figures, measured, published, strict=False
    ):
        digit = 10.0 ** -len(theirs.partition(".")[2])
        assert float(theirs) == paper
        # The manifest has one digit more and is rounded, too.
        assert float(ours) == pytest.approx(value, abs=0.51 * digit)
        assert float(difference) == pytest.approx(value - paper, abs=1.01 * digit)


@pytest.mark.parametrize("entry", manifest(), ids=lambda entry: entry.file)
def test_tables_of_weights_are_those_of_the_manifest_and_the_papers(entry):
    name = MODELS[entry.arch].__name__
    section = PAGES["weights.md"].partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    tables, summary = read_figures(section), read_figures(PAGES["README.md"])
    variant = {"drrn": "B1U25", "drrn-b1u9": "B1U9"}.get(entry.model)
    is_ordinary = entry.degradation == "bi"
    kind = variant if is_ordinary else f"`{entry.degradation}`"
    for dataset, scales in entry.psnr.items():
        for scale, psnr in scales.items():
            paper = lookup(entry.model, dataset, int(scale), entry.degradation)
            both = (psnr, entry.ssim[dataset][scale]), (paper.psnr, paper.ssim)
            label = {"set5": "Set5", "set14": "Set14", "b100": "B100"}[dataset]
            row = f"{label}, {kind}" if kind else label
            check_figures(tables[row, f"x{scale}"], *both)
            if label == "Set5" and is_ordinary and entry.model == entry.arch:
                check_figures(summary[name, f"x{scale}"], *both)
