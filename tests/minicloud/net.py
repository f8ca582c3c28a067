"""The network of a minicloud: namespaces, two bridges, and a link for each host on each of them.

A host's links hang on ports of the `fabric` namespace, as cables hang on a switch. Cutting a host off means taking its
ports down there: nothing inside the host is told.
"""

import ctypes
import os
import subprocess
import time

from .layout import BMC_NETWORK, CLIENT, CONTROL, NETWORKS, Problem

CLONE_NEWNET = 0x40000000

# Made anew each time: the first line lets the second succeed where there is no table yet.
BMC_RULES = """
table inet bmc {}
delete table inet bmc
table inet bmc {
    set dead { type ipv4_addr; }
    chain input {
        type filter hook input priority 0;
        ip daddr @dead drop;
    }
}
"""


def ip(*lines, namespace=None):
    """Runs these `ip` commands as one batch, which stops at the first that fails."""
    command = ["ip"] + (["-n", namespace] if namespace else []) + ["-batch", "-"]
    done = subprocess.run(command, input="\n".join(lines), text=True, capture_output=True)
    if done.returncode:
        raise Problem(f"`{' '.join(command)}` failed: {done.stderr.strip()}; it was asked: {'; '.join(lines)}")


def exists(layout, role):
    return layout.namespace_file(role).exists()


def create(layout, computes):
    """Makes fabric, control and client where they are missing; the hosts' own namespaces come with their power."""
    if not exists(layout, "fabric"):
        ip(f"netns add {layout.namespace('fabric')}")
    present = links(layout)
    for net in NETWORKS:
        if net not in present:
            ip(f"link add {net} type bridge", namespace=layout.namespace("fabric"))
        ip(f"link set {net} up", namespace=layout.namespace("fabric"))
    for role, last, networks in (("control", CONTROL, ["mgmt"]), ("client", CLIENT, list(NETWORKS))):
        # Ports are taken up last, so one that is up stands for a namespace that is whole.
        if not all(links(layout).get(f"{role}-{net}") for net in networks):
            plug_in(layout, role, last, networks)
            ip(*[f"link set {role}-{net} up" for net in networks], namespace=layout.namespace("fabric"))
    ip(
        *[f"addr replace {BMC_NETWORK}.{last}/32 dev lo" for last in range(11, 11 + computes)],
        namespace=layout.namespace("client"),
    )
    nft(layout, BMC_RULES)


def plug_in(layout, role, last, networks):
    """A new namespace with its loopback and a link for each network, whose ports on the fabric are still down."""
    namespace, fabric = layout.namespace(role), layout.namespace("fabric")
    remove(layout, role)
    ip(f"netns add {namespace}")
    inside = ["link set lo up"]
    for net in networks:
        # A fixed MAC: after a host was off, nobody's neighbour table may point at its former life.
        mac = f"02:00:00:0{list(NETWORKS).index(net)}:00:{last:02x}"
        ip(
            f"link add {role}-{net} type veth peer name {net} address {mac} netns {namespace}",
            f"link set {role}-{net} master {net}",
            namespace=fabric,
        )
        inside += [f"addr add {NETWORKS[net]}.{last}/24 dev {net}", f"link set {net} up"]
    ip(*inside, namespace=namespace)


def remove(layout, role):
    """Removes a namespace; its links go with it, without a packet."""
    for port in [port for port in links(layout) if port.startswith(f"{role}-")]:
        ip(f"link del {port}", namespace=layout.namespace("fabric"))
    for _ in range(50):
        if not exists(layout, role):
            return
        # The name stays busy for a moment after the last mount namespace that saw it has gone.
        subprocess.run(["ip", "netns", "del", layout.namespace(role)], capture_output=True)
        if exists(layout, role):
            time.sleep(0.1)
    raise Problem(f"namespace {layout.namespace(role)} cannot be removed: `ip netns pids` tells what still runs in it")


def roles(layout):
    """The roles whose namespaces exist, whatever made them."""
    prefix = layout.namespace("")
    names = os.listdir("/run/netns") if os.path.isdir("/run/netns") else []
    return sorted(name[len(prefix) :] for name in names if name.startswith(prefix))


def links(layout):
    """The fabric's ports by name, each with whether it is up."""
    if not exists(layout, "fabric"):
        return {}
    shown = subprocess.run(["ip", "-n", layout.namespace("fabric"), "-o", "link"], capture_output=True, text=True)
    if shown.returncode:
        raise Problem(f"the ports of {layout.namespace('fabric')} cannot be listed: {shown.stderr.strip()}")
    ports = {}
    for line in shown.stdout.splitlines():
        name, flags = line.split(": ", 2)[1].split("@")[0], line.split("<", 1)[1].split(">", 1)[0]
        ports[name] = "UP" in flags.split(",")
    return ports


def set_links(layout, host, networks, state):
    """Takes a host's ports up or down; a host that is off has none."""
    present = links(layout)
    ports = [f"{host.name}-{net}" for net in networks if f"{host.name}-{net}" in present]
    ip(*[f"link set {port} {state}" for port in ports], namespace=layout.namespace("fabric"))


def set_bmc_reachable(layout, host, reachable):
    """A dead BMC swallows packets: no refusal, as a board without power."""
    verb = "delete" if reachable else "add"
    nft(
        layout,
        f"add element inet bmc dead {{ {host.bmc_address} }}\n{verb} element inet bmc dead {{ {host.bmc_address} }}",
    )


def nft(layout, rules):
    command = [*inside(layout, "client"), "nft", "-f", "-"]
    done = subprocess.run(command, input=rules, text=True, capture_output=True)
    if done.returncode:
        raise Problem(f"nft refused the BMC rules: {done.stderr.strip()}")


def inside(layout, role):
    """The words that put a command into a namespace; unlike `ip netns exec` they leave mounts alone."""
    return ["nsenter", f"--net={layout.namespace_file(role)}", "--"]


def enter(layout, role):
    """Moves this very process into a namespace, so that it can speak to the APIs."""
    with open(layout.namespace_file(role)) as namespace:
        move(namespace)


def move(namespace):
    """Moves this very process into an open namespace: the way back out, too, since `down` ends whoever is inside."""
    if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"cannot enter {namespace.name}")
