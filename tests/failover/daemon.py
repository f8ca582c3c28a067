"""tandem-ha on a stage: its configuration, its process, the heartbeats of the hosts, and what it says of itself."""

import contextlib
import http.client
import json
import os
import secrets
import subprocess
import time
import urllib.error
import urllib.request
from datetime import datetime
from pathlib import Path

from minicloud import hosts, net, process
from minicloud.layout import BMC_PASSWORD, BMC_USER, CLIENT, NETWORKS, PACKAGE, Problem, replace

from .stage import environment

ROOT = PACKAGE.parent.parent
RESULTS = Path(os.environ.get("TANDEM_RESULTS") or ROOT / "target")
BINARIES = Path(os.environ.get("TANDEM_BIN") or ROOT / "target" / "release")
API = "http://127.0.0.1:15868"
HEARTBEAT_PORT = 15869
SSH_PORT = 22


class Tandem:
    """One tandem-ha with one database, from its first start to its end; it may be killed and started in between."""

    def __init__(self, stage, run):
        self.stage = stage
        self.run = run
        self.config = run / "tandem-ha.toml"
        self.socket = run / "ha.sock"
        self.log = run / "tandem-ha.log"
        self.child = None

    # ---- its life ----

    def prepare(self):
        """A new database, and a configuration of the default policy."""
        self.run.mkdir(parents=True, exist_ok=True)
        for old in (*self.run.glob("ha.sqlite*"), self.log, self.socket):
            old.unlink(missing_ok=True)
        secret(self.run / "bmc-password", BMC_PASSWORD)
        self.config.write_text(configuration(self.stage, self.run))

    def start(self):
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(
                [*net.inside(self.stage.layout, "client"), BINARIES / "tandem-ha", "--config", self.config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(self.stage.layout),
                start_new_session=True,
            )

    def wait_until_well(self, limit_s=90):
        """Until it sees, and every host is well by every channel there is."""
        deadline = time.monotonic() + limit_s
        while why := self.what_is_missing():
            if self.child.poll() is not None:
                raise Problem(f"tandem-ha ended with status {self.child.returncode}\n{process.tail(self.log)}")
            if time.monotonic() > deadline:
                raise Problem(f"after {limit_s} s tandem-ha still has this: {why}\n{process.tail(self.log)}")
            time.sleep(0.1)

    def what_is_missing(self):
        try:
            self.get("/healthcheck")
            known = {host["name"]: host for host in self.get("/v2/hosts")["hosts"]}
        except Problem as problem:
            return str(problem)
        for name in self.stage.host_names():
            host = known.get(name)
            if host is None or host["standing"] != "well":
                return f"{name} is {host['standing'] + ': ' + host['why'] if host else 'unknown to it'}"
            for channel in host["channels"]:
                if not channel["alive"] or (channel["kind"] == "heartbeat" and not channel["proven"]):
                    return f"{name} is not heard by {channel['kind']} over {channel['network']}"
            if host["power"]["state"] != "on" or not host["power"]["bound"]:
                return f"the BMC of {name} is not bound: {host['power']}"
        return None

    def kill(self):
        """kill -9."""
        self.child.kill()
        self.child.wait()

    def end(self):
        if self.child and self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()

    # ---- what it says, and what it is told ----

    def get(self, path):
        try:
            with urllib.request.urlopen(API + path, timeout=5) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise Problem(f"GET {path}: tandem-ha answered {error.code}: {error.read().decode(errors='replace')[:300]}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Problem(f"GET {path}: tandem-ha does not answer: {error!r}")

    def command(self, *words):
        """`tandem`, over the control socket; its standard output."""
        try:
            done = subprocess.run(
                [BINARIES / "tandem", *words],
                capture_output=True,
                text=True,
                env={**os.environ, "TANDEM_HA_URL": f"unix:{self.socket}"},
                timeout=30,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Problem(f"`tandem {' '.join(words)}` did not end: {error}")
        if done.returncode:
            raise Problem(f"`tandem {' '.join(words)}` ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def hosts(self):
        return {host["name"]: host for host in self.get("/v2/hosts")["hosts"]}

    def incidents(self):
        """Every incident of its database with all it says, oldest first."""
        found = self.listed()
        return [self.get(f"/v2/incidents/{one['id']}")["incident"] for one in reversed(found)]

    def listed(self):
        """The same without their details, newest first."""
        return self.get("/v2/incidents?state=all&limit=1000")["incidents"]


def configuration(stage, run):
    """The default policy; what is written is where things are."""
    lines = [
        f'control_socket = "{run}/ha.sock"',
        "[api]",
        f'listen = "{API.removeprefix("http://")}"',
        "[store]",
        f'path = "{run}/ha.sqlite"',
        "[openstack]",
        'cloud = "minicloud"',
        "[heartbeat]",
        f'key_file = "{key_file(stage)}"',
    ]
    for name, prefix in NETWORKS.items():
        lines += [
            "[[heartbeat.networks]]",
            f'name = "{name}"',
            f'listen = "{prefix}.{CLIENT}:{HEARTBEAT_PORT}"',
        ]
    for host in stage.layout.hosts():
        probes = ", ".join(
            f'{{ network = "{name}", address = "{address}:{SSH_PORT}" }}' for name, address in host.addresses.items()
        )
        lines += [
            f"[hosts.{host.name}]",
            f"probes = [{probes}]",
            f'redfish = {{ address = "{host.bmc_url}", user = "{BMC_USER}", password_file = "{run}/bmc-password" }}',
        ]
    lines += ["[segments.all]", 'hosts = ["cmp*"]', 'root_disk = "shared"']
    return "\n".join(lines) + "\n"


# ---- the senders on the hosts ----


def key_file(stage):
    return stage.layout.live / "heartbeat.key"


def send_heartbeats(stage):
    """Has every host send heartbeats, now and after each boot of its own."""
    if not key_file(stage).exists():
        secret(key_file(stage), secrets.token_hex(32))
    for host in stage.layout.hosts():
        config = host.dir / "heartbeat.toml"
        lines = [
            "[heartbeat]",
            f'key_file = "{key_file(stage)}"',
            f'host = "{host.name}"',
            # Where the machine shows none, its hosts do not either.
            f'system_uuid_file = "{host.dir / "system_uuid"}"',
        ]
        for name, prefix in NETWORKS.items():
            lines += [
                "[[heartbeat.networks]]",
                f'name = "{name}"',
                f'to = "{prefix}.{CLIENT}:{HEARTBEAT_PORT}"',
                f'source = "{host.addresses[name]}"',
            ]
        config.write_text("\n".join(lines) + "\n")
        service = host.dir / "services" / "tandem-heartbeat"
        service.parent.mkdir(exist_ok=True)
        replace(service, f"#!/bin/sh\nexec '{BINARIES}/tandem-ha' heartbeat --config '{config}'\n")
        service.chmod(0o755)
        hosts.services(host)


def secret(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def seconds(when):
    """A time of tandem-ha's as seconds since 1970."""
    return datetime.fromisoformat(when).timestamp()
