"""The documents say what the program does: options, exit codes, examples, links."""

import re
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from srcli.cli.app import app
from srcli.errors import ExitCode
from srcli.evaluation.published import lookup, papers
from srcli.models import MODELS, variant_names
from srcli.pretrained.catalog import manifest

ROOT = Path(__file__).parent.parent
DOCS = {path.name: path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md")}
README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = typer.main.get_command(app).commands
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXAMPLES = PYTHON.findall(DOCS["python.md"])


def options_of(command):
    for parameter in command.params:
        for name in (*parameter.opts, *parameter.secondary_opts):
            if name.startswith("--"):
                yield name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_documented(name):
    text = DOCS["usage.md"] + DOCS["training.md"]
    missing = [
        option
        for option in options_of(COMMANDS[name])
        if not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text)
    ]
    assert missing == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_documented_option_exists(name):
    """Options in an example of a command must be that command's."""
    known = {*options_of(COMMANDS[name]), "--help"}
    for text in (README, *DOCS.values()):
        for block in re.findall(r"```[a-z]*\n(.*?)```", text, re.S):
            for line in block.splitlines():
                call = re.search(rf"srcli {name}\b([^|#>]*)", line)
                used = re.findall(r"(?<!\S)--[a-z-]+", call[1]) if call else []
                assert set(used) <= known, line


@pytest.mark.parametrize("code", ExitCode)
def test_every_exit_code_is_documented(code):
    assert re.search(rf"^\| {code.value} \| ", DOCS["errors.md"], re.M)


def test_every_network_and_variant_is_described():
    for name in MODELS:
        assert re.search(rf"^## {name}$", DOCS["models.md"], re.M | re.I)
    missing = [n for n in variant_names() if f"`{n}`" not in DOCS["models.md"]]
    assert missing == []


@pytest.mark.parametrize("text", [README, *DOCS.values()], ids=["README.md", *DOCS])
def test_links_lead_somewhere(text):
    folder = ROOT if text is README else ROOT / "docs"
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (folder / target).exists(), target


def test_readme_test_command_is_what_ci_runs():
    command = next(
        line for line in README.splitlines() if line.endswith(".venv/bin/pytest")
    )
    script = (ROOT / ".ci" / "run").read_text("utf-8").replace("--quiet ", "")
    for part in command.split(" && "):
        assert part in script


def test_every_module_is_on_the_folder_map():
    for folder in sorted((ROOT / "srcli").iterdir()):
        if (folder / "__init__.py").exists():
            assert f"`srcli/{folder.name}/`" in DOCS["contributing.md"]


@pytest.fixture
def example_folder(tmp_path, monkeypatch, picture):
    """The current folder, with the pictures that the examples name."""
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


@pytest.mark.usefixtures("example_folder")
@pytest.mark.parametrize("code", EXAMPLES, ids=range(1, len(EXAMPLES) + 1))
def test_examples_run_and_print_what_they_say(code, capsys):
    exec(compile(code, "example", "exec"), {"__name__": "example"})
    said = re.findall(r"^ *print\(.*\)  # (.*)$", code, re.M)
    assert capsys.readouterr().out.splitlines() == said


def test_there_are_examples_of_the_whole_api():
    for name in ("srcli.upscale(", "srcli.Upscaler(", "srcli.load_model("):
        assert name in "".join(EXAMPLES)
    for name in DOCS.keys() - {"python.md", "contributing.md"}:
        assert PYTHON.search(DOCS[name]) is None, "examples there would not be run"


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
    name = papers()[entry.arch].name
    section = DOCS["weights.md"].partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    tables, summary = read_figures(section), read_figures(README)
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
