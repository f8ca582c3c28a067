"""The stories of a host's end, each with its own right one, and how one is played and judged.

            boot, arm        strike         the right end        mend
 (well cloud) ────▶ (watched) ───▶ (incident) ───────▶ (judged) ───▶ (released)

The judges are `minicloud who-runs`, which reads what the guests wrote and asks the kernel, and Nova. What tandem-ha
says of itself is shown, and believed only about what nobody else can know: its receipts, its holds and its reasons.
"""

import contextlib
import json
import time
from dataclasses import dataclass, field

from minicloud import hosts
from minicloud.layout import NETWORKS, Problem

from .daemon import Tandem, seconds, send_heartbeats
from .screen import Silent, table

END_LIMIT_S = 240
RELEASE_LIMIT_S = 240
HELD_WATCH_S = 20
APART_S = 3
EVERY_S = 0.25
WIDTH = 150


class Story:
    """The host dies, and everything that ran on it is moved."""

    computes = 3
    victims = 1

    def __init__(self, fault, tale, *strike):
        self.fault = fault
        self.tale = tale
        self.how = strike

    def strike(self, stage, victim):
        return stage.strike(victim, *self.how)

    def is_over(self, play):
        return all(play.active_at(one) for one in play.instances) and all(
            one["instances"]["moving"] + one["instances"]["waiting"] == 0 for one in play.incidents.values()
        )

    def complaints(self, play):
        for one in play.instances:
            where = play.who[one.uuid]["runs_on"] if one.uuid in play.who else []
            if len(where) != 1 or where[0] in play.victims:
                yield f"{one.name} runs on {where or 'no host'}"
            if play.evacuations[one.uuid] != 1:
                yield f"{one.name} was evacuated {play.evacuations[one.uuid]} times"
        for victim in play.victims:
            if play.fenced_after(victim) is None:
                yield f"{victim} was evacuated without a receipt"

    def mend(self, play):
        for victim in play.victims:
            hosts.mend(play.stage.host(victim), list(NETWORKS))
            hosts.on(play.stage.host(victim))

    def passed(self, play):
        return (
            f"{play.running_elsewhere()}/{len(play.instances)} instances running elsewhere, none ever twice, "
            f"first after {play.first_s:.1f} s, last after {play.last_s:.1f} s"
        )


class TwoHosts(Story):
    computes = 5
    victims = 2


class Reboot(Story):
    """The host comes back by itself inside the detection time: nothing is fenced or moved, its guests start again."""

    def is_over(self, play):
        closed = any(one["kind"] == "reboot" and one["phase"] == "closed" for one in play.incidents.values())
        return closed and all(play.active_at(one) for one in play.instances)

    def complaints(self, play):
        for one in play.instances:
            where = play.who[one.uuid]["runs_on"] if one.uuid in play.who else []
            if where != [one.born_on]:
                yield f"{one.name} runs on {where or 'no host'}, not on {one.born_on}"
            if play.evacuations[one.uuid]:
                yield f"{one.name} was evacuated"
        for incident in play.incidents.values():
            if incident["receipts"]:
                yield f"{incident['host']} was fenced"

    def mend(self, play):
        pass

    def passed(self, play):
        return (
            f"{len(play.instances)}/{len(play.instances)} instances started again on {play.victims[0]}, nothing fenced "
            f"or moved, none ever twice, first after {play.first_s:.1f} s, last after {play.last_s:.1f} s"
        )


class BmcLies(Story):
    """The BMC says Off and does nothing, and the host is heard over its storage link: held, nothing moves."""

    def strike(self, stage, victim):
        hosts.bmc(stage.host(victim), "lies")
        return stage.strike(victim, "cut", ["mgmt"])

    def is_over(self, play):
        held = next((one["hold"] for one in play.incidents.values() if one["hold"]), None)
        return held is not None and time.time() - seconds(held["since"]) >= HELD_WATCH_S

    def complaints(self, play):
        for one in play.instances:
            lives = play.who[one.uuid]["lives"] if one.uuid in play.who else []
            if len(lives) != 1 or play.who[one.uuid]["runs_on"] != [one.born_on]:
                yield f"{one.name} does not run on as it did on {one.born_on}"
            if play.evacuations[one.uuid]:
                yield f"{one.name} was evacuated"

    def mend(self, play):
        for victim in play.victims:
            hosts.bmc(play.stage.host(victim), "ok")
            hosts.mend(play.stage.host(victim), list(NETWORKS))

    def passed(self, play):
        hold = next(one["hold"] for one in play.incidents_at_end if one["hold"])
        return (
            f"held ({hold['gate']}: {hold['why']}), {len(play.instances)}/{len(play.instances)} instances still run on "
            f"{play.victims[0]}, nothing moved, none ever twice"
        )


STORIES = {
    story.fault: story
    for story in (
        Story("off", "the power of {} is cut", "off"),
        Story("hang", "{} hangs: every process stands still, its BMC says On", "hang"),
        Story("crash", "{} panics: nothing in it runs, its BMC says On", "crash"),
        Story("cut", "{} is cut off on every network; its guests live on", "cut", list(NETWORKS)),
        Reboot("reboot", "{} reboots by itself", "reboot"),
        BmcLies("bmc-lies", "{} loses its management link, and its BMC lies: says Off and does nothing"),
        TwoHosts("two-hosts", "the power of {} is cut, 3 s apart", "off"),
    )
}


@dataclass
class Play:
    """One story on a stage, with a tandem-ha on a database of its own."""

    stage: object
    story: Story
    run: object
    count: int
    screen: object = field(default_factory=Silent)
    first_victim: int = 1
    deaths: dict = field(default_factory=dict)
    incidents: dict = field(default_factory=dict)
    told: dict = field(default_factory=dict)
    standing: dict = field(default_factory=dict)
    complaints: list = field(default_factory=list)
    released: bool = False
    ended: bool = False
    keep: bool = False

    def __post_init__(self):
        names = self.stage.host_names()
        self.victims = [names[(self.first_victim - 1 + n) % len(names)] for n in range(self.story.victims)]
        self.tandem = Tandem(self.stage, self.run)
        self.instances = []
        self.first_s = self.last_s = None
        self.who, self.evacuations, self.incidents_at_end = {}, {}, []

    def act(self):
        """Plays it to its end; what went wrong is in `complaints`, and nothing of it is left but with `keep`."""
        begun = time.monotonic()
        try:
            self.prepare()
            self.strike()
            self.follow(lambda: self.story.is_over(self), END_LIMIT_S, "the right end")
            self.judge()
            self.come_back()
            self.ended = True
        except Problem as problem:
            self.complaints.append(str(problem))
            if not self.who:
                with contextlib.suppress(Problem):
                    self.judge()
        except BaseException as cut:  # Ctrl-C, too
            self.complaints.append(f"cut short: {type(cut).__name__} {cut}".strip())
            raise
        finally:
            try:
                self.write()
            finally:
                if not self.keep:
                    self.tandem.end()
        self.took_s = time.monotonic() - begun
        return self.passes()

    def passes(self):
        """Everything was judged, to the end, and nothing was wrong."""
        return self.ended and not self.complaints

    # ---- before ----

    def prepare(self):
        self.stage.renew()
        send_heartbeats(self.stage)
        self.tandem.prepare()
        self.tandem.start()
        each = [self.count // len(self.victims)] * len(self.victims)
        each[0] += self.count - sum(each)
        for victim, count in zip(self.victims, each, strict=True):
            self.screen.line(f"{count} instances are booted on {victim}")
            self.instances += self.stage.boot(count, victim, name=f"vm-{victim}" if len(self.victims) > 1 else "vm")
        self.tandem.wait_until_well()
        self.tandem.command("arm")
        self.screen.line(f"tandem-ha watches {len(self.stage.host_names())} hosts by every channel, and is armed")

    def strike(self):
        self.screen.line()
        self.screen.line(self.story.tale.format(" and that of ".join(self.victims)))
        for victim in self.victims:
            if self.deaths:
                next_at = self.first_death().at + APART_S
                self.follow(lambda at=next_at: time.monotonic() >= at, APART_S + 1, "the second death")
            self.deaths[victim] = self.story.strike(self.stage, victim)

    def first_death(self):
        return next(iter(self.deaths.values()))

    # ---- while it happens ----

    def follow(self, done, limit_s, what):
        deadline = time.monotonic() + limit_s
        while True:
            self.look()
            if done():
                return
            if time.monotonic() > deadline:
                raise Problem(f"not within {limit_s} s: {what}; {self.where_it_stands()}")
            time.sleep(EVERY_S)

    def look(self):
        """What tandem-ha says now; while it does not answer, what it said last stands."""
        try:
            self.standing = self.tandem.hosts()
            self.incidents = {one["id"]: one for one in self.tandem.incidents()}
        except Problem:
            return
        for incident in self.incidents.values():
            self.tell(incident)
        self.screen.live(self.picture())

    def tell(self, incident):
        """What happened since the last look; of each move its end alone, for a dozen make a hundred steps."""
        fresh = incident["timeline"][self.told.get(incident["id"], 0) :]
        self.told[incident["id"]] = len(incident["timeline"])
        for event in fresh:
            if event["kind"] != "move":
                self.tell_one(event["at"], incident["host"], event["kind"], event["text"])
        for move in incident["moves"]:
            if move["state"] in ("moved", "named") and move["instance"] not in self.told:
                self.told[move["instance"]] = move["state"]
                ended = f"to {move['to']}" if move["state"] == "moved" else f"and not moved: {move['why']}"
                self.tell_one(move["ended_at"], incident["host"], "move", f"{move['name']} is {move['state']} {ended}")

    def tell_one(self, when, host, kind, text):
        after = f"{seconds(when) - self.first_death().wall:+7.1f} s" if when else " " * 9
        text = text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."
        self.screen.line(f"{after}  {host}  {kind:9} {text}")

    def picture(self):
        rows = []
        for name in self.stage.host_names():
            host = self.standing.get(name)
            running = sum(name in self.stage.watch.record(one.uuid).writes_on() for one in self.instances)
            if host:
                nova = host["nova"]
                rows.append(
                    [
                        name,
                        host["standing"],
                        nova["state"],
                        nova["status"],
                        host["power"]["state"],
                        running,
                        host["why"],
                    ]
                )
        lines = ["", *table(["host", "standing", "Nova", "", "power", "guests", ""], rows)]
        for incident in self.incidents.values():
            count = incident["instances"]
            hold = f", held by {incident['hold']['gate']}" if incident["hold"] else ""
            lines.append(
                f"incident {incident['id'][:8]} of {incident['host']}: {incident['phase']}{hold}; instances "
                f"{count['moved']} moved, {count['moving']} moving, {count['waiting']} waiting, {count['named']} named"
            )
        return [line[:119] for line in lines]

    def where_it_stands(self):
        phases = [f"{one['host']} is {one['phase']}" for one in self.incidents.values()] or ["there is no incident"]
        active = sum(bool(self.active_at(one)) for one in self.instances)
        return f"{', '.join(phases)}, {active} of {len(self.instances)} instances are active"

    def active_at(self, instance):
        """When it was active again, by a life begun after its host's death."""
        death = self.deaths.get(instance.born_on)
        if death is None:
            return None
        elsewhere_than = () if isinstance(self.story, Reboot) else self.victims
        return self.stage.watch.active_at(instance.uuid, death.at, elsewhere_than)

    def fenced_after(self, victim):
        """Seconds from the host's death to the first receipt; one that was voided later, by a restart, was true."""
        read = [
            seconds(receipt["read_at"])
            for incident in self.incidents.values()
            if incident["host"] == victim
            for receipt in incident["receipts"]
        ]
        return round(min(read) - self.deaths[victim].wall, 2) if read and victim in self.deaths else None

    # ---- the judgement ----

    def judge(self):
        self.who = self.stage.who_runs(self.instances)
        self.evacuations = self.stage.evacuations(self.instances)
        self.incidents_at_end = list(self.incidents.values())
        for one in self.instances:
            if one.uuid in self.who and self.who[one.uuid]["twice"]:
                first, second = self.who[one.uuid]["twice"][0]
                self.complaints.append(f"{one.name} ran twice at once, on {first['host']} and {second['host']}")
        self.complaints += self.story.complaints(self)
        again = sorted(
            at - self.deaths[one.born_on].at for one in self.instances if (at := self.active_at(one)) is not None
        )
        if again:
            self.first_s, self.last_s = again[0], again[-1]

    def running_elsewhere(self):
        return sum(len(where := one["runs_on"]) == 1 and where[0] not in self.victims for one in self.who.values())

    def table(self):
        rows = []
        for one in self.instances:
            judged = self.who.get(one.uuid, {"runs_on": [], "twice": []})
            at = self.active_at(one)
            rows.append(
                [
                    one.name,
                    one.born_on,
                    " AND ".join(judged["runs_on"]) or "nowhere",
                    f"{at - self.deaths[one.born_on].at:.1f} s" if at else "-",
                    "TWICE" if judged["twice"] else "never",
                ]
            )
        return table(["instance", "was on", "runs on", "active again after", "two at once"], rows)

    # ---- the host's return ----

    def come_back(self):
        self.screen.line()
        self.story.mend(self)
        self.screen.line(f"{' and '.join(self.victims)} {'are' if len(self.victims) > 1 else 'is'} mended and on again")
        self.follow(self.all_released, RELEASE_LIMIT_S, "the host's release")
        self.released = True
        # What came back must not have brought an old guest with it.
        twice = [uuid for uuid, one in self.stage.who_runs(self.instances).items() if one["twice"]]
        if twice:
            self.complaints.append(f"after the host's return these ran twice at once: {', '.join(twice)}")

    def all_released(self):
        closed = all(one["phase"] == "closed" for one in self.incidents.values())
        return closed and all(self.stage.is_in_service(victim) for victim in self.victims)

    # ---- what is left to read ----

    def summary(self):
        fences = [after for victim in self.deaths if (after := self.fenced_after(victim)) is not None]
        return {
            "fault": self.story.fault,
            "pass": self.passes(),
            "complaints": self.complaints,
            "instances": len(self.instances),
            "running_elsewhere": self.running_elsewhere(),
            "running_twice": sum(bool(one["twice"]) for one in self.who.values()),
            "named_with_reason": len(named_with_reason(self.incidents_at_end)),
            "death_to_fence_s": max(fences) if fences else None,
            "death_to_first_active_s": None if self.first_s is None else round(self.first_s, 2),
            "death_to_last_active_s": None if self.last_s is None else round(self.last_s, 2),
            "host_released": self.released,
        }

    def write(self):
        self.run.mkdir(parents=True, exist_ok=True)
        (self.run / "summary.json").write_text(json.dumps(self.summary(), indent=2) + "\n")
        (self.run / "incidents.json").write_text(json.dumps(list(self.incidents.values()), indent=2) + "\n")

    def verdict(self):
        if self.complaints:
            more = f" (and {len(self.complaints) - 1} more)" if len(self.complaints) > 1 else ""
            return f"FAIL {self.complaints[0]}{more}"
        return f"PASS {self.story.passed(self)}"

    def clear(self):
        """For the next story on the same stage: no instance, and every host well."""
        self.stage.up(quiet=True)
        self.stage.delete(self.instances)


def named_with_reason(incidents):
    """The instances that were left where they are, or not started after a reboot, with a reason."""
    steps = [step for incident in incidents for step in (*incident["moves"], *incident["restarts"])]
    last = {step["instance"]: step for step in steps}
    return {instance for instance, step in last.items() if step["state"] == "named" and step["why"]}


def forget(run):
    """What an earlier run left to read: if this one is cut short, it must not stand for it."""
    for name in ("summary.json", "incidents.json"):
        (run / name).unlink(missing_ok=True)
