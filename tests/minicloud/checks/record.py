"""What the judge of double running must see, and must not."""

import tempfile
import unittest
from pathlib import Path

from ..record import lives, twice


def judged(*lines):
    with tempfile.TemporaryDirectory() as directory:
        record = Path(directory) / "instance.log"
        record.write_text("".join(f"{line}\n" for line in lines))
        return [(one.host, other.host) for one, other in twice(lives(record))]


class Record(unittest.TestCase):
    def test_one_life_after_another_is_no_fault(self):
        self.assertEqual(judged("cmp1 a 7 1.0", "cmp1 a 7 1.2", "cmp2 b 9 5.0", "cmp2 b 9 5.2"), [])

    def test_two_hosts_at_once_are_seen(self):
        self.assertEqual(judged("cmp1 a 7 1.0", "cmp2 b 9 1.1", "cmp1 a 7 1.2"), [("cmp1", "cmp2")])

    def test_a_copy_that_wakes_after_another_began_is_seen(self):
        self.assertEqual(judged("cmp1 a 7 1.0", "cmp2 b 9 60.0", "cmp2 b 9 60.2", "cmp1 a 7 90.0"), [("cmp1", "cmp2")])

    def test_two_processes_on_one_host_are_seen(self):
        self.assertEqual(judged("cmp1 a 7 1.0", "cmp1 a 8 1.1", "cmp1 a 7 1.2"), [("cmp1", "cmp1")])

    def test_the_same_pid_after_a_reboot_is_another_life(self):
        self.assertEqual(judged("cmp1 a 7 1.0", "cmp2 b 9 2.0", "cmp2 b 9 3.0", "cmp1 c 7 4.0"), [])

    def test_a_line_cut_short_is_not_read(self):
        with tempfile.TemporaryDirectory() as directory:
            record = Path(directory) / "instance.log"
            record.write_text("cmp1 a 7 1.0\ncmp2 b\ncmp1 a 7 1.2\ncmp2 b 9 3")
            self.assertEqual(len(lives(record)), 1)
