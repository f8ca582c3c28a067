"""After `down` nothing of the cloud is left but its cache."""

import os
import unittest
from pathlib import Path

from .. import net
from .machine import LAYOUT, minicloud, status


class Down(unittest.TestCase):
    def test_down_leaves_no_process_mount_or_namespace(self):
        minicloud("down")
        self.assertEqual(net.roles(LAYOUT), [])
        self.assertEqual(
            [line for line in Path("/proc/mounts").read_text().splitlines() if str(LAYOUT.live) in line], []
        )
        self.assertEqual(of_the_cloud(), [])
        self.assertFalse(LAYOUT.live.exists())
        self.assertFalse(status()["up"])

    def test_down_again_is_no_error(self):
        minicloud("down")


def of_the_cloud():
    """Processes with a word of the cloud's directory in their command line or environment, zombies apart."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if str(LAYOUT.live).encode() in words:
            found.append(words.replace(b"\0", b" ").decode())
    return found
