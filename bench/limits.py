"""What no program could do faster here, by what was measured in the same run.

It has to start and to ask, which is what a run for an image of next to no bytes costs. It has to receive and write each
byte, to hash it for its digest, and to write or copy what is in several archives. The cores do all that side by side,
together with what the servers need; or the link is slower.
"""

from dataclasses import dataclass

from bench.machine import Rates
from bench.samples import EMPTY, OURS, Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The least seconds that a case can take."""

    wall: float
    cpu: float


def limit_of(samples: Samples, rates: Rates, link_rate: float) -> Limit:
    """Return the limit of a case; `link_rate` is what all connections carry, in bytes a second, 0 for no limit."""
    unique, archives = samples.middle(OURS, "blob_bytes"), samples.archive_bytes
    work = unique * (1 / rates.receive + 1 / rates.write + 1 / rates.sha256)
    work += max(0, archives - unique) / max(rates.write, rates.copy)
    served = samples.middle(OURS, "served") - samples.middle(EMPTY, "served")
    carried = unique / link_rate if link_rate else 0
    return Limit(
        wall=samples.middle(EMPTY, "wall") + max((work + served) / rates.cores, carried),
        cpu=samples.middle(EMPTY, "cpu") + work,
    )
