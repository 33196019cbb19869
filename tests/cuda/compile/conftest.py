"""The table of what every kernel takes on a device, at the end of the run."""

from __future__ import annotations

COLUMNS = ("kernel", "arch", "registers", "shared", "stack", "spills")


def rows(reporter):
    """The records that the tests left, also those of other processes."""
    reports = [r for kind in ("passed", "failed") for r in reporter.stats.get(kind, ())]
    found = [value for r in reports for name, value in r.user_properties if name == "resources"]
    return sorted(map(tuple, found))


def pytest_terminal_summary(terminalreporter):
    found = rows(terminalreporter)
    if found:
        terminalreporter.section(
            "resources of the kernels (bytes of shared memory a block, of stack and spills a thread)"
        )
        table = [COLUMNS, *found]
        widths = [max(len(str(row[i])) for row in table) for i in range(len(COLUMNS))]
        for row in table:
            cells = [
                f"{cell:<{w}}" if i < 2 else f"{cell:>{w}}"
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ]
            terminalreporter.write_line("  ".join(cells))
