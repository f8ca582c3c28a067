"""The life of a compute host, from power button to zombie.

              on                    crash
   (off) ───────────▶ (running) ───────────▶ (crashed: BMC says On, nothing runs)
     ▲                 │  ▲   ▲                  │
     └──── off ────────┘  │   └──── reboot ──────┘
                   hang ▼ │ resume
                     (hung: every process stopped, links down)

A host is a PID, mount, UTS and network namespace. Whenever it goes, its links go first: the world hears nothing of its
end, no FIN, no refusal. Its network namespace is thrown away with it, so that no socket of a former life comes back.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
import uuid

from . import net, process, record
from .layout import FIRST_HOST, NETWORKS, PACKAGE, Problem


@contextlib.contextmanager
def alone(host):
    """One change of a host at a time; the lock goes with the process that holds it, and outlives the cloud's data."""
    locks = host.layout.root / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with open(locks / host.name, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if host.layout.parameters is None:
            raise Problem(f"the cloud of {host.name} is down: run `minicloud up`")
        yield


def state(host):
    if process.recall(host.dir / "init.pid"):
        return "hung" if host.get("hung") else "running"
    return "crashed" if host.get("power") == "on" else "off"


def on(host):
    """Presses the power button of a host that is off; one that is on stays as it is, as at a real BMC."""
    with alone(host):
        if state(host) == "crashed":
            raise Problem(f"{host.name} is powered on but has crashed: `reboot` it, or `off` and then `on`")
        if state(host) == "hung":
            raise Problem(f"{host.name} is powered on but hung: `resume` or `reboot` it, or `off` and then `on`")
        if state(host) == "off":
            boot(host)


def boot(host):
    """Starts a host with a new boot id and no socket of its former life; its disk (the directory) is as it was."""
    clear(host)
    host.put("boot_id", uuid.uuid4())
    host.put("system_uuid", host.system_uuid)
    host.put("power", "on")
    host.put("hung", "")
    net.plug_in(host.layout, host.name, FIRST_HOST + host.number - 1, list(NETWORKS))
    log_path = host.layout.logs / f"{host.name}.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with open(log_path, "ab") as log:
        subprocess.Popen(
            [
                *net.inside(host.layout, host.name),
                "unshare",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount",
                "--uts",
                sys.executable,
                "-m",
                f"{__package__}.host_init",
                host.name,
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=PACKAGE.parent,
            env={**os.environ, "MINICLOUD_STATE": str(host.layout.root), "PYTHONPATH": str(PACKAGE.parent)},
        )
    for name in ("init", "nova-compute"):
        if not process.wait_for(lambda name=name: process.recall(host.dir / f"{name}.pid"), 10, every_s=0.02):
            clear(host)
            raise Problem(f"{host.name} did not boot\n{process.tail(log_path)}")
    link_up(host)


def off(host):
    """The power goes: links down, everything killed at once, and the BMC says Off."""
    with alone(host):
        die(host)
        host.put("power", "off")


def crash(host):
    """A panic: as `off`, but the power stays on."""
    with alone(host):
        if state(host) == "off":
            raise Problem(f"{host.name} is off: nothing in it can crash")
        die(host)


def reboot(host):
    """Killed and started again at once, with a new boot id: what a panic with `panic=1` or ForceRestart does."""
    with alone(host):
        die(host)
        boot(host)


def die(host):
    net.set_links(host.layout, host, NETWORKS, "down")
    alive = record.guests(host)
    # Killing the first process of a PID namespace makes the kernel kill all others before it is gone itself.
    process.kill(host.dir / "init.pid", wait_s=0)
    clear(host)
    host.put("hung", "")
    record.close(host.layout, alive)


def clear(host):
    """Ends what is in the host, a boot that was itself killed included, and throws the network namespace away."""
    process.end_all(host.layout, [host.name])
    net.remove(host.layout, host.name)


def hang(host):
    """Every process stops where it is, and nobody hears of it: what a wedged kernel or a frozen disk looks like."""
    with alone(host):
        running(host)
        host.put("hung", "yes")
        net.set_links(host.layout, host, NETWORKS, "down")
        signal_until(host, signal.SIGSTOP, lambda state: state in "Tt")


def resume(host):
    """The worst case: it goes on where it was, with every belief that it had."""
    with alone(host):
        if state(host) != "hung":
            raise Problem(f"{host.name} is {state(host)}, not hung")
        signal_until(host, signal.SIGCONT, lambda state: state not in "Tt")
        link_up(host)
        host.put("hung", "")


def signal_until(host, number, done):
    """Sends it to every process of the host until each is as wanted; one that was just being forked is met again."""
    for _ in range(500):
        left = [pid for pid in process.inhabitants(host.layout, [host.name]) if not done(process.stat(pid)[0])]
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        time.sleep(0.005)
    raise Problem(f"these processes of {host.name} do not obey signal {int(number)}: {left}")


def link_up(host):
    """Takes up the links that nobody has cut."""
    whole = [name for name in NETWORKS if name not in host.get("cut").split()]
    net.set_links(host.layout, host, whole, "up")


def cut(host, networks):
    """Takes the links down and nothing else: whatever runs in there goes on running. They stay cut over a boot."""
    with alone(host):
        host.put("cut", " ".join({*host.get("cut").split(), *networks}))
        net.set_links(host.layout, host, networks, "down")


def mend(host, networks):
    with alone(host):
        host.put("cut", " ".join({*host.get("cut").split()} - {*networks}))
        if state(host) == "running":
            link_up(host)


def bmc(host, mode):
    """ok; dead (swallows packets); slow (each answer takes 8 s); lies (always says Off and does nothing)."""
    with alone(host):
        host.put("bmc_mode", mode)
        net.set_bmc_reachable(host.layout, host, mode != "dead")


def compute(host, verb):
    """Starts or kills nova-compute alone; the guests live on."""
    with alone(host):
        pid = running(host)
        pid_file = host.dir / "nova-compute.pid"
        if verb in ("stop", "restart"):
            process.kill(pid_file)
        if verb in ("start", "restart"):
            os.kill(pid, signal.SIGUSR1)
            if not process.wait_for(lambda: process.recall(pid_file), 10, every_s=0.02):
                raise Problem(f"nova-compute does not start on {host.name}")


def services(host):
    """Starts anew what stands in its `services` directory; a boot starts it by itself."""
    with alone(host):
        os.kill(running(host), signal.SIGUSR2)


def enter(host):
    """The words that run a command inside a host, as its init would have started it."""
    pid = running(host)
    return ["nsenter", f"--target={pid}", "--pid", "--mount", "--uts", "--net", "--"]


def running(host):
    pid = process.recall(host.dir / "init.pid")
    if state(host) != "running":
        remedy = {"off": "`on`", "crashed": "`reboot`", "hung": "`resume`"}[state(host)]
        raise Problem(f"{host.name} is {state(host)}: nothing runs in it; {remedy} first")
    return pid


def describe(host):
    ports = net.links(host.layout)
    return {
        "name": host.name,
        "state": state(host),
        "power": host.get("power", "off"),
        "bmc_mode": host.get("bmc_mode", "ok"),
        "boot_id": host.get("boot_id"),
        "system_uuid": host.system_uuid,
        "bmc": host.bmc_url,
        "links": {net_: "up" if ports.get(f"{host.name}-{net_}") else "down" for net_ in NETWORKS},
        "addresses": host.addresses,
        "nova_compute": nova_compute(host),
    }


def nova_compute(host):
    """down; stopped: hung with its host; starting; up: it takes requests, if the control plane brings it any."""
    pid = process.recall(host.dir / "nova-compute.pid")
    if not pid:
        return "down"
    if process.stat(pid)[0] in "Tt":
        return "stopped"
    return "up" if (host.dir / "nova-compute.ready").exists() else "starting"
