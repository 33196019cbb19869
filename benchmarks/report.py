"""Compare orthokern with its peers and write the report.

::

    python benchmarks/report.py                          # everything, into benchmarks/results
    python benchmarks/report.py --only "square float64"  # tasks whose name contains this; written nowhere
    python benchmarks/report.py --quick                  # one seed, few rounds: does it run?

A quick or partial run is written only where ``--output`` says so, so that it does not replace the record.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from accuracy import FACTOR_FIGURES, FIGURES
from interleave import Rounds, one_thread, restarted, thread_pools
from measure import Comparison, Record, measure
from tasks import Task, chosen

from orthokern.__main__ import machine
from orthokern.testing import libraries

RESULTS = Path(__file__).resolve().parent / "results"
SEEDS = (0, 1, 2, 3, 4)
# Long calls run in few rounds and short ones in many: about these seconds for each task and seed.
ROUNDS = Rounds(least=5, most=15, seconds=6.0)
QUICK_ROUNDS = Rounds(least=3, most=3, seconds=0.0)
# Processor time per wall time from which an entrant is named as one that used a second core.
SHARE_LIMIT = 1.05
# Below this an entrant waited for other programs.
IDLE_LIMIT = 0.95

LEGEND = (
    "ratio: peer time / orthokern time on the same input, median over the rounds, then over the seeds",
    "min..max: over the seeds. H: whether both sides make the Hermitian factor",
    "contract: whether the results of orthokern's timed calls keep the accuracy contract of the kernel",
    "products: orthokern's time over that of one product of the input with a square matrix, by NumPy",
)
LEGENDS = {
    "polar": (
        "orthogonality: Frobenius norm of U'U - I, the worst of all seeds and matrices",
        "backward: norm of X - UH over that of X, likewise; without H, with the Hermitian part of U'X",
    ),
    "functions": (
        "error: the first figure of the kernel's contract, relative, the worst of all seeds; of both sides",
    ),
}
# The columns before and after those of the figures.
FIRST = ("input", "peer", "H", "ratio", "min..max", "target", "verdict")
LAST = ("contract", "products")


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Speed and accuracy of orthokern beside its peers."
    )
    parser.add_argument("--quick", action="store_true", help="one seed, few rounds: proves nothing")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="tasks named like this"
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="default: benchmarks/results")
    parser.add_argument("--list", action="store_true", help="print the names of the tasks")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    """Measure, print and write."""
    arguments = _arguments(given)
    try:
        tasks = chosen(arguments.only)
    except ValueError as reason:
        sys.stderr.write(f"{reason}\n")
        return 2
    if arguments.list:
        print("\n".join(task.name for task in tasks))
        return 0
    folder = arguments.output or (None if arguments.quick or arguments.only else RESULTS)
    for family in sorted({task.family for task in tasks}):
        content = _run([task for task in tasks if task.family == family], quick=arguments.quick)
        print(markdown(family, content))
        if folder is not None:
            _write(folder, family, content)
    return 0


def _run(tasks: Sequence[Task], *, quick: bool) -> dict[str, Any]:
    """Everything a report says; ``records`` holds the measurements."""
    seeds, rounds = (SEEDS[:1], QUICK_ROUNDS) if quick else (SEEDS, ROUNDS)
    records = []
    _load(tasks)
    with one_thread() as limiter:
        for number, task in enumerate(tasks, 1):
            sys.stderr.write(f"[{number}/{len(tasks)}] {task.name}\n")
            records.append(measure(task, seeds=seeds, rounds=rounds))
        pools = thread_pools()
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "machine": machine(),
        "threads": {"count": 1, "held_by": limiter, "pools": pools},
        "seeds": list(seeds),
        "rounds": rounds._asdict(),
        "records": records,
    }


def _load(tasks: Sequence[Task]) -> None:
    """Import the libraries of all tasks, so that their thread pools are there to be held."""
    for name in {
        library for t in tasks for library in (t.library, *(r.peer.library for r in t.rivals))
    }:
        libraries.missing(name)


def _write(folder: Path, family: str, content: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    plain = {**content, "records": [as_plain(record) for record in content["records"]]}
    (folder / f"{family}.json").write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    (folder / f"{family}.md").write_text(markdown(family, content), encoding="utf-8")


def as_plain(record: Record) -> dict[str, Any]:
    """A record for JSON, with what is derived from the measurements."""
    plain = asdict(record)
    for comparison, row in zip(record.comparisons, plain["comparisons"], strict=True):
        row["ratio"] = comparison.ratio if comparison.ratios else None
        row["verdict"] = verdict(record, comparison)
    return plain


def verdict(record: Record, comparison: Comparison) -> str:
    """``met``, ``missed (why)``, ``not available: why``, or a dash where nothing is aimed at."""
    if comparison.missing:
        return f"not available: {comparison.missing}"
    if comparison.target is None:
        return "-"
    shortfalls = comparison.shortfalls(record.contract_met)
    return f"missed ({', '.join(shortfalls)})" if shortfalls else "met"


def markdown(family: str, content: dict[str, Any]) -> str:
    """The report as Markdown: the machine, how it was measured, and a table for each group of tasks."""
    records: list[Record] = content["records"]
    lines = [f"# Benchmarks: {family}", ""]
    if content["quick"]:
        lines += [
            "**Quick run: one seed, few rounds. It shows that the scripts run; its ratios prove nothing.**",
            "",
        ]
    lines += [*_circumstances(family, content), *_summary(records)]
    # Groups may be interrupted by others in the list of tasks, and are put together here.
    titles = list(dict.fromkeys(record.group for record in records))
    for title, rows in groupby(
        sorted(records, key=lambda r: titles.index(r.group)), key=lambda r: r.group
    ):
        lines += [
            "",
            f"## {title}",
            "",
            *_table(list(rows), FACTOR_FIGURES if family == "polar" else FIGURES),
        ]
    return "\n".join(lines) + "\n"


def _circumstances(family: str, content: dict[str, Any]) -> list[str]:
    about, rounds = content["machine"], content["rounds"]
    versions = ", ".join(f"{k} {v}" for k, v in about.items() if k not in ("processor", "cores"))
    pools = "; ".join(
        " ".join(f"{v}" for v in pool.values()) for pool in content["threads"]["pools"]
    )
    return [
        f"- Date: {content['date']}",
        f"- Processor: {about['processor']}, {about['cores']} cores",
        f"- Versions: {versions}",
        f"- Threads: {content['threads']['count']}, held by {content['threads']['held_by']}"
        + (f" (pools, the last number is their threads: {pools})" if pools else ""),
        f"- {_shares(content['records'])}",
        f"- Seeds: {', '.join(map(str, content['seeds']))}; rounds for each: {rounds['least']} to {rounds['most']}",
        *(f"- {line}" for line in (*LEGEND, *LEGENDS[family])),
    ]


def _shares(records: Iterable[Record]) -> str:
    """Whether everybody kept to one core and had it to himself, which processor time tells."""
    shares = [
        (x, name) for r in records for name, found in r.processor_share.items() for x in found
    ]
    if not shares:
        return "Nothing was timed"
    low, high = min(shares)[0], max(shares)[0]
    over = sorted({name for share, name in shares if share > SHARE_LIMIT})
    text = f"Processor time / wall time of the entrants: {low:.2f} to {high:.2f}"
    text += f"; above {SHARE_LIMIT}, more than one thread: {', '.join(over)}" if over else ""
    return text + ("; other programs were running" if low < IDLE_LIMIT else "")


def _summary(records: Sequence[Record]) -> list[str]:
    aimed = [(r, c) for r in records for c in r.comparisons if c.target is not None]
    missed = [f"{r.name} against {c.peer}" for r, c in aimed if verdict(r, c).startswith("missed")]
    absent = [f"{r.name} against {c.peer}" for r, c in aimed if c.missing]
    broken = [r.name for r in records if not r.contract_met]
    lines = [f"- Targets met: {len(aimed) - len(missed) - len(absent)} of {len(aimed)}"]
    for what, names in (("Missed", missed), ("Not measured", absent), ("Contract broken", broken)):
        lines += [f"- {what}: {'; '.join(names)}"] if names else []
    backends = {f"{op} on {backend}" for r in records for op, backend in r.ran.items()}
    return [*lines, f"- Ops ran: {', '.join(sorted(backends)) or 'none'}"]


def _table(records: Sequence[Record], figures: tuple[str, ...]) -> list[str]:
    sides = [f"{figure} {side}" for figure in figures for side in ("ours", "peer")]
    columns = [*FIRST, *sides, *LAST]
    head = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    rows = [_row(r, c, figures) for r in records for c in r.comparisons]
    return head + [f"| {' | '.join(row)} |" for row in rows]


def _row(record: Record, comparison: Comparison, figures: tuple[str, ...]) -> list[str]:
    shape = "x".join(map(str, record.shape)) + f" {record.dtype}"
    label = shape if record.caller == "numpy" else f"{shape}, {record.caller} caller"
    target = "-" if comparison.target is None else f">= {comparison.target:.2f}"
    start = [label, comparison.peer, "yes" if comparison.h_included else "no"]
    if comparison.missing:
        return [
            *start,
            "-",
            "-",
            target,
            verdict(record, comparison),
            *["-"] * (2 * len(figures) + 2),
        ]
    low, high = comparison.spread
    return [
        *start,
        f"{comparison.ratio:.2f}",
        f"{low:.2f}..{high:.2f}",
        target,
        verdict(record, comparison),
        *_errors(comparison, figures),
        "kept" if record.contract_met else "BROKEN",
        f"{statistics.median(comparison.products):.1f}" if comparison.products else "-",
    ]


def _errors(comparison: Comparison, figures: tuple[str, ...]) -> list[str]:
    sides = (comparison.our_errors, comparison.peer_errors)
    return [f"{side[figure]:.1e}" for figure in figures for side in sides]


if __name__ == "__main__":
    status = restarted()
    sys.exit(main() if status is None else status)
