"""Runs the tests of the minicloud, closing with one line that counts them.

usage: python3 -m minicloud.checks record | life | down
  record   the judge of what ran twice; needs no cloud
  life     brings the cloud up, interrupts, kills, hangs and cuts, and leaves it up and well
  down     ends the cloud and looks for what is left of it
"""

import sys
import unittest

from . import down, life, record

SUITES = {"record": record, "life": life, "down": down}


def main(names):
    suite = unittest.TestSuite(unittest.defaultTestLoader.loadTestsFromModule(SUITES[name]) for name in names)
    result = unittest.TextTestRunner(verbosity=2, stream=sys.stdout, failfast=True).run(suite)
    failed = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - failed} passed, {failed} failed")
    return 1 if failed or not result.testsRun else 0


if __name__ == "__main__":
    if not sys.argv[1:] or set(sys.argv[1:]) - set(SUITES):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
