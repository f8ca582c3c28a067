"""`make drills`: every story of the demonstration, and kill -9 of tandem-ha all along an incident, on one cloud.

The cloud has five hosts and short Nova intervals. Each drill plays on a new database, with the default policy, and
prints one line; DRILL=off,kill chooses some, VERBOSE=1 tells what happens.
"""

import os
import time
import unittest

from minicloud.layout import Problem

from .daemon import RESULTS
from .screen import Screen
from .stage import Stage
from .stories import EVERY_S, STORIES, Play, forget

HOSTS = 5
INTERVALS = (2, 6)
INSTANCES = 6
LOOK_S = 0.005
# What every incident goes through that ends well, each for long enough to be seen on a busy machine. The others are
# over with the same cycle or Nova's next answer: they are met in most runs, and for certain in tests/ha/kills.rs.
TRANSITIONS = (
    "suspected",
    "evacuating 0 moved",
    "recovered",
    "host returned",
    "reintegrating",
    "closed",
)


def main(_):
    unknown = set(chosen()) - {"kill", *STORIES}
    if unknown:
        raise Problem(f"DRILL={','.join(sorted(unknown))}: any of {', '.join([*STORIES, 'kill'])}")
    for name in chosen() or [*STORIES, "kill"]:
        forget(RESULTS / "drills" / name)
    with Stage(HOSTS, intervals=INTERVALS, keep=os.environ.get("KEEP") == "1") as stage:
        stage.delete_all()
        Drill.stage = stage
        suite = unittest.defaultTestLoader.loadTestsFromTestCase(Drill)
        begun = time.monotonic()
        result = unittest.TextTestRunner(verbosity=0, stream=open(os.devnull, "w")).run(suite)
    for test, trace in result.errors:
        print(f"{test.id()}:\n{trace}")
    failed = len(result.failures) + len(result.errors)
    ran = result.testsRun - len(result.skipped)
    print(f"drills: {ran - failed} passed, {failed} failed, {time.monotonic() - begun:.0f} s", flush=True)
    return 1 if failed or not ran else 0


def chosen():
    return [name for name in os.environ.get("DRILL", "").split(",") if name]


class Drill(unittest.TestCase):
    stage = None
    victim = 0

    def test_1_a_host_without_power_is_moved(self):
        self.play("off")

    def test_2_a_host_that_hangs_is_fenced_and_moved(self):
        self.play("hang")

    def test_3_a_host_that_panics_is_fenced_and_moved(self):
        self.play("crash")

    def test_4_a_host_that_is_cut_off_is_killed_before_its_guests_start_elsewhere(self):
        self.play("cut")

    def test_5_a_host_that_reboots_is_not_fenced_and_its_guests_start_again(self):
        self.play("reboot")

    def test_6_a_bmc_that_lies_moves_nothing(self):
        self.play("bmc-lies")

    def test_7_two_hosts_that_die_together_are_both_moved(self):
        self.play("two-hosts")

    def test_8_a_tandem_ha_killed_at_every_transition_finishes_and_does_nothing_twice(self):
        self.play("off", "kill", KillingPlay)

    def play(self, fault, name=None, kind=Play):
        name = name or fault
        if chosen() and name not in chosen():
            self.skipTest("not chosen")
        screen = Screen() if os.environ.get("VERBOSE") == "1" else None
        options = {"screen": screen} if screen else {}
        play = kind(
            self.stage,
            STORIES[fault],
            RESULTS / "drills" / name,
            INSTANCES,
            first_victim=Drill.victim % HOSTS + 1,
            **options,
        )
        Drill.victim += play.story.victims
        passed = play.act()
        print(f"{name:10} {play.verdict()}; {play.took_s:.0f} s", flush=True)
        for complaint in play.complaints[1:]:
            print(f"{'':10} {complaint}", flush=True)
        play.clear()
        self.assertTrue(passed, play.complaints)


class KillingPlay(Play):
    """Kills tandem-ha at each transition that an incident shows: of its phase, and of how far its moves have come."""

    def __post_init__(self):
        super().__post_init__()
        self.met = []
        self.next_look_at = 0.0

    def look(self):
        """Many quick looks between two whole ones: some transitions are over with the next answer of Nova's."""
        if time.monotonic() >= self.next_look_at:
            super().look()
            self.next_look_at = time.monotonic() + EVERY_S
        for here in self.transitions():
            if here not in self.met:
                self.met.append(here)
                self.tandem.kill()
                self.tandem.start()
                return

    def transitions(self):
        try:
            listed = self.tandem.listed()
        except Problem:  # it is starting
            return []
        ours = [one for one in listed if one["host"] in self.victims and one["outcome"] != "cancelled"]
        return [transition(one) for one in ours]

    def follow(self, done, limit_s, what):
        deadline = time.monotonic() + limit_s
        while not (self.look() or (done() and not self.is_evacuating())):
            if time.monotonic() > deadline:
                raise Problem(f"not within {limit_s} s: {what}; {self.where_it_stands()}, killed at {self.met}")
            time.sleep(LOOK_S)

    def is_evacuating(self):
        """After its last move it is for a moment still, and `recovered` has to be met before the host is back."""
        return any(one["phase"] == "evacuating" for one in self.incidents.values())

    def come_back(self):
        super().come_back()
        missed = [name for name in TRANSITIONS if name not in self.met]
        if missed:
            self.complaints.append(f"tandem-ha was not killed at {', '.join(missed)}")

    def verdict(self):
        return f"{super().verdict()}; killed {len(self.met)} times, at {', '.join(self.met)}"


def transition(incident):
    """A transition has a name; while instances move, each that has arrived is one."""
    moved = incident["instances"]["moved"]
    return f"{incident['phase']} {moved} moved" if incident["phase"] == "evacuating" else incident["phase"]
