"""How torch's threads wait for each other in a command's own process: so that it is right on a busy machine too.

GNU OpenMP, which torch's wheels for Linux run on, lets a thread spin for milliseconds where it waits for another. On a
machine whose cores are taken by other work, the other one does not get a core while it spins: small models then took 20
to 60 times as long and 8 times the CPU time as with a tenth of a millisecond, which costs a free machine nothing.
"""

from __future__ import annotations

from collections.abc import Container, MutableMapping

_SPINS = "10000"  # of 300,000 by default; OpenMP sleeps afterwards


def spin_briefly(environment: MutableMapping[str, str], loaded: Container[str]) -> None:
    """Set the limit where nobody has, and where torch is not loaded yet, which reads it once.

    Args:
        environment: of this process.
        loaded: names of imported modules.
    """
    if "torch" not in loaded and not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & environment.keys():
        environment["GOMP_SPINCOUNT"] = _SPINS
