"""What each service of the cloud, and what else runs in its namespaces, has used of the processors and of memory."""

import contextlib
import os
from dataclasses import dataclass

from minicloud import net, process

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Process:
    name: str
    cpu_s: float
    rss_mib: float


def processes(layout):
    """Every process of the cloud by (pid, start time), so that a pid used again is another process."""
    found = {}
    for pid in process.inhabitants(layout, net.roles(layout)):
        with contextlib.suppress(OSError, ValueError):
            key, one = look(pid)
            found[key] = one
    return found


def look(pid):
    with open(f"/proc/{pid}/stat") as line:
        fields = line.read().rpartition(")")[2].split()
    with open(f"/proc/{pid}/statm") as line:
        pages = int(line.read().split()[1])
    # What its children used is added once they are waited for: short helpers are not lost.
    ticks = sum(map(int, fields[11:15]))
    return (pid, fields[19]), Process(service_name(pid), ticks / TICKS, pages * os.sysconf("SC_PAGE_SIZE") / 2**20)


def one(pid):
    """A single process."""
    return look(pid)[1]


def service_name(pid):
    """The name by which the minicloud started it; for others, what their command line is known by."""
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        words = file.read().decode(errors="replace").split("\0")
    line = " ".join(words)
    for mark, name in (("minicloud.virt", "nova-compute"), ("guest.py", "guests"), ("failover.rows", "watch")):
        if mark in line:
            return name
    if words[0].startswith(
        "nova-"
    ):  # a title like `nova-conductor: ServiceWrapper worker(0)` overwrites the environment
        return words[0].partition(":")[0]
    if os.path.basename(words[0]) == "tandem-ha":
        return "tandem-ha heartbeat" if "heartbeat" in words else "tandem-ha"
    if "minicloud.host_init" in line:
        return "hosts"
    with open(f"/proc/{pid}/environ", "rb") as file:
        for assignment in file.read().split(b"\0"):
            if assignment.startswith(b"MINICLOUD_SERVICE="):
                name = assignment.decode().rpartition("/")[2]
                return "BMCs" if name.startswith("bmc-") else name
    return "other"


def spent(before, after):
    """CPU seconds by name between two looks; a process that ended in between counts with nothing."""
    total = {}
    for key, one in after.items():
        used = one.cpu_s - (before[key].cpu_s if key in before else 0.0)
        total[one.name] = total.get(one.name, 0.0) + used
    return {name: round(used, 2) for name, used in sorted(total.items(), key=lambda item: -item[1]) if used >= 0.01}


def rss_mib(looked, prefix):
    """What the services whose names begin like this hold in memory, shared pages counted for each."""
    total = {}
    for one in looked.values():
        if prefix and one.name.startswith(prefix):
            total[one.name] = total.get(one.name, 0.0) + one.rss_mib
    return {name: round(mib, 1) for name, mib in sorted(total.items())}


def highest(looks):
    """Of each name the highest of several."""
    return {
        name: max(look.get(name, 0.0) for look in looks) for name in sorted({name for look in looks for name in look})
    }
