"""A guest: a small process that writes down, five times a second, that it runs and where.

usage: guest.py INSTANCE HOST BOOT_ID RECORD
A line of the record: host, boot id, pid, seconds of the machine's monotonic clock, which all hosts share. The command
line is how others recognise a guest, and find out what it is.
"""

import os
import sys
import time

INTERVAL_S = 0.2


def main(instance, host, boot_id, record):
    file = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    while True:
        # One write for a line: lines of two guests that run at once may alternate but never mix.
        os.write(file, f"{host} {boot_id} {os.getpid()} {time.monotonic():.3f}\n".encode())
        time.sleep(INTERVAL_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
