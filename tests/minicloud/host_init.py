"""The first process of a host: gives it an identity, starts nova-compute, answers on port 22, reaps what dies.

It runs as PID 1 of a PID namespace (`hosts.boot`), so killing it kills the host. SIGUSR1 starts nova-compute again,
SIGUSR2 the host's other services.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from . import process
from .layout import Layout

BANNER = b"SSH-2.0-minicloud\r\n"


def main(name):
    layout = Layout()
    host = layout.host(name)
    settle(host)
    compute, services = Compute(layout, host), Services(layout, host)
    for number, part in ((signal.SIGUSR1, compute), (signal.SIGUSR2, services)):
        signal.signal(number, lambda *_, part=part: part.wanted.set())
        threading.Thread(target=part.keep_starting, daemon=True).start()
    for address in host.addresses.values():
        listen(address)
    write_pid(host, "init")
    while True:
        reap()


def settle(host):
    """Its own /proc, host name, boot id and, where the machine has one, system UUID."""
    outside = outside_proc(host)
    outside.mkdir(exist_ok=True)
    mount("--bind", "/proc", outside)
    mount("-t", "proc", "proc", "/proc")
    subprocess.run(["hostname", host.name], check=True)
    for source, target in [
        ("boot_id", "/proc/sys/kernel/random/boot_id"),
        ("system_uuid", "/sys/class/dmi/id/product_uuid"),
    ]:
        if Path(target).exists():
            mount("--bind", host.dir / source, target)


def mount(*words):
    subprocess.run(["mount", *map(str, words)], check=True)


def outside_proc(host):
    """The machine's /proc as it is outside: there a process has the pid by which others can kill it."""
    return host.dir / "outside-proc"


def write_pid(host, name):
    process.proc = outside_proc(host)
    process.remember(host.dir / f"{name}.pid", int(os.readlink(process.proc / "self")))


def listen(address):
    """A living host answers here; a dead one is not even there to refuse."""
    server = socket.create_server((address, 22), backlog=16)

    def serve():
        while True:
            peer, _ = server.accept()
            with peer:
                peer.sendall(BANNER)

    threading.Thread(target=serve, daemon=True).start()


class Compute:
    """nova-compute, started once at boot and again whenever somebody asks."""

    def __init__(self, layout, host):
        self.layout = layout
        self.host = host
        self.wanted = threading.Event()
        self.wanted.set()

    def keep_starting(self):
        process.proc = outside_proc(self.host)
        while True:
            self.wanted.wait()
            self.wanted.clear()
            if not self.runs():
                self.start()
                # Asked again meanwhile, it must not be started twice.
                process.wait_for(self.runs, 10, every_s=0.02)

    def runs(self):
        return process.recall(self.host.dir / "nova-compute.pid") is not None

    def start(self):
        etc = self.layout.etc / "nova"
        command = [
            self.layout.tool("python"),
            "-m",
            f"{__package__}.virt",
            "--config-file",
            etc / "compute.conf",
            "--config-file",
            etc / f"{self.host.name}.conf",
        ]
        with open(self.layout.logs / f"nova-compute-{self.host.name}.log", "ab") as log:
            subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.host_init", "--become", self.host.name, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


class Services:
    """What stands in the host's `services` directory: executables, each started at boot, and all anew when asked."""

    def __init__(self, layout, host):
        self.logs = layout.logs
        self.host = host
        self.running = []
        self.wanted = threading.Event()
        self.wanted.set()

    def keep_starting(self):
        while True:
            self.wanted.wait()
            self.wanted.clear()
            for child in self.running:
                child.kill()
            self.running = [self.start(path) for path in sorted((self.host.dir / "services").glob("*"))]

    def start(self, path):
        with open(self.logs / f"{path.name}-{self.host.name}.log", "ab") as log:
            return subprocess.Popen([path], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def become(name, command):
    """Writes down its own pid and becomes nova-compute."""
    host = Layout().host(name)
    (host.dir / "nova-compute.ready").unlink(missing_ok=True)
    write_pid(host, "nova-compute")
    os.execv(command[0], command)


def reap():
    try:
        os.wait()
    except ChildProcessError:
        signal.pause()


if __name__ == "__main__":
    if sys.argv[1] == "--become":
        become(sys.argv[2], sys.argv[3:])
    main(sys.argv[1])
