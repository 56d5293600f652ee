"""No module and no picture needs what Windows lacks. Tried here, not there."""

import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent

WITHOUT = """
import importlib, os, pkgutil, signal, sys

import filelock

def import_all():
    import srcli

    for found in pkgutil.walk_packages(srcli.__path__, "srcli."):
        if found.name != "srcli.__main__":
            importlib.import_module(found.name)

# What other packages import on this system is their affair: they come before.
import_all()
for name in [name for name in sys.modules if name.partition(".")[0] == "srcli"]:
    del sys.modules[name]

for module in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "readline"):
    sys.modules[module] = None
for owner, names in (
    (os, "fork getuid geteuid getpgid killpg setsid mkfifo chown pathconf sysconf"),
    (os, "sched_getaffinity uname O_CLOEXEC O_NOFOLLOW O_NONBLOCK"),
    (signal, "SIGHUP SIGKILL SIGQUIT SIGUSR1 pthread_kill"),
):
    for name in names.split():
        delattr(owner, name)

import_all()
from srcli.cli.app import main

main()
"""


def test_without_what_windows_lacks(tmp_path):
    call = ("upscale", str(ROOT / "docs" / "sample"), "-m", "bicubic", "-x", "2")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT, *call, "-o", "out/"],
        capture_output=True,
        cwd=tmp_path,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    (made,) = (tmp_path / "out").iterdir()
    assert done.stdout == f"{Path('out', made.name)}\n"
    with Image.open(made) as image:
        assert image.size == (256, 256)
