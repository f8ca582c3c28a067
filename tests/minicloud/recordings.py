"""Writes down what the services of a cloud that is up really answer: the wire bytes of openstack-client's unit tests.

usage: minicloud exec python3 -m minicloud.recordings DIRECTORY

Run it when the pins move to another release. It makes servers, lets a host die and, for the rows of a down cell, gives
Nova a cell whose database does not answer; `minicloud down` afterwards, the cloud has been bent.
"""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

from . import cloud, config, identity
from .checks import machine
from .config import url
from .layout import PASSWORD, Layout

LAYOUT = Layout()
DEAD, ALIVE = "cmp1", "cmp2"


class Recorder:
    """Asks as the operator and keeps the answer's bytes, whatever its status."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.token = identity.Api().token

    def keep(self, name, service, path, version=None, method="GET", body=None, token=None, subject=None):
        answer = self.ask(service, path, version, method, body, token, subject)[0]
        (self.directory / f"{name}.json").write_bytes(answer)
        print(f"{name}.json: {len(answer)} bytes")

    def ask(self, service, path, version=None, method="GET", body=None, token=None, subject=None):
        headers = {"Content-Type": "application/json", "X-Auth-Token": token or self.token}
        if version:
            headers["OpenStack-API-Version"] = f"{'compute' if service == 'nova' else service} {version}"
        if subject:
            headers["X-Subject-Token"] = subject
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url(service, path), data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:  # Nova waits 60 s for a cell, in turn
                return answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            return error.read(), error.headers


def main(directory):
    recorder, api = Recorder(directory), identity.Api()
    keystone(recorder, api)
    servers = make_servers(recorder, api)
    alive_host(recorder, api, servers)
    evacuation(recorder, api, servers)
    down_cell(recorder, servers)


def keystone(recorder, api):
    recorder.keep("keystone-auth", "keystone", "/v3/auth/tokens", method="POST", body=password_auth(PASSWORD))
    recorder.keep("keystone-401", "keystone", "/v3/auth/tokens", method="POST", body=password_auth("wrong"))
    recorder.keep("keystone-token", "keystone", "/v3/auth/tokens", subject=recorder.token)
    me = json.loads(recorder.ask("keystone", "/v3/auth/tokens", subject=recorder.token)[0])["token"]["user"]["id"]
    made = api.post(
        "keystone",
        f"/v3/users/{me}/application_credentials",
        {
            "application_credential": {
                "name": f"recording-{uuid.uuid4().hex[:6]}",
                "access_rules": [{"service": "compute", "method": "GET", "path": "/v2.1/servers"}],
            }
        },
    )["application_credential"]
    _, headers = recorder.ask(
        "keystone",
        "/v3/auth/tokens",
        method="POST",
        body={
            "auth": {
                "identity": {
                    "methods": ["application_credential"],
                    "application_credential": {"id": made["id"], "secret": made["secret"]},
                }
            }
        },
    )
    # A token with access rules is only shown to who says that it will obey them.
    request = urllib.request.Request(
        url("keystone", "/v3/auth/tokens"),
        headers={
            "X-Auth-Token": recorder.token,
            "X-Subject-Token": headers["X-Subject-Token"],
            "OpenStack-Identity-Access-Rules": "1.0",
        },
    )
    with urllib.request.urlopen(request) as answer:
        (recorder.directory / "keystone-token-application-credential.json").write_bytes(answer.read())


def password_auth(password):
    domain = {"id": "default"}
    return {
        "auth": {
            "identity": {
                "methods": ["password"],
                "password": {"user": {"name": "admin", "domain": domain, "password": password}},
            },
            "scope": {"project": {"name": "admin", "domain": domain}},
        }
    }


def make_servers(recorder, api):
    """Three on the host that is to die: on an image, in a group with a tag and a lock, and on a volume."""
    group = json.loads(
        recorder.ask(
            "nova",
            "/v2.1/os-server-groups",
            "2.64",
            "POST",
            {"server_group": {"name": "apart", "policy": "anti-affinity", "rules": {"max_server_per_host": 3}}},
        )[0]
    )["server_group"]["id"]
    recorder.ask("nova", "/v2.1/os-aggregates", None, "POST", {"aggregate": {"name": "rack1"}})
    aggregate = api.get("nova", "/v2.1/os-aggregates")["aggregates"][0]["id"]
    for change in ({"add_host": {"host": ALIVE}}, {"set_metadata": {"metadata": {"rack": "1"}}}):
        recorder.ask("nova", f"/v2.1/os-aggregates/{aggregate}/action", None, "POST", change)
    image = api.get("glance", f"/v2/images?name={identity.IMAGE}")["images"][0]["id"]
    flavor = next(row["id"] for row in api.get("nova", "/v2.1/flavors")["flavors"] if row["name"] == "m1.tiny")
    common = {"flavorRef": flavor, "networks": "none", "availability_zone": f"nova:{DEAD}"}
    wanted = [
        {"server": {**common, "name": "plain", "imageRef": image}},
        {
            "server": {
                **common,
                "name": "grouped",
                "imageRef": image,
                "tags": ["gold"],
                "metadata": {"HA_Enabled": "True"},
            },
            "os:scheduler_hints": {"group": group},
        },
        {
            "server": {
                **common,
                "name": "on-volume",
                "block_device_mapping_v2": [
                    {
                        "boot_index": 0,
                        "uuid": bootable_volume(api),
                        "source_type": "volume",
                        "destination_type": "volume",
                        "delete_on_termination": False,
                    }
                ],
            }
        },
    ]
    uuids = []
    for body in wanted:
        uuids.append(json.loads(recorder.ask("nova", "/v2.1/servers", "2.94", "POST", body)[0])["server"]["id"])
        machine.eventually(lambda: machine.server(api, uuids[-1])["status"] == "ACTIVE", "it is ACTIVE")
    recorder.ask("nova", f"/v2.1/servers/{uuids[1]}/action", "2.94", "POST", {"lock": {"locked_reason": "recording"}})
    return uuids


def bootable_volume(api):
    made = api.post("cinder", "/v3/volumes", {"volume": {"size": 1, "name": "root"}})["volume"]["id"]
    machine.eventually(lambda: api.get("cinder", f"/v3/volumes/{made}")["volume"]["status"] == "available", "volume")
    api.post("cinder", f"/v3/volumes/{made}/action", {"os-set_bootable": {"bootable": True}})
    return made


def alive_host(recorder, api, servers):
    recorder.keep("nova-version", "nova", "/v2.1/")
    recorder.keep("placement-version", "placement", "/")
    recorder.keep("os-services", "nova", "/v2.1/os-services?binary=nova-compute", "2.69")
    recorder.keep("os-server-groups", "nova", "/v2.1/os-server-groups?all_projects=true", "2.64")
    recorder.keep("os-aggregates", "nova", "/v2.1/os-aggregates", "2.41")
    recorder.keep("os-hypervisors", "nova", "/v2.1/os-hypervisors/detail", "2.87")
    recorder.keep("servers-detail", "nova", f"/v2.1/servers/detail?all_tenants=1&host={DEAD}&limit=2", "2.73")
    recorder.keep("server", "nova", f"/v2.1/servers/{servers[1]}", "2.73")
    nobody = uuid.uuid4()
    recorder.keep("nova-404", "nova", f"/v2.1/servers/{nobody}", "2.73")
    recorder.keep(
        "nova-400-service-in-use", "nova", f"/v2.1/servers/{servers[0]}/action", "2.94", "POST", {"evacuate": {}}
    )
    providers = api.get("placement", f"/resource_providers?name={DEAD}")["resource_providers"]
    for what, version in (("inventories", "1.0"), ("usages", "1.0"), ("traits", "1.6")):
        recorder.keep(f"placement-{what}", "placement", f"/resource_providers/{providers[0]['uuid']}/{what}", version)
    recorder.keep("placement-404", "placement", f"/resource_providers/{nobody}/inventories", "1.0")


def evacuation(recorder, api, servers):
    machine.minicloud("host", DEAD, "off")
    service = machine.service(api, DEAD)["id"]
    recorder.keep("os-services-update", "nova", f"/v2.1/os-services/{service}", "2.53", "PUT", {"forced_down": True})
    evacuate = {"evacuate": {"host": ALIVE}}
    recorder.ask("nova", f"/v2.1/servers/{servers[0]}/action", "2.94", "POST", evacuate)
    machine.eventually(lambda: machine.server(api, servers[0])["OS-EXT-SRV-ATTR:host"] == ALIVE, "it has moved")
    # Without a wish: until the scheduler has chosen, the migration has no destination.
    recorder.ask("nova", f"/v2.1/servers/{servers[2]}/action", "2.94", "POST", {"evacuate": {}})
    recorder.keep("os-migrations", "nova", "/v2.1/os-migrations?migration_type=evacuation", "2.59")
    actions = f"/v2.1/servers/{servers[0]}/os-instance-actions"
    recorder.keep("os-instance-actions", "nova", actions, "2.84")
    rows = json.loads(recorder.ask("nova", actions, "2.84")[0])["instanceActions"]
    request = next(row["request_id"] for row in rows if row["action"] == "evacuate")
    recorder.keep("os-instance-action", "nova", f"{actions}/{request}", "2.84")


def down_cell(recorder, servers):
    """A host and a server that Nova's API database puts into a cell whose database refuses connections."""
    nowhere = f"mysql+pymysql://nova:none@{config.ADDRESS}:1/nova"
    subprocess.run(
        [
            LAYOUT.tool("nova-manage"),
            "--config-file",
            LAYOUT.etc / "nova" / "nova.conf",
            "cell_v2",
            "create_cell",
            "--name",
            "away",
            "--database_connection",
            nowhere,
            "--transport-url",
            f"{config.TRANSPORT}away",
        ],
        check=True,
        capture_output=True,
    )
    away = "(SELECT id FROM cell_mappings WHERE name = 'away')"
    sql(
        "nova_api",
        f"UPDATE host_mappings SET cell_id = {away} WHERE host = 'cmp3';"
        f"UPDATE instance_mappings SET cell_id = {away} WHERE instance_uuid = '{servers[1]}';",
    )
    sql(
        "nova",
        "UPDATE services SET deleted = id WHERE host = 'cmp3';"
        f"UPDATE instances SET deleted = id WHERE uuid = '{servers[1]}';",
    )
    # nova-api learns of cells when it starts. With the default of ten attempts, each answer would take minutes.
    nova_conf = LAYOUT.etc / "nova" / "nova.conf"
    few = "[database]\nmax_retries = 1\nretry_interval = 1\n"
    nova_conf.write_text(nova_conf.read_text().replace("[database]\n", few))
    nova_api = next(service for service in cloud.control_plane(LAYOUT, LAYOUT.parameters) if service.name == "nova-api")
    nova_api.stop()
    nova_api.start()
    nova_api.wait()
    recorder.keep("down-cell-services", "nova", "/v2.1/os-services?binary=nova-compute", "2.69")
    recorder.keep("down-cell-servers-detail", "nova", "/v2.1/servers/detail", "2.73")


def sql(database, statements):
    subprocess.run(
        ["mariadb", "--no-defaults", "-h", config.ADDRESS, "-u", database, f"-p{PASSWORD}", database],
        input=statements,
        text=True,
        check=True,
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    started = time.monotonic()
    main(sys.argv[1])
    print(f"done after {time.monotonic() - started:.0f} s")
