"""A real OpenStack for a story: brought up, instances booted on a host, watched, and ended whatever happens.

The process that holds a stage stands in the cloud's client namespace, so it speaks to Nova, the BMCs and tandem-ha
directly. A death is done to a host in this very process too: the moment just before is the death's.
"""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from minicloud import cloud, config, hosts, identity, net, process
from minicloud.layout import PACKAGE, Layout, Problem

from .watch import Watch

MINICLOUD = PACKAGE / "minicloud"
FLAVOR = "m1.tiny"


@dataclass(frozen=True)
class Instance:
    uuid: str
    name: str
    born_on: str


@dataclass(frozen=True)
class Death:
    """What was done to a host, and when: `at` by the monotonic clock, `wall` by the calendar's."""

    host: str
    at: float
    wall: float


class Stage:
    """The cloud, between `up` and `down`; one that was up before stays up."""

    def __init__(self, computes, *, intervals=None, masakari=False, keep=False):
        self.layout = Layout()
        self.computes = computes
        self.intervals = intervals  # (report_interval, service_down_time), or what the cloud has
        self.masakari = masakari
        self.keep = keep
        self.watch = None

    def __enter__(self):
        self.found = self.layout.parameters
        self.outside = open("/proc/self/ns/net")  # noqa: SIM115
        try:
            self.up()
            process.forget_proxies()
            net.enter(self.layout, "client")
            self.api = identity.Api()
            self.watch = Watch(self.layout)
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, *_):
        if self.watch:
            self.watch.end()
        net.move(self.outside)
        self.outside.close()
        if not self.stays:
            subprocess.run([MINICLOUD, "down"], stdout=subprocess.DEVNULL, start_new_session=True)

    @property
    def stays(self):
        return self.keep or self.found is not None

    # ---- the cloud ----

    def up(self, quiet=False):
        """Makes everything well: hosts on, links whole, BMCs honest, nothing forced down or disabled."""
        present = (self.layout.parameters or {}).get("computes", 0)
        words = ["up", "--computes", str(max(present, self.computes))]
        if self.intervals:
            words += ["--report-interval", str(self.intervals[0]), "--service-down-time", str(self.intervals[1])]
        if self.masakari:
            words += ["--with", "masakari"]
        done = subprocess.run([MINICLOUD, *words], stdout=subprocess.PIPE if quiet else None, text=True)
        if done.returncode:
            raise Problem(f"`minicloud {' '.join(words)}` failed: {(done.stdout or '').strip()[-400:]}")

    def renew(self):
        """A new token: Keystone's live an hour, a benchmark longer."""
        self.api = identity.Api()

    def host(self, name):
        return self.layout.host(name)

    def host_names(self):
        return [host.name for host in self.layout.hosts()]

    def compute_service(self, name):
        return self.api.get("nova", f"/v2.1/os-services?binary=nova-compute&host={name}")["services"][0]

    def is_in_service(self, name):
        """Up, enabled, not forced down, at work since its last start, and not kept from the scheduler."""
        service = self.compute_service(name)
        at_work = cloud.takes_work(self.host(name), service) and service["status"] == "enabled"
        return at_work and not service["forced_down"] and not self.is_kept_from_scheduler(name)

    def is_kept_from_scheduler(self, name):
        """Placement holds it against a host that it was disabled, for a while after it is enabled."""
        provider = self.placement(f"/resource_providers?name={name}")["resource_providers"][0]["uuid"]
        return "COMPUTE_STATUS_DISABLED" in self.placement(f"/resource_providers/{provider}/traits")["traits"]

    def placement(self, path):
        headers = {"X-Auth-Token": self.api.token, "OpenStack-API-Version": "placement 1.6"}
        request = urllib.request.Request(config.url("placement", path), headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Problem(f"GET placement {path} was not answered: {error!r}; see `minicloud log placement-api`")

    # ---- instances ----

    def boot(self, count, host, name="vm", limit_s=300):
        """So many instances on this host, each ACTIVE and writing its record."""
        image = self.api.get("glance", f"/v2/images?name={identity.IMAGE}")["images"][0]["id"]
        flavors = {flavor["name"]: flavor["id"] for flavor in self.api.get("nova", "/v2.1/flavors")["flavors"]}
        reservation = self.api.post(
            "nova",
            "/v2.1/servers",
            {
                "server": {
                    "name": name,
                    "imageRef": image,
                    "flavorRef": flavors[FLAVOR],
                    "networks": "none",
                    "availability_zone": f"nova:{host}",
                    "min_count": count,
                    "max_count": count,
                    "return_reservation_id": True,
                }
            },
        )["reservation_id"]
        listed = self.api.get("nova", f"/v2.1/servers?all_tenants=1&reservation_id={reservation}")["servers"]
        instances = [Instance(one["id"], one["name"], host) for one in listed]
        instances.sort(key=lambda instance: int(instance.name.rpartition("-")[2]) if count > 1 else 0)
        # One that the scheduler gave up is in a cell that is not watched, and says so at once.
        self.watch.wait(lambda: all(self.watch.row(instance.uuid) for instance in instances), 10)
        self.refuse_failed(reservation)
        self.wait(lambda: self.all_run(instances, host), limit_s, f"{count} instances run on {host}")
        return instances

    def refuse_failed(self, reservation):
        which = f"all_tenants=1&reservation_id={reservation}&status=ERROR"
        failed = self.api.get("nova", f"/v2.1/servers?{which}")["servers"]
        if failed:
            fault = self.api.get("nova", f"/v2.1/servers/{failed[0]['id']}")["server"].get("fault", {})
            raise Problem(f"{failed[0]['name']} is in ERROR before the story began: {fault.get('message')}")

    def all_run(self, instances, host):
        rows = [self.watch.row(instance.uuid) for instance in instances]
        failed = next((row for row in rows if row and row.vm_state == "error"), None)
        if failed:
            raise Problem(f"{failed.name} is in ERROR before the story began: see `minicloud log nova-compute-{host}`")
        return all(row and row.settled and row.host == host for row in rows) and all(
            self.watch.record(instance.uuid).writes_on() == [host] for instance in instances
        )

    def delete(self, instances, limit_s=180):
        """Deletes them and forgets their records."""
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(self._delete, instance) for instance in instances]:
                done.result()
        gone = lambda: not any(self.watch.row(instance.uuid) for instance in instances)  # noqa: E731
        self.wait(gone, limit_s, "the instances are deleted")
        for instance in instances:
            self.watch.forget(instance.uuid)

    def _delete(self, instance):
        with contextlib.suppress(Problem):  # one that is gone already
            self.api.delete("nova", f"/v2.1/servers/{instance.uuid}")

    def delete_all(self):
        """What a former story that was cut short left behind."""
        listed = self.api.get("nova", "/v2.1/servers?all_tenants=1")["servers"]
        if listed:
            self.delete([Instance(one["id"], one["name"], "") for one in listed])

    # ---- what happens to hosts ----

    def strike(self, name, verb, *arguments):
        """Does this to a host, such as ("cmp1", "off"); the death is the moment before."""
        host = self.host(name)
        death = Death(name, time.monotonic(), time.time())
        getattr(hosts, verb)(host, *arguments)
        return death

    def who_runs(self, instances):
        """The judge's word for each: `minicloud who-runs --json`."""
        done = subprocess.run([MINICLOUD, "who-runs", "--json"], capture_output=True, text=True)
        if done.returncode not in (0, 1):
            raise Problem(f"who-runs gave no judgement: {done.stderr.strip()}")
        wanted = {instance.uuid for instance in instances}
        return {one["instance"]: one for one in json.loads(done.stdout) if one["instance"] in wanted}

    def evacuations(self, instances):
        """How many evacuations Nova was asked for, by instance: the actions that its API recorded."""
        return {instance.uuid: self._count_evacuations(instance.uuid) for instance in instances}

    def _count_evacuations(self, uuid):
        actions = self.api.get("nova", f"/v2.1/servers/{uuid}/os-instance-actions")["instanceActions"]
        return sum(action["action"] == "evacuate" for action in actions)

    def wait(self, condition, limit_s, what):
        if not self.watch.wait(condition, limit_s):
            raise Problem(f"not within {limit_s:.0f} s: {what}")


def environment(layout):
    """What lets OpenStack's clients, and tandem-ha, find the cloud."""
    return {**os.environ, "OS_CLIENT_CONFIG_FILE": str(layout.clouds_yaml), "OS_CLOUD": "minicloud"}
