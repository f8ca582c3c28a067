"""Long-lived processes, each known by a pid file that a reused pid cannot fool."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from . import net
from .layout import Problem, replace

proc = Path("/proc")  # a host's own processes look at the machine's instead, see host_init


def start_time(pid):
    """When a process started, in clock ticks since boot, or None if it is gone (a zombie counts as gone)."""
    state, started = stat(pid)
    return None if state in "ZX" else started


def stat(pid):
    """A process's state, X if there is none, and when it started."""
    try:
        with open(proc / str(pid) / "stat") as line:
            fields = line.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "X", None
    return fields[0], fields[19]


def remember(path, pid):
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, f"{pid} {start_time(pid)}\n")


def recall(path):
    """The pid that a pid file names, if that very process still lives."""
    try:
        pid, started = path.read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return int(pid) if start_time(pid) == started else None


def kill(path, number=signal.SIGKILL, wait_s=10.0):
    """Ends the process that a pid file names, and waits that long until it is gone."""
    pid = recall(path)
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    if wait_s and not wait_for(lambda: recall(path) is None, wait_s):
        raise Problem(f"process {pid} ({path.stem}) did not end within {wait_s:.0f} s of signal {int(number)}")


def wait_for(condition, limit_s, every_s=0.1):
    """Whether the condition came true within the limit."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True


class Service:
    """A process of the cloud that is not part of a host."""

    def __init__(self, layout, name, command, *, role="control", environment=None, ready=None, limit_s=120.0):
        self.layout = layout
        self.name = name
        self.command = [str(word) for word in command]
        self.role = role
        self.environment = environment or {}
        self.ready = ready
        self.limit_s = limit_s
        self.pid_file = layout.pids / f"{name}.pid"
        self.log = layout.logs / f"{name}.log"

    def pid(self):
        return recall(self.pid_file)

    def start(self):
        """Starts it unless it runs; what a killed one left behind in its session goes first."""
        if self.pid():
            return
        self.end_leftovers()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "MINICLOUD_SERVICE": self.marker(), **self.environment}
        with open(self.log, "wb") as log:
            child = subprocess.Popen(
                [*net.inside(self.layout, self.role), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        remember(self.pid_file, child.pid)

    def has_said(self, text):
        """Whether its log, which is new at each start, holds this text."""
        with open(self.log, errors="replace") as log:
            return any(text in line for line in log)

    def marker(self):
        return f"{self.layout.id}/{self.name}"

    def end_leftovers(self):
        end_until_none(lambda: marked(self.layout, f"MINICLOUD_SERVICE={self.marker()}", self.role))

    def wait(self):
        """Waits until it answers; a process that has ended, or never answers, is reported with its log's end."""
        deadline = time.monotonic() + self.limit_s
        while self.ready and not self.ready():
            if self.pid() is None:
                raise Problem(f"{self.name} ended while starting\n{tail(self.log)}")
            if time.monotonic() > deadline:
                raise Problem(f"{self.name} does not answer after {self.limit_s:.0f} s\n{tail(self.log)}")
            time.sleep(0.1)

    def stop(self, number=signal.SIGTERM, wait_s=30.0):
        kill(self.pid_file, number, wait_s)
        self.end_leftovers()


def run(layout, name, *commands, environment=None, role="control"):
    """Runs commands to their end, one after another, with one log; the first that fails is reported with its end."""
    log_path = layout.logs / f"{name}.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    for command in commands:
        with open(log_path, "ab") as log:
            done = subprocess.run(
                [*net.inside(layout, role), *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
            )
        if done.returncode:
            raise Problem(f"`{' '.join(map(str, command))}` failed with status {done.returncode}\n{tail(log_path)}")


def tail(path, lines=15):
    try:
        last = path.read_text(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        last = ["(it wrote nothing)"]
    return f"  log: {path}\n" + "\n".join(f"  | {line}" for line in last)


def inhabitants(layout, roles):
    """Every process in these network namespaces, found through the kernel: nothing can hide from it."""
    wanted = set()
    for role in roles:
        with contextlib.suppress(FileNotFoundError):
            wanted.add(os.stat(layout.namespace_file(role)).st_ino)
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{pid}/ns/net").st_ino in wanted and start_time(pid):
                found.append(int(pid))
        except OSError:
            continue  # gone meanwhile, or not ours to look at
    return [pid for pid in found if pid != os.getpid()]


def marked(layout, assignment, role):
    """The processes of a namespace that were started with this environment variable."""
    found = []
    for pid in inhabitants(layout, [role]):
        try:
            with open(f"/proc/{pid}/environ", "rb") as environment:
                if assignment.encode() in environment.read().split(b"\0"):
                    found.append(pid)
        except OSError:
            continue  # gone meanwhile
    return found


def forget_proxies():
    """A proxy leads outside; from here on everything that is spoken to is inside."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]


def end(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def end_all(layout, roles=None):
    """Ends whatever runs in these namespaces, or in all of the cloud's; says how many there were."""
    return end_until_none(lambda: inhabitants(layout, net.roles(layout) if roles is None else roles))


def end_until_none(find):
    """Kills until nothing is left: a process that is being born while the others die is met in the next round."""
    ended = set()
    for _ in range(500):
        left = find()
        if not left:
            return len(ended)
        for pid in left:
            end(pid)
        ended.update(left)
        time.sleep(0.02)
    raise Problem(f"these processes do not end: {left}")
