"""Which pictures a run trains on: the user's folders, or the sets of its recipe."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from srcli.errors import InputError, unknown
from srcli.evaluation.originals import has_originals
from srcli.pretrained.catalog import data_folders
from srcli.pretrained.public_sets import DataSet, data_sets, format_size
from srcli.storage import quote_path
from srcli.training.recipe import Recipe

log = logging.getLogger(__name__)


def choose_folders(
    request_data: tuple[Path, ...], recipe: Recipe, data_dir: Path | None
) -> tuple[Path, ...]:
    """The folders to train on: those of the request, else those of the recipe's sets.

    A set is looked for in `data_dir`; without one in $SRCLI_DATA_DIR, then in the cache
    where `srcli download` puts it, then in the current folder; each time in the folder
    itself and in those directly below it. All sets of the recipe have to be there.

    Args:
        request_data: What the user named.
        recipe: Its `datasets` stand in where the user named nothing.
        data_dir: Folder that holds the named sets.

    Raises:
        UsageError: If the recipe names a set that is not there for training.
        InputError: If a set is not installed, or the recipe has none; the message says
            what to download, how large it is, and with which command.
    """
    if request_data:
        return request_data
    if not recipe.datasets:
        raise InputError(_ask_for_folder(recipe))
    wanted = _read_names(recipe.datasets)
    roots = [data_dir.expanduser()] if data_dir else [*data_folders(), Path.cwd()]
    found = {data_set.name: _find(data_set, roots) for data_set in wanted}
    if missing := [data_set for data_set in wanted if not found[data_set.name]]:
        there = [name for name, folders in found.items() if folders]
        looked = _join([str(root) for root in roots], "or")
        raise InputError(
            f"no training pictures: the recipe was made for {recipe.data}; "
            f"{_describe(missing)} cannot be found in {looked}"
            f"{f' ({_join(there)} can)' if there else ''}: "
            f"run `{_download_command(missing, data_dir)}`, "
            "or name your own with --data FOLDER"
        )
    for name, folders in found.items():
        log.info("training on %s in %s", name, _join([str(each) for each in folders]))
    return tuple(folder for folders in found.values() for folder in folders)


def _read_names(names: Sequence[str]) -> list[DataSet]:
    """The data sets of these names, each once.

    Raises:
        UsageError: If one is unknown, or is one that networks are measured on.
    """
    known = {data_set.name: data_set for data_set in data_sets() if data_set.training}
    for name in names:
        if name not in known:
            raise unknown("training set", name, known)
    return [known[name] for name in dict.fromkeys(names)]


def _find(data_set: DataSet, roots: Sequence[Path]) -> tuple[Path, ...]:
    """Where the set's pictures lie, in the first place that has all of its folders."""
    for root in roots:
        for place in _list_places(root):
            try:
                folders = data_set.find(place)
            except OSError as error:
                log.debug("folder %s left out: %s", place, error)
                continue
            if folders and all(map(has_originals, folders)):
                return folders
    return ()


def _list_places(root: Path) -> Iterator[Path]:
    """The folder and those directly below it, sorted; no hidden ones."""
    yield root
    try:
        entries = sorted(root.iterdir())
        yield from (
            each for each in entries if not each.name.startswith(".") and each.is_dir()
        )
    except OSError as error:
        log.debug("folder %s left out: %s", root, error)


def _describe(missing: Sequence[DataSet]) -> str:
    """The names with their sizes, and the size of all where there are several."""
    parts = [
        f"{data_set.name} ({_say_size(data_set.size, rough=data_set.is_rough)})"
        for data_set in missing
    ]
    text = _join(parts)
    # Parts of one archive come in one download.
    archives = {data_set.urls: data_set for data_set in missing}.values()
    if len(parts) > 1:
        total = sum(archive.size or 0 for archive in archives)
        rough = any(archive.is_rough for archive in archives)
        text += f", {_say_size(total, rough=rough)} in all,"
    return text


def _say_size(size: int | None, *, rough: bool) -> str:
    return f"about {format_size(size)}" if rough else format_size(size)


def _download_command(missing: Sequence[DataSet], data_dir: Path | None) -> str:
    words = ["srcli", "download", *(data_set.name for data_set in missing)]
    if data_dir:
        words += ["--data-dir", str(data_dir)]
    return " ".join(map(quote_path, words))


def _ask_for_folder(recipe: Recipe) -> str:
    """What to say where the recipe names no set."""
    side = max(recipe.lr_crop(scale) * scale for scale in recipe.scales)
    return (
        f"no training pictures: the recipe was made for {recipe.data}; name a folder "
        "of PNG, JPEG, TIFF, BMP, WebP or AVIF pictures of at least "
        f"{side} pixels on each side with `srcli train --data FOLDER`; "
        "`srcli download --list` shows which can be fetched"
    )


def _join(words: Sequence[str], last: str = "and") -> str:
    """The words with commas between them and `last` before the last one."""
    *first, final = words
    return f"{', '.join(first)} {last} {final}" if first else final
