"""How the checks drive the minicloud: as its user does, and as the outside world does to it."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request

from .. import cloud, identity, record
from ..layout import BMC_PASSWORD, BMC_USER, PACKAGE, Layout

LAYOUT = Layout()


def minicloud(*words, ok=True):
    """Runs the command; its standard output, or its complaint where it must fail."""
    done = subprocess.run([PACKAGE / "minicloud", *words], capture_output=True, text=True)
    if (done.returncode == 0) != ok:
        raise AssertionError(f"minicloud {' '.join(words)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout if ok else done.stderr


def status():
    done = subprocess.run([PACKAGE / "minicloud", "status", "--json"], capture_output=True, text=True)
    return json.loads(done.stdout)


def host_state(name):
    return next(host for host in status()["hosts"] if host["name"] == name)


def start_up_and_kill_it(*words, after_line):
    """kill -9 of `minicloud up` once it has printed a line with this text; whatever it had started goes on."""
    child = subprocess.Popen([PACKAGE / "minicloud", "up", *words], stdout=subprocess.PIPE, text=True)
    for line in child.stdout:
        if after_line in line:
            break
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()


def answers_on_22(address):
    """True: answers; False: refused, so a kernel lives there; None: nothing is heard."""
    try:
        with socket.create_connection((address, 22), timeout=4) as connection:
            return connection.recv(64).startswith(b"SSH-2.0")
    except ConnectionRefusedError:
        return False
    except OSError:
        return None


class Bmc:
    """A Redfish client of three calls."""

    def __init__(self, name):
        host = LAYOUT.host(name)
        self.system = f"{host.bmc_url}/redfish/v1/Systems/{host.system_uuid}"
        manager = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        manager.add_password(None, host.bmc_url, BMC_USER, BMC_PASSWORD)
        self.opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(manager))

    def get(self, timeout=20):
        with self.opener.open(self.system, timeout=timeout) as answer:
            return json.load(answer)

    def power(self, timeout=20):
        return self.get(timeout)["PowerState"]

    def reset(self, kind):
        body = json.dumps({"ResetType": kind}).encode()
        request = urllib.request.Request(
            f"{self.system}/Actions/ComputerSystem.Reset", body, {"Content-Type": "application/json"}
        )
        with self.opener.open(request, timeout=30) as answer:
            return answer.status


def boot_server(api, name, host):
    """An ACTIVE server on this host; its uuid."""
    image = api.get("glance", f"/v2/images?name={identity.IMAGE}")["images"][0]["id"]
    flavors = {flavor["name"]: flavor["id"] for flavor in api.get("nova", "/v2.1/flavors")["flavors"]}
    made = api.post(
        "nova",
        "/v2.1/servers",
        {
            "server": {
                "name": name,
                "imageRef": image,
                "flavorRef": flavors["m1.tiny"],
                "networks": "none",
                "availability_zone": f"nova:{host}",
            }
        },
    )
    uuid = made["server"]["id"]
    eventually(lambda: server(api, uuid)["status"] == "ACTIVE", f"{name} becomes ACTIVE")
    return uuid


def server(api, uuid):
    found = api.get("nova", f"/v2.1/servers/{uuid}")["server"]
    if found["status"] == "ERROR":
        raise AssertionError(f"server {uuid} is in ERROR: {found.get('fault')}")
    return found


def servers(api):
    return {row["id"] for row in api.get("nova", "/v2.1/servers?all_tenants=1")["servers"]}


def delete_server(api, uuid):
    """Deletes it and forgets its record, so that a check's planted double is not held against others."""
    api.delete("nova", f"/v2.1/servers/{uuid}")
    eventually(lambda: uuid not in servers(api), f"server {uuid} is gone")
    (LAYOUT.record / f"{uuid}.log").unlink(missing_ok=True)


def service(api, host):
    return api.get("nova", f"/v2.1/os-services?binary=nova-compute&host={host}")["services"][0]


def is_ready(api, host):
    return cloud.takes_work(LAYOUT.host(host), service(api, host))


def runs_on(uuid):
    try:
        return record.report(LAYOUT, uuid)["runs_on"]
    except FileNotFoundError:
        return []


def eventually(condition, what, limit_s=90):
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit_s} s: {what}")
        time.sleep(0.2)
