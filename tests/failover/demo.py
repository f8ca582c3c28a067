"""`make demo`: one story, told while it happens, with a summary in target/demo/summary.json.

FAULT=off|hang|crash|cut|reboot|bmc-lies|two-hosts chooses the story; KEEP=1 leaves the cloud and tandem-ha running.
"""

import os

from minicloud.layout import Problem

from .daemon import BINARIES, RESULTS
from .screen import Screen
from .stage import MINICLOUD, Stage
from .stories import STORIES, Play, forget

INSTANCES = 12


def main(_):
    fault = os.environ.get("FAULT") or "off"
    if fault not in STORIES:
        raise Problem(f"FAULT={fault}: one of {', '.join(STORIES)}")
    story, keep, screen = STORIES[fault], os.environ.get("KEEP") == "1", Screen()
    forget(RESULTS / "demo")
    with Stage(story.computes, keep=keep) as stage:
        play = Play(stage, story, RESULTS / "demo", INSTANCES, screen, keep=keep)
        screen.line()
        play.act()
        screen.line()
        for line in play.table():
            screen.line(line)
        for complaint in play.complaints:
            screen.line(f"wrong: {complaint}")
        screen.line()
        if stage.found and not keep:
            play.clear()
        if stage.stays:
            how_to_look(stage, play, screen)
    screen.line(f"demo: {play.verdict()}")
    return 0 if play.passes() else 1


def how_to_look(stage, play, screen):
    cloud = relative(MINICLOUD)
    screen.line("The cloud stays up:" if play.keep else "The cloud was up before, and stays:")
    screen.line(f"    {cloud} exec openstack server list --all-projects --long")
    screen.line(f"    {cloud} exec openstack compute service list")
    screen.line(f"    {cloud} who-runs")
    if play.keep:
        screen.line(f"    TANDEM_HA_URL=unix:{play.tandem.socket} {relative(BINARIES / 'tandem')} status")
    screen.line(f"    {cloud} down      # ends it{', tandem-ha too' if play.keep else ''}")


def relative(path):
    return os.path.relpath(path)
