"""How the processes of one start find each other in a store that remembers others.

torchrun may keep one store for all starts of a job (PyTorch 2.13 does), in which every
process leaves its address under the same name each time. After a restart one process
can read the address of another that is gone, and wait for it. So a start agrees on a
part of the store of its own first. How often torchrun has restarted would not do as
its name: every node counts for itself.
"""

from __future__ import annotations

import time
import uuid

from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from srcli.errors import DeviceError

_PATIENCE = 600.0  # seconds; torchrun starts all nodes at about the same time
_POLL = 0.02


def meet(store: Store, rank: int, size: int, *, patience: float = _PATIENCE) -> Store:
    """A part of the store that no other start has written to.

    The main process greets every other one that has said which process it is, by a
    number drawn for this start, and waits until each has taken the greeting.

    Args:
        store: What all processes of a job see, with what earlier starts left in it.
        rank: Number of this process; 0 is the main one.
        size: Number of processes.
        patience: Seconds to wait for the others.

    Raises:
        DeviceError: If they do not come.
    """
    own, until = uuid.uuid4().hex, time.monotonic() + patience
    others = set(range(1, size)) if rank == 0 else set()
    name = own if rank == 0 else ""
    if rank > 0:
        store.set(f"srcli/here/{rank}", own)
    while others or not name:
        for other in tuple(others):
            here = _read(store, f"srcli/here/{other}")
            store.set(f"srcli/greeting/{other}", f"{here} {own}")
            if _read(store, f"srcli/taken/{other}") == own:
                others.remove(other)
        here, _, greeting = _read(store, f"srcli/greeting/{rank}").partition(" ")
        if rank > 0 and here == own:
            store.set(f"srcli/taken/{rank}", greeting)
            name = greeting
        if time.monotonic() > until:
            raise DeviceError(
                f"process {rank} of {size} has not met the others within "
                f"{patience:.0f} seconds: is the network between the nodes open?"
            )
        time.sleep(_POLL)
    return PrefixStore(f"srcli/{name}", store)


def _read(store: Store, key: str) -> str:
    """What stands there; nothing where nobody has written yet."""
    return str(store.get(key).decode()) if store.check([key]) else ""
