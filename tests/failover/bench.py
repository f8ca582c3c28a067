"""`make bench-failover`: how soon the instances of a dead host run again, by hand, by Tandem and by Masakari.

usage: python3 -m failover bench [--quick] [--rounds N] [--sizes 10,50] [--arms hand,tandem,masakari] [--flap-minutes M]
       python3 -m failover bench --search 4,8,12,50      how many evacuations in flight are best by hand

One cloud of three hosts with Nova's own intervals (10/60) and Masakari. Rounds of the arms alternate; the power of the
host under ten or fifty instances is cut; Tandem starts on a new database with the default policy, armed, each time.
Then three healthy hosts under full load, whose links flap: any fence is a false one. What was measured is written to
target/bench/failover.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from minicloud import hosts
from minicloud.layout import NETWORKS, Problem

from . import arms, usage
from .daemon import RESULTS, Tandem, seconds, send_heartbeats
from .stage import Stage

HOSTS = 3
INTERVALS = (10, 60)
VICTIM = "cmp1"
BUDGET_S = 75 * 60
RUN = RESULTS / "bench"
LIMIT_S = 600
HUNG = 3  # instances on the host that hangs: there the fence is measured

# What a round takes besides the time that its instances are away, by how many there are: boot, return, deletion; and
# with that, what was seen on two cores. Only the plan is made of these.
AROUND_S = {3: 20, 10: 25, 50: 80}
AWAY_S = {
    ("hand", 10): 8,
    ("hand", 50): 36,
    ("tandem", 10): 22,
    ("tandem", 50): 55,
    ("fastest", 10): 150,
    ("fastest", 50): 230,
    ("default", 10): 265,
    ("default", 50): 310,
    ("hang", 3): 35,
}
UP_S, IDLE_S, LOADED_EXTRA_S = 60, 45, 20
FLAP_S, FLAP_EVERY_S = 5, 60
LOOK_EVERY_S = 2


def main(words):
    options = parse(words)
    if options.search:
        return search(options)
    steps = plan(options)
    show_plan(steps)
    (RUN / "failover.json").unlink(missing_ok=True)  # an earlier run's must not stand for this one
    begun = time.monotonic()
    bench = Bench([step for step, _ in steps])
    with Stage(HOSTS, intervals=INTERVALS, masakari=True, keep=os.environ.get("KEEP") == "1") as stage:
        bench.stage = stage
        stage.delete_all()
        for step, expected_s in steps:
            bench.do(step, expected_s)
            bench.write(time.monotonic() - begun)
    return bench.close(time.monotonic() - begun)


def parse(words):
    parser = argparse.ArgumentParser(prog="failover bench")
    numbers = lambda text: [int(one) for one in text.split(",")]  # noqa: E731
    parser.add_argument(
        "--quick", action="store_true", help="one round of each, no Masakari defaults, two flap minutes"
    )
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--sizes", type=numbers, default=[10, 50])
    parser.add_argument("--arms", type=lambda text: text.split(","), default=["hand", "tandem", "masakari"])
    parser.add_argument("--flap-minutes", type=float)
    parser.add_argument("--search", type=numbers)
    options = parser.parse_args(words)
    if options.rounds is None:
        options.rounds = 1 if options.quick else 2
    if options.flap_minutes is None:
        options.flap_minutes = 2 if options.quick else 30
    return options


# ---- the plan ----


def plan(options):
    """The steps in their order, each with the seconds it should take."""
    steps = []
    for number in range(options.rounds):
        for size in options.sizes:
            if "hand" in options.arms:
                steps.append(("hand", size))
            if "tandem" in options.arms:
                steps.append(("tandem", size))
            if "masakari" in options.arms:
                # The defaults first: a second notification of a host within 180 s is to Masakari the first one again.
                if number == 0 and not options.quick:
                    steps.append(("default", size))
                steps.append(("fastest", size))
        if "tandem" in options.arms:
            steps.append(("hang", HUNG))
    timed = [(step, AROUND_S.get(step[1], 50) + AWAY_S.get(step, 120)) for step in steps]
    if "tandem" in options.arms:
        timed.append((("idle", HOSTS), IDLE_S + 20))
        if options.flap_minutes > 0:
            timed.append((("flaps", options.flap_minutes), options.flap_minutes * 60 + LOADED_EXTRA_S))
    return timed


def show_plan(steps):
    at = UP_S
    print("bench-failover: the plan, from the second on at which each step should begin")
    print(f"{0:7.0f} s  the cloud is brought up")
    for (what, size), expected_s in steps:
        print(f"{at:7.0f} s  {WHAT[what].format(size)}")
        at += expected_s
    print(f"{at:7.0f} s  the end; the budget is {BUDGET_S} s", flush=True)


WHAT = {
    "hand": "{} instances, by hand",
    "tandem": "{} instances, Tandem",
    "fastest": "{} instances, Masakari with its fastest sane settings",
    "default": "{} instances, Masakari with its defaults",
    "hang": "{} instances on a host that hangs, Tandem",
    "idle": "tandem-ha idle at {} hosts",
    "flaps": "{:g} minutes of full load on healthy hosts whose links flap, Tandem",
}


# ---- the steps ----


class Bench:
    def __init__(self, steps):
        self.steps = steps
        self.stage = None
        self.rounds = []
        self.idle = None
        self.flaps = None
        self.failed = []

    def do(self, step, expected_s):
        what, size = step
        begun = time.monotonic()
        try:
            if what == "idle":
                self.idle = self.measure_idle()
                said = self.idle
            elif what == "flaps":
                self.flaps = self.measure_flaps(size)
                said = self.flaps
            else:
                facts = self.round(what, size)
                self.rounds.append(facts)
                self.failed += [f"{WHAT[what].format(size)}: {wrong}" for wrong in wrongs(facts)]
                said = brief(facts)
        except Problem as problem:
            self.failed.append(f"{WHAT[what].format(size)}: {problem}")
            said = f"FAILED {problem}"
            with suppress(Problem):  # which the next step will meet again
                self.mend()
                self.stage.delete_all()
        took = time.monotonic() - begun
        print(f"{took:7.0f} s (planned {expected_s:.0f})  {WHAT[what].format(size)}: {said}", flush=True)

    def round(self, what, size):
        stage = self.stage
        stage.renew()
        load = os.getloadavg()[0]
        instances = stage.boot(size, VICTIM)
        stage.wait(
            lambda: all(stage.is_in_service(name) for name in stage.host_names()), 90, "every host is in service"
        )
        if what == "hand":
            facts = arms.by_hand(stage, instances, VICTIM, in_flight(size))
        elif what in ("tandem", "hang"):
            facts = self.tandem(instances, "off" if what == "tandem" else "hang")
        else:
            settings = arms.masakari_fastest(INTERVALS[1]) if what == "fastest" else {}
            facts = arms.masakari(stage, instances, VICTIM, settings, f"Masakari {what}", LIMIT_S)
        self.mend()
        stage.delete(instances)
        return facts | {"step": what, "load_before": round(load, 2)}

    def mend(self):
        self.stage.up(quiet=True)

    def tandem(self, instances, verb):
        with watching(self.stage) as tandem:
            facts = arms.tandem(self.stage, tandem, instances, VICTIM, verb, LIMIT_S)
            # Until then the fence is held: a host that is switched on is switched off again.
            self.stage.watch.wait(lambda: is_settled(tandem), 60)
            hosts.on(self.stage.host(VICTIM))
            on = time.monotonic()
            released = self.stage.watch.wait(lambda: all_closed(tandem) and self.stage.is_in_service(VICTIM), 180)
            facts["on_to_released_s"] = round(time.monotonic() - on, 1) if released else None
            return facts

    def measure_idle(self):
        with watching(self.stage) as tandem:
            settle_s = 10
            time.sleep(settle_s)
            first, begun = usage.one(tandem.child.pid), time.monotonic()
            time.sleep(IDLE_S)
            if tandem.child.poll() is not None:  # it would be very idle
                raise Problem(f"tandem-ha ended with status {tandem.child.returncode}: see {tandem.log}")
            last = usage.one(tandem.child.pid)
            percent = 100 * (last.cpu_s - first.cpu_s) / (time.monotonic() - begun)
            return {"hosts": HOSTS, "rss_mib": round(last.rss_mib, 1), "cpu_percent": round(percent, 2)}

    def measure_flaps(self, minutes):
        """Every host's links go down together for five seconds once a minute, one host after another."""
        with watching(self.stage) as tandem, full_load(self.stage) as load:
            boots = {host.name: host.get("boot_id") for host in self.stage.layout.hosts()}
            flaps, blind_s, end = [], 0.0, time.monotonic() + minutes * 60
            while time.monotonic() < end:
                for host in self.stage.layout.hosts():
                    next_at = time.monotonic() + FLAP_EVERY_S / HOSTS
                    begun = time.time()
                    hosts.cut(host, list(NETWORKS))
                    blind_in_it_s = blind_until(tandem, time.monotonic() + FLAP_S)
                    hosts.mend(host, list(NETWORKS))
                    flaps.append(Flap(host.name, begun, time.time(), blind_in_it_s))
                    blind_s += blind_in_it_s + blind_until(tandem, next_at)
            incidents = tandem.incidents()
            noticed = sum(flap.is_noticed(incidents) for flap in flaps)
            switched = [
                host.name
                for host in self.stage.layout.hosts()
                if host.get("boot_id") != boots[host.name] or host.get("power") != "on"
            ]
            fenced = sorted({one["host"] for one in incidents if one["receipts"]} | set(switched))
            if not noticed:
                self.failed.append(f"{WHAT['flaps'].format(minutes)}: it noticed none of the {len(flaps)} flaps")
            return {
                "minutes": minutes,
                "flaps": len(flaps),
                "noticed": noticed,
                "seconds_blind": round(blind_s, 1),
                "incidents": len(incidents),
                # Who notices nothing fences nobody: that says nothing.
                "false_fences": len(fenced) if noticed or fenced else None,
                "fenced": fenced,
                "instances_booted_meanwhile": load["booted"],
                "load": round(os.getloadavg()[0], 1),
                "rss_mib": round(usage.one(tandem.child.pid).rss_mib, 1),
            }

    # ---- the results ----

    def write(self, took_s, finished=False):
        RUN.mkdir(parents=True, exist_ok=True)
        result = {
            "cores": os.cpu_count(),
            "hosts": HOSTS,
            "report_interval_s": INTERVALS[0],
            "service_down_time_s": INTERVALS[1],
            "finished": finished,
            "took_s": round(took_s),
            "budget_s": BUDGET_S,
            "within_budget": took_s <= BUDGET_S,
            "rows": rows(self.rounds) + [{"name": name, **one} for name, one in self.others()],
            "targets": self.targets(),
            "rounds": self.rounds,
            "failed": self.failed,
        }
        (RUN / "failover.json").write_text(json.dumps(result, indent=2) + "\n")

    def others(self):
        return [(name, one) for name, one in (("idle", self.idle), ("flaps", self.flaps)) if one]

    def targets(self):
        return [target(name, limit, figure.value(self)) for name, limit, figure in TARGETS]

    def not_measured(self):
        """The targets that have no value, though every step that they need was planned."""
        return [name for name, _, figure in TARGETS if figure.is_due(self.steps) and figure.value(self) is None]

    def close(self, took_s):
        self.failed += [f"{name} was not measured" for name in self.not_measured()]
        self.write(took_s, finished=True)
        for one in self.targets():
            holds = {True: "holds", False: "MISSED", None: "not measured"}[one["holds"]]
            print(f"{one['name']:48} {one['value']!s:>8}  at most {one['limit']:<6} {holds}")
        for failure in self.failed:
            print(f"failed: {failure}")
        budget = "within" if took_s <= BUDGET_S else "MORE THAN"
        print(f"bench-failover: {took_s:.0f} s, {budget} the budget of {BUDGET_S} s; {RUN}/failover.json", flush=True)
        return 1 if self.failed else 0  # what fell short stands above and in the file


def wrongs(facts):
    """What no round may show. An instance that Masakari gives up is a result; one that we do not bring back is none."""
    if facts["step"] in ("hand", "tandem", "hang") and facts["active"] < facts["instances"]:
        yield f"{facts['active']} of {facts['instances']} instances came back"
    if facts["twice"]:
        yield f"{facts['twice']} instances ran twice at once"


@dataclass(frozen=True)
class Flap:
    """A host's links were down from `begun` to `ended`, by the calendar's clock, and tandem-ha blind for some of it."""

    host: str
    begun: float
    ended: float
    blind_s: float

    def is_noticed(self, incidents):
        """An incident of the host was opened while its links were down, and tandem-ha saw all the while."""
        return not self.blind_s and any(
            one["host"] == self.host and self.begun <= seconds(one["opened_at"]) <= self.ended + 1 for one in incidents
        )


def blind_until(tandem, end):
    """Waits until then, and says for how many seconds tandem-ha was blind meanwhile, or silent itself."""
    blind_s, since = 0.0, time.monotonic()
    while (now := time.monotonic()) < end:
        try:
            tandem.get("/healthcheck")
            sees = True
        except Problem:
            sees = False
        time.sleep(max(0, min(now + LOOK_EVERY_S, end) - time.monotonic()))
        blind_s += 0 if sees else time.monotonic() - since
        since = time.monotonic()
    return blind_s


def in_flight(size):
    return arms.BEST_IN_FLIGHT.get(size, min(size, arms.BEST_IN_FLIGHT[50]))


def brief(facts):
    keys = ("death_to_fence_s", "death_to_first_active_s", "death_to_median_active_s", "death_to_last_active_s")
    text = ", ".join(f"{key.removeprefix('death_to_').removesuffix('_s')} {facts.get(key)}" for key in keys)
    blocked = f", blocked {facts['blocked_s']}" if "blocked_s" in facts else ""
    return f"{facts['active']}/{facts['instances']} active; {text}{blocked}; {facts['cpu_total_s']} CPU s"


@contextmanager
def watching(stage):
    """tandem-ha on a new database, seeing every host well, armed."""
    send_heartbeats(stage)
    tandem = Tandem(stage, RUN / "failover-run")
    tandem.prepare()
    tandem.start()
    try:
        tandem.wait_until_well()
        tandem.command("arm")
        yield tandem
    finally:
        tandem.end()


def is_settled(tandem):
    found = [one for one in tandem.listed() if one["host"] == VICTIM]
    return bool(found) and found[0]["phase"] in ("recovered", "partly recovered", "closed")


def all_closed(tandem):
    return all(one["phase"] == "closed" for one in tandem.incidents())


@contextmanager
def full_load(stage):
    """Every core busy with nothing, and Nova with instances that come and go."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count())]
    load, stop = {"booted": 0}, threading.Event()

    def churn():
        while not stop.is_set():
            try:
                stage.renew()
                made = stage.boot(3, stage.host_names()[load["booted"] // 3 % HOSTS], name="load", limit_s=45)
                load["booted"] += len(made)
                stage.delete(made)
            except Problem:
                stop.wait(5)  # a host's links are down just now

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        yield load
    finally:
        stop.set()
        for one in busy:
            one.kill()
            one.wait()
        thread.join()
        stage.delete_all()


# ---- rows and targets ----

MEASURES = (
    "death_to_fence_s",
    "death_to_first_active_s",
    "death_to_median_active_s",
    "death_to_last_active_s",
    "death_to_last_active_unblocked_s",
    "fence_to_last_active_s",
    "blocked_s",
    "cpu_total_s",
    "client_cpu_s",
    "on_to_released_s",
)


def rows(rounds):
    """One for each arm and size: how many rounds, and of each measure the median and the worst."""
    found = []
    for step, size in dict.fromkeys((one["step"], one["instances"]) for one in rounds):
        mine = [one for one in rounds if (one["step"], one["instances"]) == (step, size)]
        row = {"name": f"{step}_{size}", "rounds": len(mine), "twice": sum(one["twice"] for one in mine)}
        for key in MEASURES:
            values = [one[key] for one in mine if one.get(key) is not None]
            if values:
                row[key] = round(statistics.median(values), 2)
                row[key.removesuffix("_s") + "_worst_s"] = max(values)
        names = dict.fromkeys(name for one in mine for name in one["cpu_s"])
        row["cpu_s"] = {name: median([one["cpu_s"].get(name, 0.0) for one in mine]) for name in names}
        row["rss_mib"] = usage.highest([one["rss_mib"] for one in mine])
        found.append(row)
    return found


def median(values):
    return round(statistics.median(values), 2)


@dataclass(frozen=True)
class Figure:
    """A number of a benchmark, or None where it was not measured, and the steps that it needs; size None is any."""

    value: Callable
    needs: tuple

    def is_due(self, steps):
        return all(any(step == did and size in (None, had) for did, had in steps) for step, size in self.needs)


def middle(step, size, key):
    """The median over the rounds, or None where one was not complete: a median of the lucky ones would flatter."""

    def value(bench):
        mine = [one for one in bench.rounds if (one["step"], one["instances"]) == (step, size)]
        values = [one.get(key) for one in mine]
        return statistics.median(values) if values and None not in values else None

    return Figure(value, ((step, size),))


def worst(step, key):
    def value(bench):
        values = [one.get(key) for one in bench.rounds if one["step"] == step]
        return max(values) if values and None not in values else None

    return Figure(value, ((step, None),))


def ratio(above, below):
    def value(bench):
        one, other = above.value(bench), below.value(bench)
        return None if one is None or not other else round(one / other, 3)

    return Figure(value, above.needs + below.needs)


def of(name, key):
    return Figure(lambda bench: (getattr(bench, name) or {}).get(key), ((name, None),))


LAST, FENCED_LAST = "death_to_last_active_s", "fence_to_last_active_s"
TARGETS = (
    (
        "fence_to_last_active_vs_by_hand_10",
        1.15,
        ratio(middle("tandem", 10, FENCED_LAST), middle("hand", 10, FENCED_LAST)),
    ),
    (
        "fence_to_last_active_vs_by_hand_50",
        1.15,
        ratio(middle("tandem", 50, FENCED_LAST), middle("hand", 50, FENCED_LAST)),
    ),
    (
        "median_active_vs_last_50",
        0.65,
        ratio(middle("tandem", 50, "death_to_median_active_s"), middle("tandem", 50, LAST)),
    ),
    ("death_to_fence_off_s", 5, worst("tandem", "death_to_fence_s")),
    ("death_to_fence_hang_s", 20, worst("hang", "death_to_fence_s")),
    ("false_fences", 0, of("flaps", "false_fences")),
    (
        "death_to_last_active_vs_masakari_default_10",
        0.1,
        ratio(middle("tandem", 10, LAST), middle("default", 10, LAST)),
    ),
    (
        "death_to_last_active_vs_masakari_default_50",
        0.35,
        ratio(middle("tandem", 50, LAST), middle("default", 50, LAST)),
    ),
    (
        "death_to_last_active_vs_masakari_fastest_50",
        0.9,
        ratio(middle("tandem", 50, LAST), middle("fastest", 50, "death_to_last_active_unblocked_s")),
    ),
    ("idle_rss_mib", 30, of("idle", "rss_mib")),
    ("idle_cpu_percent", 1, of("idle", "cpu_percent")),
)


def target(name, limit, value):
    holds = None if value is None else value <= limit
    return {"name": name, "value": value, "limit": limit, "better": "lower", "holds": holds}


# ---- how many in flight ----


def search(options):
    """By hand with each of these numbers in flight, the rounds alternating; the least time to the last one wins."""
    times = {}
    with Stage(HOSTS, intervals=INTERVALS, keep=os.environ.get("KEEP") == "1") as stage:
        bench = Bench([])
        bench.stage = stage
        stage.delete_all()
        for _ in range(options.rounds):
            for size in options.sizes:
                for number in [one for one in options.search if one <= size]:
                    stage.renew()
                    instances = stage.boot(size, VICTIM)
                    facts = arms.by_hand(stage, instances, VICTIM, number)
                    times.setdefault((size, number), []).append(facts["death_to_last_active_s"])
                    print(f"{size} instances, {number} in flight: {brief(facts)}", flush=True)
                    bench.mend()
                    stage.delete(instances)
    for size in options.sizes:
        tried = {number: statistics.median(found) for (of_size, number), found in times.items() if of_size == size}
        best = min(tried, key=tried.get)
        print(f"{size} instances: best with {best} in flight, {tried[best]:.1f} s; {tried}", flush=True)
    return 0
