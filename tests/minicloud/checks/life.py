"""A cloud that is interrupted, killed, hung and cut, and that is up and well in the end."""

import os
import signal
import subprocess
import unittest

from .. import identity, net
from ..layout import PACKAGE, Problem
from . import machine
from .machine import (
    LAYOUT,
    Bmc,
    answers_on_22,
    boot_server,
    delete_server,
    eventually,
    host_state,
    is_ready,
    minicloud,
    runs_on,
    server,
    service,
    status,
)

INTERVALS = ["--report-interval", "2", "--service-down-time", "6"]


def setUpModule():
    """From nothing, with two kills of `up` itself on the way; Nova's intervals short, as tests want them."""
    minicloud("down")
    machine.start_up_and_kill_it(*INTERVALS, after_line="network")
    machine.start_up_and_kill_it(*INTERVALS, after_line="MariaDB")
    print(minicloud("up", *INTERVALS), flush=True)
    net.enter(LAYOUT, "client")


def tearDownModule():
    """For whoever comes next: well, and ready."""
    minicloud("up", *INTERVALS)


class Life(unittest.TestCase):
    def setUp(self):
        self.api = identity.Api()
        self.servers = []

    def tearDown(self):
        for name in ("cmp1", "cmp2", "cmp3"):
            minicloud("host", name, "bmc", "ok")
        for uuid in self.servers:
            delete_server(self.api, uuid)

    def boot(self, host):
        eventually(lambda: is_ready(self.api, host), f"{host} is ready")
        uuid = boot_server(self.api, f"check-{host}", host)
        self.servers.append(uuid)
        eventually(lambda: runs_on(uuid) == [host], "the guest writes its record")
        return uuid

    def test_1_up_again_finds_everything_there(self):
        before = {row["name"]: row["pid"] for row in status()["services"]}
        minicloud("up", *INTERVALS)
        self.assertEqual({row["name"]: row["pid"] for row in status()["services"]}, before)
        self.assertTrue(status()["up"])

    def test_2_up_mends_what_was_killed(self):
        for row in status()["services"]:
            if row["name"] in ("mariadb", "rabbitmq", "nova-api", "nova-conductor", "bmc-cmp2"):
                os.kill(row["pid"], signal.SIGKILL)
        minicloud("host", "cmp1", "crash")
        minicloud("host", "cmp3", "cut")
        self.assertFalse(status()["up"])
        minicloud("up", *INTERVALS)
        self.assertTrue(status()["up"])

    def test_a_running_cloud_refuses_other_intervals(self):
        self.assertIn("report_interval_s = 2, not 5", minicloud("up", "--report-interval", "5", ok=False))

    def test_a_failed_command_names_what_there_is(self):
        self.assertIn("hosts: cmp1, cmp2, cmp3", minicloud("host", "cmp9", "off", ok=False))
        self.assertIn("nova-conductor", minicloud("log", "nonsense", ok=False))
        self.assertIn("nothing runs in it", self.refused_when_off("hang"))

    def refused_when_off(self, verb):
        minicloud("host", "cmp3", "off")
        complaint = minicloud("host", "cmp3", verb, ok=False)
        minicloud("host", "cmp3", "on")
        return complaint

    def test_every_host_has_an_identity_of_its_own(self):
        seen = {minicloud("host", name, "exec", "cat", "/proc/sys/kernel/random/boot_id") for name in ("cmp1", "cmp2")}
        self.assertEqual(len(seen), 2)
        before = host_state("cmp1")
        minicloud("host", "cmp1", "reboot")
        after = host_state("cmp1")
        self.assertNotEqual(before["boot_id"], after["boot_id"])
        self.assertEqual(before["system_uuid"], Bmc("cmp1").get()["UUID"])

    def test_a_host_that_is_off_is_not_heard_of(self):
        addresses = LAYOUT.host("cmp2").addresses
        self.assertTrue(all(answers_on_22(address) for address in addresses.values()))
        uuid = self.boot("cmp2")
        minicloud("host", "cmp2", "off")
        self.assertEqual([answers_on_22(address) for address in addresses.values()], [None, None])
        self.assertEqual(Bmc("cmp2").power(), "Off")
        eventually(lambda: runs_on(uuid) == [], "the guest died with its host")
        eventually(lambda: service(self.api, "cmp2")["state"] == "down", "Nova sees it down")
        minicloud("host", "cmp2", "on")
        eventually(lambda: service(self.api, "cmp2")["state"] == "up", "Nova sees it up")
        eventually(lambda: server(self.api, uuid)["status"] == "SHUTOFF", "its guest is found stopped")
        self.assertEqual(runs_on(uuid), [])

    def test_a_panic_leaves_the_power_on(self):
        minicloud("host", "cmp2", "crash")
        self.assertEqual(Bmc("cmp2").power(), "On")
        self.assertIsNone(answers_on_22(LAYOUT.host("cmp2").addresses["mgmt"]))
        self.assertIn("reboot", minicloud("host", "cmp2", "on", ok=False))
        minicloud("host", "cmp2", "reboot")
        self.assertTrue(answers_on_22(LAYOUT.host("cmp2").addresses["mgmt"]))

    def test_the_bmc_switches_the_host(self):
        bmc = Bmc("cmp3")
        self.assertEqual(bmc.power(), "On")
        self.assertEqual(bmc.reset("ForceOff"), 204)
        self.assertEqual((bmc.power(), host_state("cmp3")["state"]), ("Off", "off"))
        bmc.reset("On")
        self.assertEqual((bmc.power(), host_state("cmp3")["state"]), ("On", "running"))

    def test_a_bmc_can_be_dead_slow_or_a_liar(self):
        bmc = Bmc("cmp3")
        minicloud("host", "cmp3", "bmc", "dead")
        with self.assertRaises(OSError):
            bmc.power(timeout=2)
        minicloud("host", "cmp3", "bmc", "slow")
        with self.assertRaises(OSError):
            bmc.power(timeout=2)
        minicloud("host", "cmp3", "bmc", "lies")
        bmc.reset("ForceOff")
        self.assertEqual((bmc.power(), host_state("cmp3")["state"]), ("Off", "running"))

    def test_guests_outlive_nova_compute(self):
        uuid = self.boot("cmp1")
        minicloud("host", "cmp1", "compute", "stop")
        eventually(lambda: service(self.api, "cmp1")["state"] == "down", "Nova sees it down")
        self.assertEqual(runs_on(uuid), ["cmp1"])
        minicloud("host", "cmp1", "compute", "start")
        eventually(lambda: service(self.api, "cmp1")["state"] == "up", "Nova sees it up")
        self.assertEqual((server(self.api, uuid)["status"], runs_on(uuid)), ("ACTIVE", ["cmp1"]))

    def test_a_host_that_is_cut_off_lives_on(self):
        uuid = self.boot("cmp1")
        addresses = LAYOUT.host("cmp1").addresses
        minicloud("host", "cmp1", "cut", "--net", "mgmt")
        self.assertEqual([answers_on_22(addresses[net_]) for net_ in ("mgmt", "storage")], [None, True])
        eventually(lambda: service(self.api, "cmp1")["state"] == "down", "Nova sees it down")
        self.assertEqual(runs_on(uuid), ["cmp1"])
        minicloud("host", "cmp1", "mend")
        eventually(lambda: service(self.api, "cmp1")["state"] == "up", "Nova sees it up")

    def test_a_zombie_that_wakes_after_an_evacuation_is_caught(self):
        uuid = self.boot("cmp2")
        eventually(lambda: is_ready(self.api, "cmp3"), "cmp3 is ready")
        minicloud("host", "cmp2", "hang")
        eventually(lambda: runs_on(uuid) == [], "the guest stands still")
        self.force_down("cmp2", True)
        self.api.post("nova", f"/v2.1/servers/{uuid}/action", {"evacuate": {"host": "cmp3"}})
        eventually(lambda: runs_on(uuid) == ["cmp3"], "the guest runs elsewhere")
        self.assertIn("cmp3, stands still on cmp2", self.who_runs_complains(uuid))
        minicloud("host", "cmp2", "resume")
        eventually(lambda: runs_on(uuid) == ["cmp2", "cmp3"], "both copies run")
        self.assertIn("ran twice at once: cmp2", self.who_runs_complains(uuid))
        minicloud("host", "cmp2", "compute", "restart")
        eventually(lambda: runs_on(uuid) == ["cmp3"], "nova-compute removes the evacuated guest when it starts")
        eventually(lambda: self.released("cmp2"), "Nova lets forced_down go")

    @staticmethod
    def who_runs_complains(uuid):
        done = subprocess.run([PACKAGE / "minicloud", "who-runs", uuid], capture_output=True, text=True)
        assert done.returncode == 1, done
        return done.stdout

    def test_an_evacuation_after_a_fence_is_no_fault(self):
        uuid = self.boot("cmp2")
        eventually(lambda: is_ready(self.api, "cmp3"), "cmp3 is ready")
        minicloud("host", "cmp2", "hang")
        Bmc("cmp2").reset("ForceOff")
        self.force_down("cmp2", True)
        self.api.post("nova", f"/v2.1/servers/{uuid}/action", {"evacuate": {"host": "cmp3"}})
        eventually(lambda: runs_on(uuid) == ["cmp3"], "the guest runs elsewhere")
        minicloud("who-runs", uuid)
        minicloud("host", "cmp2", "on")
        eventually(lambda: self.released("cmp2"), "Nova lets forced_down go")
        minicloud("who-runs", uuid)

    def test_a_paused_guest_stands_still(self):
        uuid = self.boot("cmp1")
        self.api.post("nova", f"/v2.1/servers/{uuid}/action", {"pause": None})
        eventually(lambda: server(self.api, uuid)["status"] == "PAUSED", "Nova says so")
        self.assertEqual(runs_on(uuid), [])
        self.api.post("nova", f"/v2.1/servers/{uuid}/action", {"unpause": None})
        eventually(lambda: runs_on(uuid) == ["cmp1"], "it goes on")

    def test_a_live_migration_leaves_no_copy(self):
        uuid = self.boot("cmp1")
        eventually(lambda: is_ready(self.api, "cmp3"), "cmp3 is ready")
        self.api.post(
            "nova",
            f"/v2.1/servers/{uuid}/action",
            {"os-migrateLive": {"host": "cmp3", "block_migration": "auto"}},
        )
        eventually(lambda: runs_on(uuid) == ["cmp3"], "it has moved")
        eventually(lambda: server(self.api, uuid)["OS-EXT-STS:task_state"] is None, "the migration is over")
        minicloud("who-runs", uuid)
        self.assertFalse((LAYOUT.host("cmp1").dir / "guests" / f"{uuid}.name").exists())

    def test_a_link_that_was_cut_stays_cut_over_a_boot(self):
        minicloud("host", "cmp3", "cut", "--net", "mgmt")
        minicloud("host", "cmp3", "reboot")
        self.assertEqual(host_state("cmp3")["links"], {"mgmt": "down", "storage": "up"})
        minicloud("host", "cmp3", "mend")
        self.assertEqual(host_state("cmp3")["links"], {"mgmt": "up", "storage": "up"})

    def test_every_boot_starts_the_services_of_the_host(self):
        log = LAYOUT.logs / "probe-cmp3.log"
        probe = LAYOUT.host("cmp3").dir / "services" / "probe"
        probe.parent.mkdir(exist_ok=True)
        probe.write_text("#!/bin/sh\ncat /proc/sys/kernel/random/boot_id\nexec sleep 1000\n")
        probe.chmod(0o755)
        minicloud("host", "cmp3", "services")
        eventually(lambda: log.exists() and len(log.read_text().split()) == 1, "it is started when asked")
        minicloud("host", "cmp3", "reboot")
        eventually(lambda: len(set(log.read_text().split())) == 2, "it is started by the boot")
        probe.unlink()

    def test_a_wedged_host_does_not_heed_a_graceful_shutdown(self):
        minicloud("host", "cmp3", "hang")
        Bmc("cmp3").reset("GracefulShutdown")
        self.assertEqual(host_state("cmp3")["state"], "hung")
        Bmc("cmp3").reset("ForceRestart")
        self.assertEqual(host_state("cmp3")["state"], "running")

    def force_down(self, host, forced):
        self.api.put("nova", f"/v2.1/os-services/{service(self.api, host)['id']}", {"forced_down": forced})

    def released(self, host):
        """Nova refuses until the evacuation's migration is `completed`."""
        try:
            self.force_down(host, False)
        except Problem as refused:
            self.assertIn("400", str(refused))
            return False
        return service(self.api, host)["state"] == "up"
