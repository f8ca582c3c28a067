"""usage: python3 -m failover demo | drills | bench [--quick | --search]"""

import importlib
import signal
import sys

from minicloud.layout import Problem

ENTRIES = ("demo", "drills", "bench")


def main(words):
    if not words or words[0] not in ENTRIES:
        sys.exit(__doc__)
    signal.signal(signal.SIGTERM, interrupt)
    return importlib.import_module(f".{words[0]}", __package__).main(words[1:])


def interrupt(*_):
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Problem as problem:
        print(f"failover: {problem}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("failover: interrupted; what it had brought up is ended", file=sys.stderr)
        sys.exit(130)
