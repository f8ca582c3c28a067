"""What the user sees while a story runs: lines that stay, and below them, on a terminal, a table that is drawn anew."""

import sys


class Screen:
    def __init__(self, file=sys.stdout):
        self.file = file
        self.terminal = file.isatty()
        self.drawn = []

    def line(self, text=""):
        self._wipe()
        print(text, file=self.file, flush=True)

    def live(self, lines):
        if not self.terminal or lines == self.drawn:
            return
        self._wipe()
        print("\n".join(lines), file=self.file, flush=True)
        self.drawn = lines

    def _wipe(self):
        if self.drawn:
            print(f"\x1b[{len(self.drawn)}F\x1b[J", end="", file=self.file)
            self.drawn = []


class Silent:
    """For drills, which print one line for each story."""

    def line(self, text=""):
        pass

    def live(self, lines):
        pass


def table(head, rows):
    """Lines of a table whose columns are as wide as what is in them."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    ]
