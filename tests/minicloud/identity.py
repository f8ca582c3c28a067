"""Fills a fresh Keystone: project `service`, users, catalogue; and a fresh cloud: flavors, image, volume type.

Through the REST API with one token, in seconds; the command line would start a Python for each of some sixty calls.
"""

import json
import urllib.error
import urllib.request

from .config import url
from .layout import PASSWORD, PORTS, REGION, Problem

CATALOGUE = {
    "identity": ("keystone", "/v3"),
    "placement": ("placement", ""),
    "image": ("glance", ""),
    "network": ("neutron", ""),
    "compute": ("nova", "/v2.1"),
    "volumev3": ("cinder", "/v3"),
    "instance-ha": ("masakari", "/v1/%(project_id)s"),
}
FLAVORS = {"m1.tiny": (1, 512, 1), "m1.small": (1, 2048, 20), "m1.large": (4, 8192, 80)}
IMAGE = "minicloud"


class Api:
    """The operator's session: a token, and calls that say what they wanted when they fail."""

    def __init__(self):
        body = {
            "auth": {
                "identity": {
                    "methods": ["password"],
                    "password": {"user": {"name": "admin", "password": PASSWORD, "domain": {"id": "default"}}},
                },
                "scope": {"project": {"name": "admin", "domain": {"id": "default"}}},
            }
        }
        self.token = self._send("POST", url("keystone", "/v3/auth/tokens"), body, {})[1]["X-Subject-Token"]

    def get(self, service, path):
        return self._send("GET", url(service, path), None, self._headers())[0]

    def post(self, service, path, body):
        return self._send("POST", url(service, path), body, self._headers())[0]

    def put(self, service, path, body=None, content_type="application/json"):
        return self._send("PUT", url(service, path), body, self._headers(content_type))[0]

    def delete(self, service, path):
        self._send("DELETE", url(service, path), None, self._headers())

    def ensure(self, service, path, collection, name, body):
        """The id of the thing with this name, made if it is not there."""
        listed = self.get(service, path)[collection]
        found = next((thing["id"] for thing in listed if thing["name"] == name), None)
        if found:
            return found
        made = self.post(service, path.split("?")[0], body)
        return made.get("id") or next(iter(made.values()))["id"]  # Glance alone does not wrap what it made

    def _headers(self, content_type="application/json"):
        return {"X-Auth-Token": self.token, "Content-Type": content_type, "X-OpenStack-Nova-API-Version": "2.53"}

    @staticmethod
    def _send(method, where, body, headers):
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        request = urllib.request.Request(where, data, {"Content-Type": "application/json", **headers}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
                return (json.loads(text) if text else {}), answer.headers
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            raise Problem(f"{method} {where} was answered {error.code}: {text}; see `minicloud log {log_of(where)}`")
        except OSError as error:
            raise Problem(f"{method} {where} was not answered: {error}; see `minicloud log {log_of(where)}`")


def log_of(where):
    """The log of the service that an address belongs to."""
    service = next(name for name, port in PORTS.items() if f":{port}/" in where)
    return service if service == "keystone" else f"{service}-api"


def fill_keystone():
    """Users, roles and endpoints. Each call asks first, so a run that was cut short is simply run again."""
    api = Api()
    projects = {
        name: api.ensure(
            "keystone", "/v3/projects", "projects", name, {"project": {"name": name, "domain_id": "default"}}
        )
        for name in ("service", "demo")
    }
    roles = {role["name"]: role["id"] for role in api.get("keystone", "/v3/roles")["roles"]}
    roles["service"] = api.ensure("keystone", "/v3/roles", "roles", "service", {"role": {"name": "service"}})
    for name in ("nova", "placement", "glance", "neutron", "cinder", "masakari"):
        grant(api, name, projects["service"], [roles["service"], roles["admin"]])
    grant(api, "demo", projects["demo"], [roles["member"]])
    listed = api.get("keystone", "/v3/endpoints")["endpoints"]
    present = {(endpoint["service_id"], endpoint["interface"]) for endpoint in listed}
    for kind, (service, path) in CATALOGUE.items():
        if kind == "identity":
            continue  # keystone-manage bootstrap has made it
        ident = api.ensure(
            "keystone", f"/v3/services?type={kind}", "services", service, {"service": {"type": kind, "name": service}}
        )
        for interface in ("public", "internal", "admin"):
            if (ident, interface) not in present:
                api.post(
                    "keystone",
                    "/v3/endpoints",
                    {
                        "endpoint": {
                            "service_id": ident,
                            "interface": interface,
                            "region_id": REGION,
                            "url": url(service, path),
                        }
                    },
                )


def grant(api, name, project, roles):
    user = api.ensure(
        "keystone",
        f"/v3/users?name={name}",
        "users",
        name,
        {"user": {"name": name, "password": PASSWORD, "domain_id": "default"}},
    )
    for role in roles:
        api.put("keystone", f"/v3/projects/{project}/users/{user}/roles/{role}")


def fill_cloud():
    """What a first `openstack server create` needs."""
    api = Api()
    for name, (vcpus, ram, disk) in FLAVORS.items():
        api.ensure(
            "nova",
            "/v2.1/flavors",
            "flavors",
            name,
            {"flavor": {"name": name, "vcpus": vcpus, "ram": ram, "disk": disk}},
        )
    image = api.ensure(
        "glance",
        f"/v2/images?name={IMAGE}",
        "images",
        IMAGE,
        {"name": IMAGE, "disk_format": "raw", "container_format": "bare", "visibility": "public"},
    )
    if api.get("glance", f"/v2/images/{image}")["status"] == "queued":
        api.put("glance", f"/v2/images/{image}/file", bytes(1 << 20), "application/octet-stream")
    api.ensure("cinder", "/v3/types", "volume_types", "fake", {"volume_type": {"name": "fake"}})
