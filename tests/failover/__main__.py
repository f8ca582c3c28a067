"""usage: python3 -m failover demo | drills | bench [--quick | --search]"""

import contextlib
import fcntl
import importlib
import signal
import sys

from minicloud.layout import Problem

from .daemon import RESULTS

ENTRIES = ("demo", "drills", "bench")


def main(words):
    if not words or words[0] not in ENTRIES:
        sys.exit(__doc__)
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell started it with SIGINT ignored
        signal.signal(number, interrupt)
    with alone(words[0]):
        return importlib.import_module(f".{words[0]}", __package__).main(words[1:])


@contextlib.contextmanager
def alone(name):
    """One run at a time in a directory of results: a second would take the first one's database from it."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    with open(RESULTS / f".{name}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Problem(f"another {name} is at work in {RESULTS}: wait for it, or choose another TANDEM_RESULTS")
        yield


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
