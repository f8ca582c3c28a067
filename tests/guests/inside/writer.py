"""Writes blocks of a file, each synced before the next, and reads them again at the end.

usage: writer.py FILE    (ends when /run/writer.stop is there, or with the first error)

/run/writer.count has how many writes were acknowledged, /run/writer.gaps each wait above 0.2 s, and /run/writer.end,
once it has ended, what came of it as JSON.
"""

import json
import os
import struct
import sys
import time

BLOCK = 4096
BLOCKS = 4096


def content(number: int) -> bytes:
    return struct.pack("<Q", number) * (BLOCK // 8)


def write(file: int) -> tuple[int, float, str | None]:
    count, longest = 0, 0.0
    with open("/run/writer.count", "w") as counter, open("/run/writer.gaps", "a") as gaps:
        while not os.path.exists("/run/writer.stop"):
            begun = time.monotonic()
            try:
                os.pwrite(file, content(count), count % BLOCKS * BLOCK)
                os.fdatasync(file)
            except OSError as error:
                return count, longest, str(error)
            waited = time.monotonic() - begun
            longest = max(longest, waited)
            if waited > 0.2:
                gaps.write(f"{waited:.3f}\n")
                gaps.flush()
            count += 1
            counter.seek(0)
            counter.write(str(count))
            counter.flush()
    return count, longest, None


def lost(path: str, count: int) -> list[int]:
    with open("/proc/sys/vm/drop_caches", "w") as caches:
        caches.write("3")
    wrong = []
    with open(path, "rb") as file:
        for block in range(min(count, BLOCKS)):
            last = (count - 1 - block) // BLOCKS * BLOCKS + block
            found = file.read(BLOCK)
            # The write that failed, or was not answered, may be there.
            if found != content(last) and found != content(last + BLOCKS):
                wrong.append(block)
    return wrong


def main() -> None:
    path = sys.argv[1]
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(file, 0, BLOCKS * BLOCK)
    os.fsync(file)
    count, longest, error = write(file)
    end = {"writes": count, "longest_gap_s": round(longest, 3), "error": error}
    if error is None:
        end["lost"] = lost(path, count)
    with open("/run/writer.end.new", "w") as result:
        json.dump(end, result)
    os.rename("/run/writer.end.new", "/run/writer.end")


main()
