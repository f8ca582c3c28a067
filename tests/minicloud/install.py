"""Installs what a cloud is made of: servers from the distribution, OpenStack from PyPI at pinned versions."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from .layout import PACKAGE, Problem
from .process import tail

# What has to be there, and the Debian package that brings it.
TOOLS = {
    "/usr/sbin/mariadbd": "mariadb-server",
    "/usr/lib/rabbitmq/bin/rabbitmq-server": "rabbitmq-server",
    "/usr/bin/memcached": "memcached",
    "/usr/sbin/ip": "iproute2",
    "/usr/sbin/nft": "nftables",
    "/usr/bin/unshare": "util-linux",
    "/usr/bin/gcc": "gcc",
}


def distribution_packages(layout):
    """Installs the missing ones; the servers they bring are not started."""
    missing = sorted({package for tool, package in TOOLS.items() if not alternative(tool)} | python_packages())
    if not missing:
        return "all there"
    # Debian's maintainer scripts start no service in runlevel 1.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    logged(layout, "apt", ["apt-get", "update", "-qq"], environment)
    logged(layout, "apt", ["apt-get", "install", "-y", "--no-install-recommends", *missing], environment)
    return ", ".join(missing)


def alternative(tool):
    return Path(tool).exists() or shutil.which(Path(tool).name)


def python_packages():
    """uWSGI and ovs are compiled: a Python without headers or venv needs Debian's."""
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    wanted = set() if headers.exists() else {"python3-dev"}
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        wanted.add("python3-venv")
    return wanted


def openstack(layout):
    """One virtual environment; made under another name and renamed, so that half of one is never taken for whole."""
    if layout.venv.exists():
        return "all there"
    for abandoned in layout.root.glob("making-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    draft = layout.root / f"making-{os.getpid()}"
    logged(layout, "pip", [sys.executable, "-m", "venv", draft])
    logged(
        layout,
        "pip",
        [
            draft / "bin" / "python",
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "-c",
            PACKAGE / "constraints.txt",
            "-r",
            PACKAGE / "requirements.txt",
        ],
    )
    move(draft, layout.venv)
    return str(layout.venv)


def move(made, final):
    """Scripts name their interpreter by its path, so they are rewritten before the rename makes that path true."""
    old, new = os.fsencode(made), os.fsencode(final)
    for script in (made / "bin").iterdir():
        if script.is_symlink() or not script.is_file():
            continue
        text = script.read_bytes()
        if old in text and text.startswith((b"#!", b"# ")):
            script.write_bytes(text.replace(old, new))
    made.rename(final)


def logged(layout, name, command, environment=None):
    log_path = layout.root / f"install-{name}.log"
    layout.root.mkdir(parents=True, exist_ok=True)
    with open(log_path, "ab") as log:
        done = subprocess.run(
            [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
        )
    if done.returncode:
        raise Problem(f"`{' '.join(map(str, command))}` failed with status {done.returncode}\n{tail(log_path)}")
