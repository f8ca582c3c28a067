"""Watches instances from outside, at no cost to the cloud: Nova's rows as they change, and what the guests write down.

An instance is *active* on a host once both say so: Nova's row is active there with no task, and a guest has written
from there. Times are the machine's monotonic clock, which hosts and guests share.
"""

import json
import os
import subprocess
import threading
import time
from dataclasses import dataclass

from minicloud import net
from minicloud.layout import PACKAGE, Problem


@dataclass
class Row:
    """What Nova's database held of an instance from a moment on."""

    at: float
    uuid: str
    name: str
    host: str | None
    vm_state: str | None
    task_state: str | None

    @property
    def settled(self):
        return self.vm_state == "active" and self.task_state is None


class Watch:
    """Nova's rows, told by a process of OpenStack's Python (`rows.py`) whose lines a thread reads."""

    def __init__(self, layout):
        self.layout = layout
        self.history = {}  # uuid -> its rows, oldest first
        self.records = {}
        self.changed = threading.Condition()
        self.ready = False
        self.child = subprocess.Popen(
            [*net.inside(layout, "client"), layout.tool("python"), "-m", "failover.rows"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        )
        threading.Thread(target=self._read, daemon=True).start()
        if not self.wait(lambda: self.ready, 20):
            self.end()
            raise Problem("Nova's database was not reached within 20 s: see `minicloud status`")

    def _read(self):
        for line in self.child.stdout:
            change = json.loads(line)
            with self.changed:
                if "uuid" in change:
                    self.history.setdefault(change["uuid"], []).append(Row(**change))
                self.ready = True
                self.changed.notify_all()

    def end(self):
        self.child.kill()
        self.child.wait()
        self.child.stdout.close()

    def wait(self, condition, limit_s):
        """Whether the condition came true within the limit; it is asked at every change, and twice a second."""
        deadline = time.monotonic() + limit_s
        with self.changed:
            while not condition():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self.changed.wait(min(left, 0.5))
        return True

    def row(self, uuid):
        rows = self.history.get(uuid)
        return rows[-1] if rows and rows[-1].host is not None else None

    def on_host(self, host):
        """The instances that Nova has there now."""
        return [uuid for uuid in list(self.history) if (row := self.row(uuid)) and row.host == host]

    def settled_at(self, uuid, after, elsewhere_than=()):
        """When Nova first had it active and without a task, after this moment, on a host not among these."""
        for row in self.history.get(uuid, []):
            if row.at >= after and row.settled and row.host not in elsewhere_than:
                return row.at
        return None

    def record(self, uuid):
        """The guest's record as far as it has been written."""
        record = self.records.setdefault(uuid, Record(self.layout.record / f"{uuid}.log"))
        record.read_on()
        return record

    def ran_at(self, uuid, after, elsewhere_than=()):
        """When a guest of the instance first wrote, in a life begun after this moment, from a host not among these."""
        begun = [
            life.first
            for life in self.record(uuid).lives.values()
            if life.first >= after and life.host not in elsewhere_than
        ]
        return min(begun, default=None)

    def active_at(self, uuid, after, elsewhere_than=()):
        settled = self.settled_at(uuid, after, elsewhere_than)
        ran = self.ran_at(uuid, after, elsewhere_than) if settled else None
        return max(settled, ran) if settled and ran else None

    def forget(self, uuid):
        """Its record goes too, so that what is planned of one story is not held against the next."""
        self.history.pop(uuid, None)
        self.records.pop(uuid, None)
        (self.layout.record / f"{uuid}.log").unlink(missing_ok=True)


@dataclass
class Span:
    """A life of a guest, as far as its record tells: where, and when it wrote first and last."""

    host: str
    boot_id: str
    first: float
    last: float


class Record:
    """A guest's record, read as it grows; who ran twice is `minicloud who-runs`'s to say, which asks the kernel too."""

    def __init__(self, path):
        self.path = path
        self.offset = 0
        self.lives = {}

    def read_on(self):
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                new = file.read()
        except FileNotFoundError:
            return
        whole = new.rfind(b"\n") + 1
        self.offset += whole
        for line in new[:whole].decode().splitlines():
            words = line.split()
            if len(words) != 4:
                continue
            host, boot_id, pid, at = *words[:3], float(words[3])
            life = self.lives.setdefault((host, boot_id, pid), Span(host, boot_id, at, at))
            life.first, life.last = min(life.first, at), max(life.last, at)

    def writes_on(self, within_s=2.0):
        """The hosts from which it was written just now."""
        since = time.monotonic() - within_s
        return sorted({life.host for life in self.lives.values() if life.last >= since})
