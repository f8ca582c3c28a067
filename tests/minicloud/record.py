"""Reads what the guests wrote down, and judges whether an instance ever ran twice at once."""

import time
from dataclasses import dataclass

FRESH_S = 1.0  # five missed lines: a guest that has not written for this long is not running


@dataclass
class Life:
    """One process of one instance on one boot of one host, from its first line to its last."""

    host: str
    boot_id: str
    pid: int
    first: float
    last: float

    def overlaps(self, other):
        return self.first <= other.last and other.first <= self.last


def lives(path):
    """The lives that a record tells of, in the order in which they began."""
    found = {}
    with open(path) as lines:
        for line in lines:
            if not line.endswith("\n"):
                break  # a write that a full disk cut short
            host, boot_id, pid, at = line.split()
            life = found.setdefault((host, boot_id, pid), Life(host, boot_id, int(pid), float(at), float(at)))
            life.first, life.last = min(life.first, float(at)), max(life.last, float(at))
    return sorted(found.values(), key=lambda life: life.first)


def twice(lives_of_one):
    """The pairs of lives that overlapped.

    A life spans its pauses: a copy that slept while another ran and then went on has been a second copy all the time,
    because it woke with an old belief about its disk.
    """
    return [
        (one, other)
        for index, one in enumerate(lives_of_one)
        for other in lives_of_one[index + 1 :]
        if one.overlaps(other)
    ]


def instances(layout):
    return sorted(path.stem for path in layout.record.glob("*.log"))


def report(layout, instance):
    """Where an instance runs now, every life it had, and which of them overlapped."""
    now = time.monotonic()
    all_lives = lives(layout.record / f"{instance}.log")
    return {
        "instance": instance,
        "runs_on": sorted({life.host for life in all_lives if now - life.last < FRESH_S}),
        "lives": [vars(life) for life in all_lives],
        "twice": [[vars(one), vars(other)] for one, other in twice(all_lives)],
    }
