"""A host's Redfish BMC: sushy-tools' emulator with its fake driver, whose changes of power are done to the host.

Runs with OpenStack's Python, one process a host, as a BMC is one computer a server:
    python -m minicloud.bmc HOST
"""

import os
import subprocess
import sys
import time

import bcrypt
from sushy_tools import error
from sushy_tools.emulator import main as emulator
from sushy_tools.emulator.resources.systems import fakedriver
from werkzeug.serving import make_server

from . import hosts
from .layout import BMC_PASSWORD, BMC_PORT, BMC_USER, PACKAGE, Layout

SLOW_S = 8.0


def main(name):
    host = Layout().host(name)
    Board.host = host
    fakedriver.FakeDriver = Board
    state_dir = host.dir / "bmc"
    state_dir.mkdir(parents=True, exist_ok=True)
    users = state_dir / "htpasswd"
    users.write_text(f"{BMC_USER}:{bcrypt.hashpw(BMC_PASSWORD.encode(), bcrypt.gensalt(4)).decode()}\n")
    emulator.app.configure(
        extra_config={
            "SUSHY_EMULATOR_FAKE_DRIVER": True,
            "SUSHY_EMULATOR_FAKE_SYSTEMS": [
                {
                    "uuid": host.system_uuid,
                    "name": host.name,
                    "power_state": "On",
                    "nics": [{"mac": f"02:00:00:03:00:{host.number:02x}", "ip": host.addresses["mgmt"]}],
                }
            ],
            "SUSHY_EMULATOR_STATE_DIR": str(state_dir),
            "SUSHY_EMULATOR_AUTH_FILE": str(users),
        }
    )
    emulator.app.wsgi_app = slow_when_asked(host, emulator.app.wsgi_app)
    make_server(host.bmc_address, BMC_PORT, emulator.app, threaded=True).serve_forever()


class Board(fakedriver.FakeDriver):
    """The fake driver, with the host's real power behind it.

    sushy's own applies a change at random 1 to 11 s later and only when somebody reads; here it is done when the answer
    is given, as ForceOff is on the boards we know of. Its `external_notifier` could drive the host too, but it also
    notifies when the boot device changes, with a power state of long ago, and it keeps failures to itself.
    """

    host = None

    def get_power_state(self, identity):
        super().get_power_state(identity)  # an unknown system is refused
        if self.host.get("bmc_mode") == "lies":
            return "Off"
        return "On" if self.host.get("power") == "on" else "Off"

    def set_power_state(self, identity, state):
        super().get_power_state(identity)
        if state not in VERBS:
            raise error.BadRequest(f"this board does not know ResetType {state}")
        power, graceful = self.host.get("power", "off"), state.startswith("Graceful")
        ignored = self.host.get("bmc_mode") == "lies" or power not in VERBS[state]
        if ignored or (graceful and hosts.state(self.host) != "running"):  # nobody there who would obey
            return
        switch(self.host, VERBS[state][power])


# What each ResetType does to a host whose power is on or off; where nothing stands, nothing happens.
VERBS = {
    "On": {"off": "on"},
    "ForceOn": {"off": "on"},
    "ForceOff": {"on": "off"},
    "GracefulShutdown": {"on": "off"},
    "ForceRestart": {"on": "reboot"},
    "GracefulRestart": {"on": "reboot"},
}


def switch(host, verb):
    """Done before the answer is given; a failure is answered 500."""
    done = subprocess.run(
        [sys.executable, "-m", __package__, "host", host.name, verb],
        capture_output=True,
        text=True,
        env={**os.environ, "MINICLOUD_STATE": str(host.layout.root), "PYTHONPATH": str(PACKAGE.parent)},
    )
    if done.returncode:
        raise error.FishyError(f"the board cannot do this: {done.stderr.strip()}")


def slow_when_asked(host, application):
    def answer(environ, start_response):
        if host.get("bmc_mode") == "slow":
            time.sleep(SLOW_S)
        return application(environ, start_response)

    return answer


if __name__ == "__main__":
    main(sys.argv[1])
