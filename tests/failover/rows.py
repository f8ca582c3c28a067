"""Tells of every change of Nova's rows of instances, one JSON line each: at, uuid, name, host, vm_state, task_state.

Five queries a second straight from the cell's database cost the cloud next to nothing, where a list through Nova's API
costs it half a second of a core. `at` is the machine's monotonic clock, as in the guests' records; an instance that is
deleted is told once more with a host of null. Runs with OpenStack's Python:
    python -m failover.rows
"""

import json
import sys
import time

import pymysql
from minicloud import config
from minicloud.layout import PASSWORD, PORTS

EVERY_S = 0.2
COLUMNS = ("name", "host", "vm_state", "task_state")
QUERY = "SELECT uuid, display_name, host, vm_state, task_state FROM instances WHERE deleted = 0"


def main():
    database = pymysql.connect(
        host=config.ADDRESS, port=PORTS["mariadb"], user="nova", password=PASSWORD, database="nova", autocommit=True
    )
    known = {}
    tell({"at": time.monotonic(), "ready": True})
    while True:
        # Before the query: what it finds was so at this moment or since.
        now = time.monotonic()
        with database.cursor() as cursor:
            cursor.execute(QUERY)
            seen = {row[0]: row[1:] for row in cursor.fetchall()}
        for uuid in known.keys() - seen.keys():
            tell({"at": now, "uuid": uuid, "name": known[uuid][0], "host": None, "vm_state": None, "task_state": None})
        for uuid, row in seen.items():
            if known.get(uuid) != row:
                tell({"at": now, "uuid": uuid, **dict(zip(COLUMNS, row, strict=True))})
        known = seen
        time.sleep(max(0, now + EVERY_S - time.monotonic()))


def tell(change):
    print(json.dumps(change), flush=True)


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(0)
