"""Brings the cloud up, step by step, and down again without a trace.

Every step asks first what is there, so `up` after a kill -9 of anything, itself included, ends in the same cloud.
"""

import contextlib
import fcntl
import json
import os
import shutil
import socket
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime

from . import config, data, hosts, identity, install, net, process
from .layout import MOST_HOSTS, PACKAGE, PORTS, Problem, replace
from .process import Service


@contextlib.contextmanager
def alone(layout):
    """One `up` or `down` at a time."""
    layout.root.mkdir(parents=True, exist_ok=True)
    with open(layout.root / "lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise Problem(
                f"another minicloud ({lock.read().strip()}) is at work in {layout.root}: wait for it or end it"
            )
        lock.truncate(0)
        lock.write(f"pid {os.getpid()}")
        lock.flush()
        yield


class Steps:
    """A line for each step, with its time."""

    def __init__(self):
        self.started = time.monotonic()

    @contextlib.contextmanager
    def step(self, name):
        begun = time.monotonic()
        note = []
        try:
            yield note.append
        except Problem as problem:
            raise Problem(f"step `{name}` failed: {problem}")
        print(
            f"{time.monotonic() - begun:7.1f} s  {name}{': ' if note else ''}{''.join(filter(None, note))}", flush=True
        )

    def end(self, text):
        print(f"{time.monotonic() - self.started:7.1f} s  {text}", flush=True)


def up(layout, parameters):
    steps = Steps()
    with alone(layout):
        check(layout, parameters)
        remove_gone(layout)
        with steps.step("packages") as note:
            note(install.distribution_packages(layout))
        with steps.step("OpenStack from PyPI") as note:
            note(install.openstack(layout))
        steps.started = time.monotonic()
        process.forget_proxies()
        settle_parameters(layout, parameters)
        with steps.step("network"):
            net.create(layout, parameters["computes"])
            net.enter(layout, "client")
        with steps.step("data") as note:
            note(data.prepare(layout, parameters))
        services = {service.name: service for service in control_plane(layout, parameters)}
        with steps.step("MariaDB, RabbitMQ, memcached"):
            start(services, "epmd", "memcached", "mariadb")
            start(services, "rabbitmq", wait=False)
        if not data.seeded(layout):
            seed(layout, services, steps)
        with steps.step("control plane"):
            start(services, *services, wait=False)
            # A nova-compute that finds no conductor asks again only ten seconds later; without Placement, a minute.
            services["nova-conductor"].wait()
            services["placement-api"].wait()
            for host in layout.hosts():
                make_well(layout, host)
            for service in services.values():
                service.wait()
        with steps.step("flavors, image, volume type"):
            identity.fill_cloud()
        with steps.step("hosts"):
            for host in layout.hosts():
                bmc(layout, host).wait()
            wait_for_hosts(layout)
        steps.end(f"the cloud is up, {memory_mib(layout)} MiB")
        print(f"the way in: `minicloud exec COMMAND`, or {' '.join(net.inside(layout, 'client'))} COMMAND")


def make_well(layout, host):
    """On, linked, with an honest BMC."""
    config.nova_compute(host)
    if hosts.state(host) in ("crashed", "hung"):
        hosts.off(host)
    hosts.on(host)
    hosts.mend(host, net.NETWORKS)
    if not process.recall(host.dir / "nova-compute.pid"):
        hosts.compute(host, "start")
    bmc(layout, host).start()
    hosts.bmc(host, "ok")


def check(layout, wanted):
    """The parameters of a running cloud stay; only hosts and Masakari may be added to it."""
    if not 1 <= wanted["computes"] <= MOST_HOSTS:
        raise Problem(f"--computes {wanted['computes']}: from 1 to {MOST_HOSTS} hosts are possible")
    for option, key in (("--report-interval", "report_interval_s"), ("--service-down-time", "service_down_time_s")):
        if wanted[key] < 1:
            raise Problem(f"{option} {wanted[key]}: at least one second")
    if wanted["service_down_time_s"] <= wanted["report_interval_s"]:
        raise Problem("--service-down-time must be longer than --report-interval, or every host looks dead in between")
    present = layout.parameters or {}
    for key, value in wanted.items():
        added = key in ("computes", "with_masakari") and value > present.get(key, value)
        if value != present.get(key, value) and not added:
            raise Problem(f"the cloud is up with {key} = {present[key]}, not {value}: `minicloud down` first")


def settle_parameters(layout, wanted):
    layout.live.mkdir(parents=True, exist_ok=True)
    replace(layout.parameters_file, json.dumps(wanted) + "\n")
    layout.record.mkdir(exist_ok=True)


def seed(layout, services, steps):
    """Schemas, Keystone's first user, catalogue; then a copy of the data for the next `up`."""
    with steps.step("schemas"):
        data.make_schemas(layout)
    with steps.step("Keystone, users, catalogue"):
        start(services, "keystone")
        identity.fill_keystone()
    with steps.step("copy for the next time"):
        services["mariadb"].stop()
        data.keep(layout)
        start(services, "mariadb")


# ---- the control plane ----


def control_plane(layout, parameters):
    """Its services in the order in which they are started."""
    etc = layout.etc
    yield Service(layout, "epmd", ["epmd", "-address", "127.0.0.1"], ready=None)
    yield Service(
        layout, "memcached", ["memcached", "-u", "root", "-l", config.ADDRESS, "-m", "64"], ready=port("memcached")
    )
    yield Service(layout, "mariadb", ["mariadbd", f"--defaults-file={etc / 'mariadb.cnf'}"], ready=port("mariadb"))
    yield Service(
        layout,
        "rabbitmq",
        ["/usr/lib/rabbitmq/bin/rabbitmq-server"],
        ready=port("rabbitmq"),
        environment=rabbitmq_environment(layout),
    )
    yield uwsgi(
        layout,
        "keystone",
        "keystone.wsgi.api",
        "/v3",
        processes=2,
        environment={"OS_KEYSTONE_CONFIG_DIR": etc / "keystone"},
    )
    yield uwsgi(
        layout, "placement", "placement.wsgi.api", "/", environment={"OS_PLACEMENT_CONFIG_DIR": etc / "placement"}
    )
    yield daemon(layout, "nova", "conductor", says="Starting conductor node")
    yield daemon(layout, "nova", "scheduler")
    yield uwsgi(
        layout, "nova", "nova.wsgi.osapi_compute", "/", processes=2, environment={"OS_NOVA_CONFIG_DIR": etc / "nova"}
    )
    yield uwsgi(
        layout,
        "neutron",
        "neutron.wsgi.api",
        "/",
        environment={"OS_NEUTRON_CONFIG_DIR": etc / "neutron", "OS_NEUTRON_CONFIG_FILES": "neutron.conf"},
    )
    yield uwsgi(
        layout, "glance", "glance.wsgi.api", "/healthcheck", environment={"OS_GLANCE_CONFIG_DIR": etc / "glance"}
    )
    yield uwsgi(layout, "cinder", "cinder.wsgi.api", "/", arguments=["--config-file", etc / "cinder" / "cinder.conf"])
    yield daemon(layout, "cinder", "scheduler")
    yield daemon(layout, "cinder", "volume")
    if parameters["with_masakari"]:
        yield uwsgi(
            layout,
            "masakari",
            "masakari.wsgi.api",
            "/",
            environment={"OS_MASAKARI_CONFIG_DIR": etc / "masakari"},
            arguments=["--config-file", etc / "masakari" / "masakari.conf"],
        )
        yield daemon(layout, "masakari", "engine")


def uwsgi(layout, name, module, path, *, processes=1, environment=None, arguments=()):
    """An API. `arguments` is for those that read their configuration from argv (Cinder, Masakari's second CONF())."""
    command = [
        layout.tool("uwsgi"),
        "--virtualenv",
        layout.venv,
        "--http-socket",
        f"{config.ADDRESS}:{PORTS[name]}",
        "--module",
        f"{module}:application",
        "--processes",
        processes,
        "--threads",
        4,
        "--master",
        "--die-on-term",
        "--no-orphans",
        "--need-app",
        "--enable-threads",
        "--lazy-apps",
        "--thunder-lock",
        "--buffer-size",
        65535,
        "--add-header",
        "Connection: close",
        "--procname",
        f"{name}-api",
    ]
    if arguments:
        command += ["--pyargv", " ".join(map(str, arguments))]
    return Service(
        layout,
        f"{name}-api" if name != "keystone" else name,
        command,
        ready=answers(name, path),
        environment={key: str(value) for key, value in (environment or {}).items()},
    )


def daemon(layout, project, part, says=None):
    """A service without a port; where others wait for it, its log `says` when it is there."""
    service = Service(
        layout,
        f"{project}-{part}",
        [layout.tool(f"{project}-{part}"), "--config-file", layout.etc / project / f"{project}.conf"],
        environment={"PYTHONPATH": str(PACKAGE.parent)},
    )
    service.ready = (lambda: service.has_said(says)) if says else None
    return service


def rabbitmq_environment(layout):
    base = layout.data / "rabbitmq"
    return {
        "HOME": str(base),
        "RABBITMQ_NODENAME": "minicloud@localhost",
        "RABBITMQ_MNESIA_BASE": str(base / "mnesia"),
        "RABBITMQ_LOG_BASE": str(layout.logs),
        "RABBITMQ_CONFIG_FILE": str(layout.etc / "rabbitmq"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(layout.etc / "rabbitmq-plugins"),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}"
        " +sbwt none +sbwtdcpu none +sbwtdio none",
    }


def bmc(layout, host):
    return Service(
        layout,
        f"bmc-{host.name}",
        [layout.tool("python"), "-m", "minicloud.bmc", host.name],
        role="client",
        environment={"PYTHONPATH": str(PACKAGE.parent), "MINICLOUD_STATE": str(layout.root)},
        ready=lambda: fetch(f"{host.bmc_url}/redfish/v1/"),
    )


def start(services, *names, wait=True):
    for name in names:
        services[name].start()
    for name in names if wait else ():
        services[name].wait()


def port(service):
    def ready():
        with contextlib.suppress(OSError), socket.create_connection((config.ADDRESS, PORTS[service]), timeout=2):
            return True
        return False

    return ready


def answers(service, path):
    return lambda: fetch(config.url(service, path))


def fetch(where):
    """Whether anything but a server's error comes back."""
    try:
        with urllib.request.urlopen(where, timeout=10):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


def wait_for_hosts(layout):
    """Every nova-compute is up in Nova, mapped into its cell and known to Placement: the scheduler would take it."""
    api = identity.Api()
    wanted = {host.name: host for host in layout.hosts()}
    restarted = set()

    def seen():
        services = api.get("nova", "/v2.1/os-services?binary=nova-compute")["services"]
        for service in services:
            host = wanted.get(service["host"])
            if host is None or hosts.nova_compute(host) != "up":
                continue
            if not take_back(api, service) and service["forced_down"] and host not in restarted:
                # It was evacuated from while it ran: only a start completes that.
                hosts.compute(host, "restart")
                restarted.add(host)
        by_host = {service["host"]: service for service in services}
        at_work = {name for name, host in wanted.items() if name in by_host and takes_work(host, by_host[name])}
        mapped = {row["service"]["host"] for row in api.get("nova", "/v2.1/os-hypervisors/detail")["hypervisors"]}
        providers = api.get("placement", "/resource_providers")["resource_providers"]
        return at_work & mapped & {provider["name"] for provider in providers}

    deadline = time.monotonic() + 120
    while missing := sorted(wanted.keys() - seen()):
        dead = [name for name in missing if not process.recall(layout.host(name).dir / "nova-compute.pid")]
        if dead or time.monotonic() > deadline:
            name = (dead or missing)[0]
            why = "ended while starting" if dead else "is not up in Nova after 120 s"
            raise Problem(f"nova-compute on {name} {why}\n{process.tail(layout.logs / f'nova-compute-{name}.log')}")
        time.sleep(0.5)


def takes_work(host, service):
    """Whether the scheduler would choose the host, and it would do what it is told.

    Nova's `state` alone may be an up of a former life, about to end: it counts once nova-compute has reported since it,
    and what carries its reports, were started. One that never reported is so new that its state is true.
    """
    if service["state"] != "up" or hosts.nova_compute(host) != "up":
        return False
    carriers = [host.layout.pids / f"{name}.pid" for name in ("mariadb", "rabbitmq", "nova-conductor")]
    since = max(os.stat(mark).st_mtime for mark in (host.dir / "nova-compute.ready", *carriers))
    reported = service["updated_at"]
    return reported is None or datetime.fromisoformat(reported).replace(tzinfo=UTC).timestamp() >= since


def take_back(api, service):
    """Lifts what somebody did to a compute service that takes requests, one thing at a look; False: Nova refuses.

    It does while evacuations from the host are not completed. Of its enabling it tells only a compute that it sees up;
    otherwise Placement would keep the scheduler from the host for another minute.
    """
    where = f"/v2.1/os-services/{service['id']}"
    try:
        if service["forced_down"]:
            api.put("nova", where, {"forced_down": False})
        elif service["status"] == "disabled" and service["state"] == "up":
            api.put("nova", where, {"status": "enabled"})
    except Problem:
        return False
    return True


# ---- down, status ----


def down(layout):
    """Ends everything in the cloud's namespaces, the namespaces, and the cloud's data; the cache stays."""
    foreign = layout.live.exists() and layout.parameters is None and any(layout.live.iterdir())
    if foreign:
        raise Problem(f"{layout.live} is not a minicloud's (no parameters.json): remove it yourself if it may go")
    steps = Steps()
    with contextlib.ExitStack() as held:
        held.enter_context(alone(layout))
        for host in layout.hosts():  # no host is switched on behind our back
            held.enter_context(hosts.alone(host))
        with steps.step("processes") as note:
            note(f"{process.end_all(layout)} ended")
        with steps.step("namespaces"):
            for role in sorted(net.roles(layout), key=lambda role: role == "fabric"):
                net.remove(layout, role)
        with steps.step("data"):
            if layout.live.exists():
                layout.live.rename(layout.root / f"gone-{os.getpid()}")
            remove_gone(layout)


def remove_gone(layout):
    """Data that is no longer a cloud's: renamed first, so that nobody ever takes half of it for whole."""
    for gone in layout.root.glob("gone-*"):
        shutil.rmtree(gone)


def status(layout):
    """Everything that should run, and whether it does."""
    parameters = layout.parameters
    if parameters is None or not net.exists(layout, "client"):
        return {"up": False, "root": str(layout.root), "services": [], "hosts": []}
    services = [*control_plane(layout, parameters), *[bmc(layout, host) for host in layout.hosts()]]
    rows = [{"name": service.name, "pid": service.pid(), "log": str(service.log)} for service in services]
    described = [hosts.describe(host) for host in layout.hosts()]
    well = all(row["pid"] for row in rows) and all(
        host["state"] == "running"
        and host["nova_compute"] == "up"
        and set(host["links"].values()) == {"up"}
        and host["bmc_mode"] == "ok"
        for host in described
    )
    return {
        "up": well,
        "root": str(layout.root),
        "parameters": parameters,
        "services": rows,
        "hosts": described,
        "memory_mib": memory_mib(layout),
        "way_in": " ".join(net.inside(layout, "client")),
        "keystone": config.url("keystone", "/v3"),
    }


def memory_mib(layout):
    """What all its processes hold, shared pages counted once."""
    total_kib = 0
    for pid in process.inhabitants(layout, net.roles(layout)):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as rollup:
            total_kib += next((int(line.split()[1]) for line in rollup if line.startswith("Pss:")), 0)
    return total_kib // 1024
