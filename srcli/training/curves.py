"""`curves.png`: how a run's loss, learning rate and PSNR went."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from srcli.training.history import History, read_history
from srcli.writing import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "curves.png"

Values = NDArray[np.float64]

# Told apart with any kind of colour vision (Okabe and Ito, "Color Universal Design").
_BLUE, _SKY, _ORANGE = "#0072B2", "#56B4E9", "#E69F00"
_GREEN, _RED, _PURPLE = "#009E73", "#D55E00", "#CC79A7"
_BY_SCALE = {2: _BLUE, 3: _GREEN, 4: _PURPLE}
_INK = "#333333"
_WIDTH = 11.0  # inches
_DPI = 120
_MANY = 30  # points from which a smoothed line is drawn over them
_FEW = 10  # points below which none is taken for an outlier
_NUMBERED = 9  # events up to which each gets its number
_STYLE = {
    "font.size": 11,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": _INK,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "grid.color": "#DDDDDD",
    "legend.frameon": False,
    "legend.fontsize": 10,
    "text.color": _INK,
    "text.parse_math": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


def draw_curves(folder: Path) -> Path | None:
    """Draw what the run's log holds into `curves.png`.

    Args:
        folder: The run's folder, with `log.jsonl`; names come from `recipe.json` and
            `run.json` where they are there.

    Returns:
        The picture, or None if the log has nothing to draw.

    Raises:
        InputError: If the log cannot be read.
        OutputError: If the picture cannot be written.
    """
    history = read_history(folder)
    if not (history.losses or history.rates or history.validations):
        return None
    # Slow to load, and only drawing needs it.
    from matplotlib import style  # noqa: PLC0415

    path = folder / NAME
    # Whatever settings the user has for other work: the same picture everywhere.
    with style.context(["default", _STYLE]):
        figure = _draw(history, _Names.read(folder))
        with write_whole(path) as part:
            figure.savefig(part, format="png")  # with Agg, whatever screen there is
    return path


@dataclass(frozen=True, slots=True)
class _Names:
    """What the picture says of the run."""

    model: str
    loss: str
    dataset: str

    @classmethod
    def read(cls, folder: Path) -> _Names:
        recipe, run = (_read_texts(folder / n) for n in ("recipe.json", "run.json"))
        loss = f"{recipe.get('loss', '').upper()} loss".strip()
        if recipe.get("reduction") == "sum":
            loss += ", sum of a crop"
        dataset = Path(run.get("val", "")).name
        if not dataset.isascii() or len(dataset) > 20:  # the font may not have it
            dataset = "the validation set"
        return cls(recipe.get("model", ""), loss, dataset)


def _read_texts(path: Path) -> dict[str, str]:
    """The texts of a JSON object; none where it is missing or damaged."""
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    items = document.items() if isinstance(document, dict) else ()
    return {name: value for name, value in items if isinstance(value, str)}


def _draw(history: History, names: _Names) -> Figure:
    """The loss above the rate above one panel for each scale."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    parts = ((history.losses, 3.2), (history.rates, 1.7), (history.validations, 3.0))
    heights = [height for part, height in parts if part]
    size = (_WIDTH, sum(heights) + 0.6)
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    rows = iter(figure.add_gridspec(len(heights), 1, height_ratios=heights))
    panels: list[Axes] = []
    if history.losses:
        panels.append(figure.add_subplot(next(rows)))
        _draw_loss(panels[-1], history, names)
    if history.rates:
        panels.append(figure.add_subplot(next(rows)))
        _draw_rate(panels[-1], history)
    if history.validations:
        columns = next(rows).subgridspec(1, len(history.scales))
        for column, scale in enumerate(history.scales):
            panels.append(figure.add_subplot(columns[0, column]))
            _draw_psnr(panels[-1], history, scale)
        if names.dataset:
            panels[-len(history.scales)].set_ylabel(f"PSNR on {names.dataset} (dB)")
    _finish(panels, history)
    last = f"{history.last_step:,} steps"
    title = f"{names.model}: {last}" if names.model else last
    figure.suptitle(title, fontsize=14, fontweight="bold")
    return figure


def _draw_loss(axes: Axes, history: History, names: _Names) -> None:
    """Every logged mean, and where there are many a smooth line through them."""
    steps, losses = _as_arrays(history.losses)
    if len(steps) < _MANY:
        axes.plot(steps, losses, "o-", color=_BLUE, markersize=4, label="as logged")
    else:
        axes.plot(steps, losses, color=_SKY, linewidth=0.9, label="as logged")
        axes.plot(steps, _smooth(losses), color=_BLUE, linewidth=2.2, label="smoothed")
    axes.set_title("Training loss")
    axes.set_ylabel(names.loss)
    bottom, top = losses.min(), _find_top(losses)
    _fit(axes, bottom, top, log=0 < 2 * bottom < top)
    if top < losses.max():
        step = steps[losses.argmax()]
        _remark(axes, f"cut off: up to {losses.max():.3g} at step {step:,.0f}")


def _draw_rate(axes: Axes, history: History) -> None:
    steps, rates = _as_arrays(history.rates)
    marker = "o" if len(steps) == 1 else ""
    axes.plot(steps, rates, marker=marker, color=_ORANGE, linewidth=1.8)
    axes.set_title("Learning rate")
    axes.set_ylabel("rate")
    # Falling in steps, each by the same factor: on a log scale none is lost.
    stepped = 8 <= len(rates) >= 4 * len(set(rates))
    if stepped and 0 < 5 * rates.min() < rates.max():
        _fit(axes, rates.min(), rates.max(), log=True)
    else:
        axes.set_ylim(min(0.0, rates.min()), max(rates.max(), 1e-12) * 1.08)


def _draw_psnr(axes: Axes, history: History, scale: int) -> None:
    """One scale, with the validation whose weights are the best on all of them."""
    color = _BY_SCALE.get(scale, _ORANGE)
    found = {
        step: psnr[scale] for step, psnr in history.validations.items() if scale in psnr
    }
    steps, values = _as_arrays(found)
    marker = "o" if len(steps) <= 2 * _MANY else ""
    axes.plot(steps, values, marker=marker, markersize=4, color=color, linewidth=1.8)
    best = history.best_step
    if best in found:
        axes.plot(
            *([best], [found[best]]), "*", color=_RED, markeredgecolor="white",
            markersize=17, zorder=5, clip_on=False, label=f"best: {found[best]:.2f} dB",
        )  # fmt: skip
        axes.legend(loc="best", handletextpad=0.1)
    axes.set_title(f"PSNR at x{scale}")
    axes.set_ylabel("PSNR (dB)" if scale == history.scales[0] else "")
    # What a run gains late is small beside its first validations.
    top = values.max()
    bottom = max(values.min(), top - max(8 * (top - np.median(values)), 0.2))
    spare = max(0.0, 0.1 - (top - bottom)) / 2
    _fit(axes, bottom - spare, top + spare, log=False)
    if bottom > values.min():
        _remark(axes, f"from {values.min():.1f} dB")


def _finish(panels: Sequence[Axes], history: History) -> None:
    """The same steps below all panels, and the events across them."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: PLC0415

    last = max(1, history.last_step, *dict(history.events))
    unit, sign = (1000, "k") if last >= 10_000 else (1, "")

    def name_step(step: float, _: int | None) -> str:
        return f"{step / unit:,g}{sign if step else ''}"

    for axes in panels:
        axes.set_xlim(0, last * 1.02)
        wide = axes.get_subplotspec().get_geometry()[1] == 1  # type: ignore[union-attr]
        axes.xaxis.set_major_locator(MaxNLocator(8 if wide else 4, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(name_step))
        axes.set_xlabel("step")
        for number, (step, _) in enumerate(history.events):
            label = "" if number else "event (report.md)"
            axes.axvline(step, color=_INK, ls="--", lw=1.1, label=label)
    first = panels[0]
    for number, (step, _) in enumerate(history.events[:_NUMBERED], start=1):
        first.annotate(
            *(str(number), (step, 1), (3, -11)),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
        )
    if first.get_legend_handles_labels()[1]:
        first.legend(loc="upper right" if history.losses else "best")


def _fit(axes: Axes, bottom: float, top: float, *, log: bool) -> None:
    """The vertical axis from `bottom` to `top` with some room, and its ticks."""
    from matplotlib import ticker  # noqa: PLC0415

    if log:
        room = (top / bottom) ** 0.06
        axes.set_yscale("log")
        axes.set_ylim(bottom / room, top * room)
        wide = top >= 8 * bottom
        axes.yaxis.set_major_locator(
            ticker.LogLocator(10, subs=(1, 2, 5))
            if wide
            else ticker.MaxNLocator(7, steps=[1, 2, 5, 10])
        )
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda y, _: f"{y:g}"))
        axes.yaxis.set_minor_locator(ticker.NullLocator())
    elif top > bottom:
        room = 0.06 * (top - bottom)
        axes.set_ylim(bottom - room, top + room)


def _remark(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="right", fontsize=10, fontweight="normal")


def _as_arrays(figures: Mapping[int, float]) -> tuple[Values, Values]:
    """Steps and figures."""
    return np.array([*figures], np.float64), np.array([*figures.values()], np.float64)


def _find_top(losses: Values) -> float:
    """The highest loss that is not far above nearly all others.

    What lies above, as the first loss of a run or a spike, would flatten the rest.
    """
    if len(losses) < _FEW:
        return float(losses.max())
    usual = np.quantile(losses, 0.98, method="lower")
    return float(losses[losses <= max(2 * usual, usual)].max())


def _smooth(losses: Values) -> Values:
    """A moving mean, of logarithms where there are any; what is far above counts less.

    It reaches as far back as ahead, but never further than a quarter of the way to the
    start: there a curve falls too fast for more.
    """
    usual: Any = np.minimum(losses, _find_top(losses))
    log = bool((losses > 0).all())
    values = np.log(usual) if log else usual
    count = len(values)
    place = np.arange(count)
    half = np.minimum(max(2, count // 40), place // 4)
    after = np.minimum(place + half + 1, count)
    sums = np.concatenate(([0.0], np.cumsum(values)))
    means = (sums[after] - sums[place - half]) / (after - place + half)
    return np.where(half == 0, losses, np.exp(means) if log else means)
