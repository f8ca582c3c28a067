"""Three ways to bring the instances of a dead host back, each told at once or left to find out; all are measured alike.

by hand     an operator who knows of the death: force down, then evacuations with a bounded number in flight
Tandem      finds out by itself, fences, forces down, evacuates
Masakari    is told at the moment of death, by a notification as its host monitor sends it
"""

import http.client
import json
import os
import re
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from minicloud import cloud, config
from minicloud.layout import PORTS, Problem

from . import usage
from .daemon import seconds

# Found with `python3 -m failover bench --search`; see README.md.
BEST_IN_FLIGHT = {10: 10, 50: 16}


def masakari_fastest(service_down_time_s):
    return {
        "wait_period_after_service_update": service_down_time_s + 1,
        "host_failure_recovery_threads": 20,
        "notification_delay_max": 0,
    }


class Round:
    """One death and what came of it, in seconds since the death."""

    def __init__(self, stage, arm, instances, victim, verb="off", services=None):
        self.stage, self.arm, self.instances, self.victim = stage, arm, instances, victim
        self.services = services  # what its own are called like; by hand there are none
        self.before = usage.processes(stage.layout)
        self.own_before = os.times()
        self.facts = {"arm": arm, "instances": len(instances)}
        self.death = stage.strike(victim, verb)

    def since_death(self, at):
        return None if at is None else round(at - self.death.at, 2)

    def active(self):
        found = (self.stage.watch.active_at(one.uuid, self.death.at, (self.victim,)) for one in self.instances)
        return [at for at in found if at is not None]

    def last_active_since(self, at):
        active = self.active()
        return round(max(active) - at, 2) if len(active) == len(self.instances) else None

    def follow(self, limit_s):
        """Waits until each instance is active elsewhere; the rows and records are the only things looked at."""
        self.stage.watch.wait(lambda: len(self.active()) == len(self.instances), limit_s)

    def end(self, **facts):
        after = usage.processes(self.stage.layout)
        own = os.times()
        active = sorted(self.active())
        complete = len(active) == len(self.instances)
        self.facts |= {
            "active": len(active),
            "death_to_first_active_s": self.since_death(active[0]) if active else None,
            "death_to_median_active_s": self.since_death(statistics.median(active)) if complete else None,
            "death_to_last_active_s": self.since_death(active[-1]) if complete else None,
            "cpu_s": usage.spent(self.before, after),
            "client_cpu_s": round(own.user + own.system - self.own_before.user - self.own_before.system, 2),
            # The highest of both looks: the dead host's own share is in the first one alone.
            "rss_mib": usage.highest([usage.rss_mib(looked, self.services) for looked in (self.before, after)]),
            **facts,
        }
        self.facts["cpu_total_s"] = round(
            sum(used for name, used in self.facts["cpu_s"].items() if name not in ("watch", "guests")), 1
        )
        self.facts["twice"] = sum(bool(one["twice"]) for one in self.stage.who_runs(self.instances).values())
        return self.facts


# ---- by hand ----


def by_hand(stage, instances, victim, in_flight, limit_s=300):
    """Forces the host down as soon as its power is off, then keeps that many evacuations in flight."""
    service = stage.compute_service(victim)["id"]
    nova = Nova(stage.api.token)
    one = Round(stage, "by hand", instances, victim)
    off = time.monotonic()
    nova.call("PUT", f"/v2.1/os-services/{service}", {"forced_down": True})
    listed = nova.call("GET", f"/v2.1/servers?all_tenants=1&host={victim}")["servers"]
    accepted = []
    queue = iter(sorted(server["id"] for server in listed))
    lock = threading.Lock()

    def work():
        own = Nova(stage.api.token)
        while True:
            with lock:
                uuid = next(queue, None)
            if uuid is None:
                return
            own.call("POST", f"/v2.1/servers/{uuid}/action", {"evacuate": {}})
            accepted.append(time.monotonic())
            stage.watch.wait(lambda uuid=uuid: stage.watch.settled_at(uuid, off, (victim,)), limit_s)

    with ThreadPoolExecutor(in_flight) as pool:
        for done in [pool.submit(work) for _ in range(in_flight)]:
            done.result()
    one.follow(limit_s)
    return one.end(
        in_flight=in_flight,
        death_to_fence_s=one.since_death(off),
        fence_to_last_active_s=one.last_active_since(off),
        death_to_first_accepted_s=one.since_death(min(accepted, default=None)),
        death_to_last_accepted_s=one.since_death(max(accepted, default=None)),
        rss_mib={"client": round(usage.one(os.getpid()).rss_mib, 1)},
    )


class Nova:
    """One token, and one connection for as long as the server keeps it."""

    def __init__(self, token):
        self.headers = {
            "X-Auth-Token": token,
            "Content-Type": "application/json",
            "X-OpenStack-Nova-API-Version": "2.53",
        }
        self.connection = http.client.HTTPConnection(config.ADDRESS, PORTS["nova"], timeout=120)

    def call(self, method, path, body=None):
        try:
            self.connection.request(method, path, json.dumps(body) if body is not None else None, self.headers)
            answer = self.connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Problem(f"{method} {path} was not answered: {error!r}")
        if answer.status >= 300:
            raise Problem(f"{method} {path} was answered {answer.status}: {text.decode(errors='replace')[:300]}")
        return json.loads(text) if text else {}


# ---- Tandem ----


def tandem(stage, daemon, instances, victim, verb, limit_s):
    """Is told nothing: it finds out, fences and evacuates. The fence is its receipt's time."""
    one = Round(stage, "Tandem", instances, victim, verb, "tandem-ha")
    one.follow(limit_s)
    incident = next((found for found in daemon.incidents() if found["host"] == victim), None)
    read = [seconds(receipt["read_at"]) for receipt in incident["receipts"]] if incident else []
    fenced = one.death.at + min(read) - one.death.wall if read else None
    return one.end(
        verb=verb,
        death_to_fence_s=one.since_death(fenced),
        fence_to_last_active_s=one.last_active_since(fenced) if fenced else None,
    )


# ---- Masakari ----


class Masakari:
    """Masakari's two services with settings of ours, and the calls of a host monitor and of an operator."""

    def __init__(self, stage):
        self.stage = stage
        project = stage.api.get("keystone", "/v3/projects?name=admin")["projects"][0]["id"]
        self.root = f"/v1/{project}"

    def settle(self, options):
        """Starts API and engine anew with Masakari's defaults and these."""
        layout = self.stage.layout
        config.masakari(layout, layout.parameters)
        with open(layout.etc / "masakari" / "masakari.conf", "a") as file:
            file.write("\n[DEFAULT]\n" + "".join(f"{key} = {value}\n" for key, value in options.items()))
        services = {service.name: service for service in cloud.control_plane(layout, layout.parameters)}
        for name in ("masakari-api", "masakari-engine"):
            services[name].stop()
            services[name].start()
            services[name].wait()
        self.stage.wait(self.answers, 60, "Masakari answers")

    def answers(self):
        try:
            self.call("get", "/segments")
            return True
        except Problem:
            return False

    def call(self, method, path, *body):
        return getattr(self.stage.api, method)("masakari", self.root + path, *body)

    def enrol(self):
        """One segment with every host, none under maintenance."""
        segment = (
            next(iter(self.call("get", "/segments")["segments"]), None)
            or self.call(
                "post", "/segments", {"segment": {"name": "all", "recovery_method": "auto", "service_type": "COMPUTE"}}
            )["segment"]
        )
        where = f"/segments/{segment['uuid']}/hosts"
        known = {host["name"]: host for host in self.call("get", where)["hosts"]}
        for name in self.stage.host_names():
            if name not in known:
                body = {"name": name, "type": "COMPUTE", "control_attributes": "SSH"}
                self.call("post", where, {"host": body})
            elif known[name]["on_maintenance"]:
                self.call("put", f"{where}/{known[name]['uuid']}", {"host": {"on_maintenance": False}})

    def tell(self, victim):
        """The host monitor's notification that this host has gone."""
        body = {
            "type": "COMPUTE_HOST",
            "hostname": victim,
            "generated_time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
            "payload": {"event": "STOPPED", "cluster_status": "OFFLINE", "host_status": "NORMAL"},
        }
        return self.call("post", "/notifications", {"notification": body})["notification"]["notification_uuid"]

    def status(self, notification):
        return self.call("get", f"/notifications/{notification}")["notification"]["status"]


def masakari(stage, instances, victim, options, arm, limit_s):
    engine = Masakari(stage)
    engine.settle(options)
    engine.enrol()
    log = stage.layout.logs / "nova-api.log"
    read_from = log.stat().st_size
    one = Round(stage, arm, instances, victim, services="masakari")
    off = time.monotonic()
    notification = engine.tell(victim)
    accepted = time.monotonic()
    one.follow(limit_s)
    stage.watch.wait(lambda: engine.status(notification) in ("finished", "error", "failed", "ignored"), 120)
    facts = one.end(
        settings=options,
        death_to_off_s=one.since_death(off),
        death_to_notification_s=one.since_death(accepted),
        notification=engine.status(notification),
        blocked_s=blocked_s(log, read_from),
    )
    if facts["death_to_last_active_s"] is None and (active := one.active()):
        # Masakari gives a server up after 90 s: the last of those that came back stands for all, in its favour.
        facts["death_to_last_active_s"] = one.since_death(max(active))
    last = facts["death_to_last_active_s"]
    facts["death_to_last_active_unblocked_s"] = None if last is None else round(last - facts["blocked_s"], 2)
    return facts


def blocked_s(log, read_from, at_least_s=5.0):
    """How long Nova kept Masakari waiting for its disabling of the host, which it believed alive: uWSGI's log tells."""
    with open(log, errors="replace") as file:
        file.seek(read_from)
        text = file.read()
    took = [int(ms) / 1000 for ms in re.findall(r"PUT /v2.1/os-services/\S* => .*? in (\d+) msecs", text)]
    return round(sum(one for one in took if one >= at_least_s), 1)
