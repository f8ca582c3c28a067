"""Where everything of a minicloud stands: directories, namespaces, addresses, ports.

All of it follows from one directory, so that two checkouts never meet: the names of the namespaces carry a short
digest of its path, and every address exists only inside those namespaces.

           ┌── control ── Keystone, Nova, Placement, Glance, Neutron, Cinder, MariaDB, RabbitMQ, memcached
 fabric ───┼── client ─── BMCs, `minicloud exec`
 (bridges) └── cmp1..N ── nova-compute and its guests
"""

import hashlib
import json
import os
import uuid
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent

# RFC 2544 keeps 198.18.0.0/15 for testing: it is nobody's management network, so a cloud in here shadows no route
# that its user needs.
NETWORKS = {"mgmt": "198.18.1", "storage": "198.18.2"}
BMC_NETWORK = "198.18.3"
CLIENT = 2
CONTROL = 10
FIRST_HOST = 11
MOST_HOSTS = 200

PORTS = {
    "keystone": 5000,
    "placement": 8778,
    "glance": 9292,
    "neutron": 9696,
    "nova": 8774,
    "cinder": 8776,
    "masakari": 15868,
    "mariadb": 3306,
    "rabbitmq": 5672,
    "memcached": 11211,
}
BMC_PORT = 8000
BMC_USER = BMC_PASSWORD = "minicloud"
PASSWORD = "minicloud"
REGION = "RegionOne"


class Layout:
    """The paths and names of the cloud that lives in `root`."""

    def __init__(self, root=None):
        default = PACKAGE.parent.parent / "target" / "minicloud"
        self.root = Path(root or os.environ.get("MINICLOUD_STATE") or default).resolve()
        self.id = hashlib.sha256(str(self.root).encode()).hexdigest()[:6]
        self.live = self.root / "live"  # one cloud from `up` to `down`
        self.cache = self.root / "cache"
        self.etc = self.live / "etc"
        self.data = self.live / "data"
        self.logs = self.live / "log"
        self.pids = self.live / "pid"
        self.record = self.live / "record"
        self.clouds_yaml = self.live / "clouds.yaml"
        self.parameters_file = self.live / "parameters.json"

    @property
    def venv(self):
        """One virtual environment for each set of pins, so that an old one never serves new pins."""
        return self.root / f"venv-{digest('requirements.txt', 'constraints.txt')}"

    def tool(self, name):
        return str(self.venv / "bin" / name)

    def namespace(self, role):
        return f"mc{self.id}-{role}"

    def namespace_file(self, role):
        return Path("/run/netns") / self.namespace(role)

    @property
    def parameters(self):
        """What `up` was asked for, or None when no cloud was made here."""
        try:
            return json.loads(self.parameters_file.read_text())
        except FileNotFoundError:
            return None

    def hosts(self):
        count = (self.parameters or {}).get("computes", 0)
        return [Host(self, number) for number in range(1, count + 1)]

    def host(self, name):
        known = self.hosts()
        for host in known:
            if host.name == name:
                return host
        names = ", ".join(host.name for host in known) or "none: run `minicloud up`"
        raise Problem(f"there is no host {name}; hosts: {names}")


class Host:
    """The paths and addresses of one compute host."""

    def __init__(self, layout, number):
        self.layout = layout
        self.number = number
        self.name = f"cmp{number}"
        self.dir = layout.live / "hosts" / self.name
        self.system_uuid = str(uuid.uuid5(uuid.NAMESPACE_URL, f"minicloud:{layout.root}:{self.name}"))
        last = FIRST_HOST + number - 1
        self.addresses = {net: f"{prefix}.{last}" for net, prefix in NETWORKS.items()}
        self.bmc_address = f"{BMC_NETWORK}.{last}"
        self.bmc_url = f"http://{self.bmc_address}:{BMC_PORT}"

    def get(self, key, default=""):
        """A remembered fact: `power` (on, off), `boot_id`, `bmc_mode` (as in `bmc`), `hung` (yes), `cut` (links)."""
        try:
            return (self.dir / key).read_text().strip()
        except FileNotFoundError:
            return default

    def put(self, key, value):
        self.dir.mkdir(parents=True, exist_ok=True)
        replace(self.dir / key, f"{value}\n")


class Problem(Exception):
    """Something that the user can mend; the text says what it is and how."""


def digest(*names):
    """A short digest of these files of the package."""
    together = hashlib.sha256()
    for name in names:
        together.update((PACKAGE / name).read_bytes())
    return together.hexdigest()[:10]


def replace(path, text):
    """Writes a file whole or not at all, also when the writer is killed."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)
