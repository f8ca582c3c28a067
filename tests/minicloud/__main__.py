"""The command line: minicloud up | down | status | env | exec | host | who-runs | log."""

import argparse
import json
import os
import shlex
import sys

from . import cloud, hosts, net, process, record
from .layout import BMC_PASSWORD, BMC_USER, NETWORKS, PACKAGE, Layout, Problem

EXAMPLES = """examples:
  minicloud up --computes 3                      three hosts, Nova's own report_interval and service_down_time
  minicloud exec openstack compute service list  from inside, as the operator
  minicloud host cmp2 off                        the power of cmp2 goes; its BMC says Off
  minicloud host cmp2 cut --net mgmt             a zombie: the management link is down, the guests live
  minicloud host cmp2 bmc lies                   its BMC answers Off and does nothing
  minicloud who-runs                             every instance: where it runs, whether it ever ran twice at once
  minicloud log nova-conductor -n 50
"""


def main():
    arguments = parser().parse_args()
    layout = Layout()
    if os.geteuid():
        raise Problem("minicloud makes network namespaces: run it as root")
    if arguments.run is not run_up:  # which installs from outside first
        process.forget_proxies()
    return arguments.run(layout, arguments) or 0


def parser():
    top = argparse.ArgumentParser(
        prog="minicloud",
        description="A real OpenStack on one machine, in network namespaces.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="bring the cloud up, or mend it; what was killed or cut off is well again")
    up.add_argument("--computes", type=int, metavar="N", help="compute hosts (3)")
    up.add_argument("--with", dest="with_", choices=["masakari"], action="append", default=[], help="run Masakari too")
    up.add_argument("--report-interval", type=int, metavar="S", help="Nova's report_interval in seconds (10)")
    up.add_argument("--service-down-time", type=int, metavar="S", help="Nova's service_down_time in seconds (60)")
    up.set_defaults(run=run_up)

    commands.add_parser("down", help="end it, without a trace but the cache").set_defaults(
        run=lambda layout, _: cloud.down(layout)
    )

    status = commands.add_parser("status", help="what runs; exit code 1 if anything does not")
    status.add_argument("--json", action="store_true")
    status.set_defaults(run=run_status)

    env = commands.add_parser("env", help="the variables by which clients find it, for use inside `exec`")
    env.set_defaults(run=run_env)

    inside = commands.add_parser("exec", help="run a command where APIs, BMCs and both addresses of hosts are reached")
    inside.add_argument("command", nargs=argparse.REMAINDER)
    inside.set_defaults(run=run_exec)

    host = commands.add_parser(
        "host", help="do something to a host", epilog=HOST_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    host.add_argument("name", metavar="NAME")
    verbs = host.add_subparsers(required=True, metavar="VERB", dest="verb")
    for verb in ("on", "off", "crash", "hang", "resume", "reboot", "services"):
        verbs.add_parser(verb).set_defaults(act=getattr(hosts, verb))
    for verb in ("cut", "mend"):
        link = verbs.add_parser(verb)
        link.add_argument("--net", choices=[*NETWORKS, "all"], default="all")
        link.set_defaults(link=getattr(hosts, verb))
    verbs.add_parser("bmc").add_argument("mode", choices=["ok", "dead", "slow", "lies"])
    verbs.add_parser("compute").add_argument("how", choices=["start", "stop", "restart"])
    verbs.add_parser("exec").add_argument("command", nargs=argparse.REMAINDER)
    host.set_defaults(run=run_host)

    who = commands.add_parser("who-runs", help="where an instance (or each) runs; exit code 1 if one ever ran twice")
    who.add_argument("instance", nargs="?", help="its uuid")
    who.add_argument("--json", action="store_true")
    who.set_defaults(run=run_who_runs)

    log = commands.add_parser("log", help="the end of a service's log")
    log.add_argument("name")
    log.add_argument("-n", type=int, default=30, metavar="LINES")
    log.set_defaults(run=run_log)
    return top


HOST_HELP = """verbs:
  off             links down, everything killed at once, the BMC says Off
  on              boots it; a host that is on stays as it is
  crash           as off, but the BMC says On: a panic
  hang, resume    every process stopped, links down; and on where it was, links up
  reboot          killed and started again, with a new boot id
  cut, mend       [--net mgmt|storage|all] links only: what runs goes on running
  bmc MODE        ok; dead: swallows packets; slow: answers after 8 s; lies: says Off and does nothing
  compute HOW     start, stop (kill -9) or restart nova-compute alone; the guests live on
  services        start anew the executables of the host's directory `services`, which every boot starts by itself
  exec COMMAND    run a command inside the host
"""


def run_up(layout, arguments):
    present = layout.parameters or {
        "computes": 3,
        "report_interval_s": 10,
        "service_down_time_s": 60,
        "with_masakari": False,
    }
    asked = {
        "computes": arguments.computes,
        "report_interval_s": arguments.report_interval,
        "service_down_time_s": arguments.service_down_time,
        "with_masakari": True if "masakari" in arguments.with_ else None,
    }
    cloud.up(layout, {key: present[key] if value is None else value for key, value in asked.items()})


def run_status(layout, arguments):
    found = cloud.status(layout)
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        show_status(found)
    return 0 if found["up"] else 1


def show_status(found):
    if not found["services"]:
        print(f"no cloud is up in {found['root']}; `minicloud up` makes one")
        return
    for service in found["services"]:
        print(
            f"{service['name']:22} {'pid ' + str(service['pid']) if service['pid'] else 'DEAD, see ' + service['log']}"
        )
    for host in found["hosts"]:
        links = " ".join(f"{name}:{state}" for name, state in host["links"].items())
        print(
            f"{host['name']:22} {host['state']:8} {links}  nova-compute:{host['nova_compute']}"
            f"  power:{host['power']} BMC:{host['bmc_mode']} {host['bmc']}  boot {host['boot_id'][:8]}"
        )
    print(f"memory {found['memory_mib']} MiB; Keystone {found['keystone']}; way in: {found['way_in']} COMMAND")


def environment(layout):
    return {
        "OS_CLIENT_CONFIG_FILE": str(layout.clouds_yaml),
        "OS_CLOUD": "minicloud",
        "OS_COMPUTE_API_VERSION": "2.94",
        "MINICLOUD": str(PACKAGE / "minicloud"),
        "MINICLOUD_STATE": str(layout.root),
        "MINICLOUD_BMC_USER": BMC_USER,
        "MINICLOUD_BMC_PASSWORD": BMC_PASSWORD,
    }


def run_env(layout, _):
    need_cloud(layout)
    for name, value in environment(layout).items():
        print(f"export {name}={shlex.quote(value)}")
    print(f"# a way in: {shlex.join(net.inside(layout, 'client'))} COMMAND, or `minicloud exec COMMAND`")


def run_exec(layout, arguments):
    need_cloud(layout)
    command = without_dashes(arguments.command)
    path = os.pathsep.join([os.environ.get("PATH", ""), str(layout.venv / "bin")])
    become([*net.inside(layout, "client"), *command], {**environment(layout), "PATH": path})


def run_host(layout, arguments):
    host = layout.host(arguments.name)
    verb = arguments.verb
    if verb in ("cut", "mend"):
        arguments.link(host, list(NETWORKS) if arguments.net == "all" else [arguments.net])
    elif verb == "bmc":
        hosts.bmc(host, arguments.mode)
    elif verb == "compute":
        hosts.compute(host, arguments.how)
    elif verb == "exec":
        become([*hosts.enter(host), *without_dashes(arguments.command)], {})
    else:
        arguments.act(host)


def run_who_runs(layout, arguments):
    need_cloud(layout)
    known = record.instances(layout)
    if arguments.instance and arguments.instance not in known:
        raise Problem(f"no guest with the id {arguments.instance} ever ran here; `minicloud who-runs` lists all")
    found = [record.report(layout, instance) for instance in ([arguments.instance] if arguments.instance else known)]
    if arguments.json:
        print(json.dumps(found, indent=2))
    elif not found:
        print("no instance has run here yet")
    for one in found if not arguments.json else ():
        still = "".join(f", stands still on {host}" for host in one["stands_still_on"])
        print(f"{one['instance']}  {' AND '.join(one['runs_on']) or 'runs nowhere'}{still}")
        for first, second in one["twice"]:
            print(
                f"    ran twice at once: {first['host']} from {first['first']:.1f} to {first['last']:.1f} s, "
                f"{second['host']} from {second['first']:.1f} to {second['last']:.1f} s"
            )
    return 1 if any(one["twice"] for one in found) else 0


def run_log(layout, arguments):
    path = layout.logs / f"{arguments.name}.log"
    if not path.exists():
        names = ", ".join(sorted(log.stem for log in layout.logs.glob("*.log"))) or "none yet"
        raise Problem(f"there is no log {arguments.name}; logs: {names}")
    print(process.tail(path, arguments.n))


def need_cloud(layout):
    if layout.parameters is None or not net.exists(layout, "client"):
        raise Problem(f"no cloud is up in {layout.root}: run `minicloud up`")


def without_dashes(words):
    words = words[1:] if words[:1] == ["--"] else words
    if not words:
        raise Problem("exec wants a command, such as `minicloud exec openstack server list`")
    return words


def become(command, environment):
    sys.stdout.flush()
    os.execvpe(command[0], command, {**os.environ, **environment})


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Problem as problem:
        print(f"minicloud: {problem}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"minicloud: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("minicloud: interrupted; `minicloud up` goes on where it was, `minicloud down` ends it", file=sys.stderr)
        sys.exit(130)
