"""Tables of calls beside their peers: times in turns, and the error of both; what the single benchmarks share."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import statistics
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from interleave import Rounds, one_thread, race, ratio, restarted, thread_pools

from orthokern.__main__ import machine

RESULTS = Path(__file__).resolve().parent / "results"
ROUNDS = Rounds(least=3, most=15, seconds=4.0)
QUICK_ROUNDS = Rounds(least=2, most=2, seconds=0.0)
COLUMNS = ("problem", "peer", "ratio", "min..max", "target", "way", "our error", "peer's error")
PACKAGES = ("numpy", "scipy", "numba", "scikit-learn")

Call = Callable[..., Any]


class Peer(NamedTuple):
    """Another library's call; ``offset`` seconds are added to its time (a target of + 50 us)."""

    name: str
    call: Call
    target: float | None = None
    offset: float = 0.0


class Task(NamedTuple):
    """One problem: ``make`` gives the arguments of all calls, ``error`` takes them and a result.

    ``way`` says of our result how it was found.
    """

    name: str
    make: Callable[[], tuple[Any, ...]]
    ours: Call
    peers: tuple[Peer, ...]
    error: Call
    way: Callable[[Any], str] = lambda found: ""


class Report(NamedTuple):
    """A title, what the error column means, and the tasks, of which there are quick ones."""

    name: str
    title: str
    error: str
    tasks: Callable[[bool], list[Task]]


def measure(task: Task, rounds: Rounds) -> list[dict[str, Any]]:
    """A row for each peer."""
    given = task.make()
    calls = {peer.name: partial(peer.call, *given) for peer in task.peers}
    laps = race({"ours": partial(task.ours, *given), **calls}, rounds)
    found = laps["ours"].result
    ours = task.error(*given, found)
    rows = []
    for peer in task.peers:
        slower = laps[peer.name]._replace(
            seconds=[seconds + peer.offset for seconds in laps[peer.name].seconds]
        )
        each = [t / o for t, o in zip(slower.seconds, laps["ours"].seconds, strict=True)]
        rows.append(
            {
                "problem": task.name,
                "peer": peer.name,
                "target": peer.target,
                "ratio": ratio(slower, laps["ours"]),
                "least": min(each),
                "most": max(each),
                "way": task.way(found),
                "our_error": ours,
                "peer_error": task.error(*given, laps[peer.name].result),
                "our_seconds": statistics.median(laps["ours"].seconds),
                "date": dt.datetime.now(dt.UTC).isoformat(timespec="minutes"),
            }
        )
    return rows


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    target = "" if row["target"] is None else f"{row['target']:.2g}"
    return (
        row["problem"],
        row["peer"],
        f"{row['ratio']:.2f}",
        f"{row['least']:.2f}..{row['most']:.2f}",
        target,
        row["way"],
        f"{row['our_error']:.0e}",
        f"{row['peer_error']:.0e}",
    )


def markdown(report: Report, content: dict[str, Any]) -> str:
    """The report as a table."""
    about, last = content["machine"], max(row["date"] for row in content["rows"])
    lines = [
        f"# {report.title}",
        "",
        f"{last}, {about.get('processor', '')}, one thread ({content['threads']}); {content['blas']}.",
        "",
        "- ratio: peer time / orthokern time on the same input, median over the rounds",
        f"- error: {report.error}",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + " --- |" * len(COLUMNS),
    ]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in content["rows"]]
    versions = ", ".join(f"{key} {value}" for key, value in content["versions"].items())
    return "\n".join([*lines, "", versions, ""])


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def run(report: Report, given: Sequence[str] | None = None) -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=report.title)
    parser.add_argument("--quick", action="store_true", help="small and few: proves nothing")
    parser.add_argument("--only", default="", metavar="NAME", help="problems named like this")
    parser.add_argument("--record", action="store_true", help="put these rows into the record")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the record")
    asked = parser.parse_args(given)
    chosen = [task for task in report.tasks(asked.quick) if asked.only in task.name]
    rows = []
    with one_thread() as limiter, warnings.catch_warnings():
        # Peers warn of limits that they were given.
        warnings.simplefilter("ignore")
        for number, task in enumerate(chosen, 1):
            sys.stderr.write(f"[{number}/{len(chosen)}] {task.name}\n")
            rows += measure(task, QUICK_ROUNDS if asked.quick else ROUNDS)
        blas = _blas()
    if not rows:
        return 0
    about = {"machine": machine(), "threads": limiter, "blas": blas, "versions": _versions()}
    content = {**about, "rows": rows}
    print(markdown(report, content))
    if asked.record or not (asked.quick or asked.only):
        _write(report, content, asked.output)
    return 0


def script(main: Callable[[], int]) -> None:
    """Run as a program whose libraries are held to one thread from the start."""
    status = restarted()
    sys.exit(main() if status is None else status)


def _blas() -> str:
    """Versions of the libraries of linear algebra, and the processors that they take this one for."""
    pools = [pool for pool in thread_pools() if "architecture" in pool]
    return ", ".join(
        f"{pool['prefix']} {pool['version']} for {pool['architecture']}" for pool in pools
    )


def _write(report: Report, content: dict[str, Any], folder: Path) -> None:
    """Rows of the record that were measured anew are replaced; others, of the same versions, stay."""
    folder.mkdir(exist_ok=True)
    place = folder / f"{report.name}.json"
    before = json.loads(place.read_text(encoding="utf-8")) if place.exists() else content
    if before["versions"] == content["versions"] and before["machine"] == content["machine"]:
        fresh = {(row["problem"], row["peer"]): row for row in content["rows"]}
        kept = [fresh.pop((row["problem"], row["peer"]), row) for row in before["rows"]]
        content = {**content, "rows": [*kept, *fresh.values()]}
    place.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    place.with_suffix(".md").write_text(markdown(report, content), encoding="utf-8")
