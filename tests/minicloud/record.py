"""Reads what the guests wrote down, and judges whether an instance ever ran twice at once.

A guest's lines say when it surely ran. That it is still there, though it writes nothing, is for the kernel to say: a
copy that only stands still is a copy, because it will wake with an old belief about its disk.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from . import process

GUEST = str(Path(__file__).with_name("guest.py"))


@dataclass
class Life:
    """One process of one instance on one boot of one host, from its first line to its end."""

    host: str
    boot_id: str
    pid: int
    first: float
    last: float

    def overlaps(self, other):
        return self.first <= other.last and other.first <= self.last


@dataclass
class Guest:
    """A guest's process as it is now; `pid` as its host sees it, which is how its lines name it."""

    instance: str
    host: str
    boot_id: str
    pid: int
    stopped: bool


def lives(path):
    """The lives that a record tells of, in the order in which they began."""
    found = {}
    with open(path) as lines:
        for line in lines:
            words = line.split()
            if len(words) != 4 or not line.endswith("\n"):
                continue  # a write that a full disk cut short
            host, boot_id, pid, at = words
            life = found.setdefault((host, boot_id, pid), Life(host, boot_id, int(pid), float(at), float(at)))
            life.first, life.last = min(life.first, float(at)), max(life.last, float(at))
    return sorted(found.values(), key=lambda life: life.first)


def twice(lives_of_one):
    """The pairs of lives that overlapped. A life spans its pauses."""
    return [
        (one, other)
        for index, one in enumerate(lives_of_one)
        for other in lives_of_one[index + 1 :]
        if one.overlaps(other)
    ]


def guests(host):
    """The guests that exist on a host, found by their command lines."""
    return [guest for pid in process.inhabitants(host.layout, [host.name]) if (guest := guest_of(pid))]


def guest_of(pid):
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None  # gone meanwhile
    if len(words) < 7 or words[3] != GUEST:
        return None
    inner_pid = next(int(line.split()[-1]) for line in status.splitlines() if line.startswith("NSpid:"))
    return Guest(words[4], words[5], words[6], inner_pid, process.stat(pid)[0] in "Tt")


def close(layout, dead):
    """Ends the lives of guests that are dead by now: until then nobody could know that they would not wake."""
    for guest in dead:
        write(layout.record / f"{guest.instance}.log", guest.host, guest.boot_id, guest.pid)


def write(path, host, boot_id, pid):
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, f"{host} {boot_id} {pid} {time.monotonic():.3f}\n".encode())
    finally:
        os.close(file)


def instances(layout):
    return sorted(path.stem for path in layout.record.glob("*.log"))


def report(layout, instance):
    """Where an instance runs or stands still now, every life it had, and which of them overlapped."""
    now = time.monotonic()  # before the look: whoever is seen after it and began before it existed now
    present = [guest for host in layout.hosts() for guest in guests(host) if guest.instance == instance]
    all_lives = lives(layout.record / f"{instance}.log")
    exists = {(guest.host, guest.boot_id, guest.pid) for guest in present}
    for life in all_lives:
        if (life.host, life.boot_id, life.pid) in exists and life.first <= now:
            life.last = max(life.last, now)
    return {
        "instance": instance,
        "runs_on": sorted({guest.host for guest in present if not guest.stopped}),
        "stands_still_on": sorted({guest.host for guest in present if guest.stopped}),
        "lives": [vars(life) for life in all_lives],
        "twice": [[vars(one), vars(other)] for one, other in twice(all_lives)],
    }
