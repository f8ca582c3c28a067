"""Nova's virt driver for a minicloud host: Nova's own fake driver, but a guest is a real process.

Guests are known by files on the host's disk (`guests/UUID.name`), as libvirt knows its domains: they survive a restart
of nova-compute, live on in a host that is cut off, and are found stopped after the host has booted again. Whether one
runs is for the kernel to say: a guest is recognised by its command line, so none can run unknown to its driver.
Runs with OpenStack's Python:
    python -m minicloud.virt NOVA_COMPUTE_ARGUMENTS
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from nova import conf, exception
from nova.cmd import compute  # first: it decides how Nova does its threads
from nova.compute import manager, power_state
from nova.virt import fake, hardware

from minicloud import record

CONF = conf.CONF


class ProcessDriver(fake.FakeDriverWithoutFakeNodes):
    """Spawns, stops and finds guests; all else is as in Nova's fake driver."""

    def init_host(self, host):
        super().init_host(host)
        self.guests = Guests(Path(CONF.state_path).parent)
        for uuid in self.guests.uuids():
            self.instances[uuid] = fake.FakeInstance(self.guests.name(uuid), power_state.NOSTATE, uuid)

    def spawn(self, context, instance, *args, power_on=True, **kwargs):
        super().spawn(context, instance, *args, power_on=power_on, **kwargs)
        self.guests.define(instance)
        if power_on:
            self.guests.start(instance.uuid)

    def destroy(self, context, instance, *args, **kwargs):
        super().destroy(context, instance, *args, **kwargs)
        self.guests.undefine(instance.uuid)

    def cleanup(self, context, instance, *args, **kwargs):
        self.instances.pop(instance.uuid, None)
        super().cleanup(context, instance, *args, **kwargs)
        self.guests.undefine(instance.uuid)

    def power_off(self, instance, timeout=0, retry_interval=0):
        self._known(instance)
        self.guests.stop(instance.uuid)

    def power_on(self, context, instance, *args, **kwargs):
        self._known(instance)
        self.guests.start(instance.uuid)

    def reboot(self, context, instance, network_info, reboot_type, *args, **kwargs):
        self.guests.stop(instance.uuid)
        self.guests.define(instance)
        self.guests.start(instance.uuid)

    def resume_state_on_host_boot(self, context, instance, *args, **kwargs):
        self.guests.start(instance.uuid)

    def migrate_disk_and_power_off(self, context, instance, *args, **kwargs):
        self.guests.stop(instance.uuid)

    def finish_revert_migration(self, context, instance, *args, power_on=True, **kwargs):
        self.guests.define(instance)
        if power_on:
            self.guests.start(instance.uuid)

    def pause(self, instance):
        self.guests.signal(instance.uuid, signal.SIGSTOP)

    def unpause(self, instance):
        self.guests.signal(instance.uuid, signal.SIGCONT)

    def suspend(self, context, instance):
        self.guests.stop(instance.uuid)

    def resume(self, context, instance, *args, **kwargs):
        self.guests.start(instance.uuid)

    def post_live_migration(self, context, instance, *args, **kwargs):
        super().post_live_migration(context, instance, *args, **kwargs)
        self.instances.pop(instance.uuid, None)
        self.guests.undefine(instance.uuid)

    def live_migration(self, context, instance, *args, **kwargs):
        # The destination starts its copy while this one is told to go: switch over first.
        self.guests.stop(instance.uuid)
        super().live_migration(context, instance, *args, **kwargs)

    def list_instances(self):
        return [self.guests.name(uuid) for uuid in self.guests.uuids()]

    def list_instance_uuids(self):
        return self.guests.uuids()

    def get_info(self, instance, use_cache=True):
        self._known(instance)
        return hardware.InstanceInfo(state=self.guests.state(instance.uuid))

    def get_volume_connector(self, instance):
        return {"ip": CONF.my_block_storage_ip, "initiator": f"iqn.2026-11.minicloud:{CONF.host}", "host": CONF.host}

    def _known(self, instance):
        if instance.uuid not in self.guests.uuids():
            raise exception.InstanceNotFound(instance_id=instance.uuid)


class Guests:
    """The guests that this host's disk knows of."""

    def __init__(self, host_dir):
        self.dir = host_dir / "guests"
        self.dir.mkdir(exist_ok=True)
        self.record = host_dir.parent.parent / "record"

    def uuids(self):
        return sorted(path.stem for path in self.dir.glob("*.name"))

    def name(self, uuid):
        return (self.dir / f"{uuid}.name").read_text()

    def define(self, instance):
        (self.dir / f"{instance.uuid}.name").write_text(instance.name)

    def undefine(self, uuid):
        self.stop(uuid)
        (self.dir / f"{uuid}.name").unlink(missing_ok=True)

    def runs(self, uuid):
        return self._find(uuid) is not None

    def state(self, uuid):
        guest = self._find(uuid)
        if guest is None:
            return power_state.SHUTDOWN
        return power_state.PAUSED if guest.stopped else power_state.RUNNING

    def start(self, uuid):
        if self.runs(uuid):
            return
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # setsid --fork hands the guest over to the host's init at once: it is no child of nova-compute.
        python = ["setsid", "--fork", sys.executable, "-I", "-S"]
        subprocess.run(
            [*python, record.GUEST, uuid, CONF.host, boot_id, self.record / f"{uuid}.log"],
            stdin=subprocess.DEVNULL,
            check=True,
        )
        self._wait(lambda: self.runs(uuid), f"guest {uuid} does not start")

    def stop(self, uuid):
        guest = self._find(uuid)
        if guest is not None:
            os.kill(guest.pid, signal.SIGKILL)
            self._wait(lambda: not self.runs(uuid), f"guest {uuid} does not end")
            record.write(self.record / f"{uuid}.log", guest.host, guest.boot_id, guest.pid)

    def signal(self, uuid, number):
        guest = self._find(uuid)
        if guest is not None:
            os.kill(guest.pid, number)

    @staticmethod
    def _find(uuid):
        """The guest's process, as this host's own /proc shows it."""
        for pid in filter(str.isdigit, os.listdir("/proc")):
            guest = record.guest_of(pid)
            if guest and guest.instance == uuid:
                return guest
        return None

    @staticmethod
    def _wait(condition, complaint, limit_s=10):
        deadline = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > deadline:
                raise exception.InternalError(complaint)
            time.sleep(0.01)


def tell_when_ready():
    """Leaves a mark when nova-compute takes requests: until then Nova's `state` may be an up of its former life."""
    begin = manager.ComputeManager.post_start_hook

    def post_start_hook(self):
        begin(self)
        (Path(CONF.state_path).parent / "nova-compute.ready").touch()

    manager.ComputeManager.post_start_hook = post_start_hook


if __name__ == "__main__":
    tell_when_ready()
    # Nova looks for drivers in its own package alone.
    sys.modules["nova.virt.minicloud"] = sys.modules[__name__]
    sys.argv[0] = "nova-compute"
    sys.exit(compute.main())
