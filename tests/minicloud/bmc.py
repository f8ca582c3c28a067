"""A host's Redfish BMC: sushy-tools' emulator with its fake driver, whose notifications drive the host.

Runs with OpenStack's Python, one process a host, as a BMC is one computer a server:
    python -m minicloud.bmc HOST
"""

import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import bcrypt
from sushy_tools import error
from sushy_tools.emulator import main as emulator
from sushy_tools.emulator.resources.systems import fakedriver
from werkzeug.serving import make_server

from .layout import BMC_PASSWORD, BMC_PORT, BMC_USER, PACKAGE, Layout

SLOW_S = 8.0


def main(name):
    host = Layout().host(name)
    notifier = ThreadingHTTPServer(("127.0.0.1", 0), notification_handler(host))
    threading.Thread(target=notifier.serve_forever, daemon=True).start()

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
                    "external_notifier": True,
                    "nics": [{"mac": f"02:00:00:03:00:{host.number:02x}", "ip": host.addresses["mgmt"]}],
                }
            ],
            "EXTERNAL_NOTIFICATION_URL": f"http://127.0.0.1:{notifier.server_port}/",
            "SUSHY_EMULATOR_STATE_DIR": str(state_dir),
            "SUSHY_EMULATOR_AUTH_FILE": str(users),
        }
    )
    emulator.app.wsgi_app = slow_when_asked(host, emulator.app.wsgi_app)
    make_server(host.bmc_address, BMC_PORT, emulator.app, threaded=True).serve_forever()


class Board(fakedriver.FakeDriver):
    """The fake driver, with the host's real power behind it.

    sushy's own applies a change at random 1 to 11 s later and only when somebody reads; here it is done when the answer
    is given, as ForceOff is on the boards we know of.
    """

    host = None

    def get_power_state(self, identity):
        super().get_power_state(identity)  # an unknown system is refused
        if self.host.get("bmc_mode") == "lies":
            return "Off"
        return "On" if self.host.get("power") == "on" else "Off"

    def set_power_state(self, identity, state):
        if state not in POWER:
            raise error.BadRequest(f"this board does not know ResetType {state}")
        if self.host.get("bmc_mode") == "lies":
            return
        for power in POWER[state]:
            if power != self.get_power_state(identity):
                self._update(identity, power_state=power)


POWER = {
    "On": ["On"],
    "ForceOn": ["On"],
    "ForceOff": ["Off"],
    "GracefulShutdown": ["Off"],
    "ForceRestart": ["Off", "On"],
    "GracefulRestart": ["Off", "On"],
}


def notification_handler(host):
    """What the emulator tells of a change of power is done to the host before the emulator answers its caller."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self):
            told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            verb = "on" if told["power_state"] == "On" else "off"
            done = subprocess.run(
                [sys.executable, "-m", __package__, "host", host.name, verb],
                capture_output=True,
                text=True,
                env={**os.environ, "MINICLOUD_STATE": str(host.layout.root), "PYTHONPATH": str(PACKAGE.parent)},
            )
            sys.stderr.write(done.stderr)
            self.send_response(500 if done.returncode else 204)
            self.end_headers()

    return Handler


def slow_when_asked(host, application):
    def answer(environ, start_response):
        if host.get("bmc_mode") == "slow":
            time.sleep(SLOW_S)
        return application(environ, start_response)

    return answer


if __name__ == "__main__":
    main(sys.argv[1])
