"""The command line: ``orthokern validate | info | backends | bench``."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import __version__

if TYPE_CHECKING:
    from rich.console import Console

    from .testing.checking import Outcome
    from .testing.validation import Job, Selection

PACKAGES = (
    "numpy",
    "scipy",
    "array-api-compat",
    "numba",
    "torch",
    "jax",
    "dask",
    "array-api-strict",
    "cupy",
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="orthokern", description="Kernels around orthogonality: prove and inspect."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    validate = commands.add_parser(
        "validate", help="check every kernel on every backend against NumPy float64"
    )
    bench = commands.add_parser(
        "bench", help="time the kernels' benchmark cases against the reference bodies"
    )
    for command in (validate, bench):
        _add_selection(command)
        command.add_argument(
            "--json", nargs="?", const="-", metavar="FILE", help="write JSON to FILE, or print it"
        )
    validate.add_argument("--html", metavar="FILE", help="write one self-contained page")
    validate.add_argument("--quick", action="store_true", help="NumPy arrays only")
    validate.add_argument(
        "--all-rows", action="store_true", help="print every row, not the tightest of each case"
    )
    commands.add_parser("info", help="versions and what this machine has")
    commands.add_parser(
        "backends", help="which backend implements which op, and why one is not available"
    )
    return parser


def _add_selection(parser: argparse.ArgumentParser) -> None:
    for name, what in (
        ("kernel", "kernel"),
        ("backend", "backend"),
        ("library", "array library"),
        ("dtype", "dtype"),
    ):
        parser.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar="NAME",
            help=f"only this {what} (repeat)",
        )
    parser.add_argument(
        "--device", default="cpu", help="device of the arrays, for example cpu or cuda"
    )
    parser.add_argument(
        "--seed", type=_natural, default=0, help="draw other random input than every run does"
    )


def _natural(text: str) -> int:
    number = int(text)
    if number < 0:
        message = f"expected an integer >= 0, got {text}"
        raise argparse.ArgumentTypeError(message)
    return number


def machine() -> dict[str, str]:
    """Processor, Python and the versions of the packages that matter."""
    found = {
        "orthokern": __version__,
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
    }
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _selection(arguments: argparse.Namespace) -> Selection:
    from .testing.validation import Selection

    return Selection(
        kernels=arguments.kernel,
        backends=arguments.backend,
        libraries=arguments.library,
        dtypes=arguments.dtype,
        device=arguments.device,
        quick=getattr(arguments, "quick", False),
        seed=arguments.seed,
    )


def _run_jobs(jobs: Sequence[Job], console: Console, repeats: int) -> list[Outcome]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from .testing.validation import run

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    rows = []
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(jobs))
        for job in jobs:
            where = f"{job.setting.backend} {job.setting.library} {job.setting.dtype}"
            progress.update(
                task, description=f"{job.declaration.name} / {job.case.name} on {where}"
            )
            rows.append(run(job, repeats=repeats))
            progress.advance(task)
    return rows


def _validate(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from .testing import report
    from .testing.validation import jobs, not_run

    start = time.perf_counter()
    _refuse_unwritable(arguments.html, arguments.json)
    wanted = jobs(_selection(arguments))
    rows = _run_jobs(wanted, Console(stderr=True), repeats=2)
    seconds = time.perf_counter() - start
    if arguments.html:
        Path(arguments.html).write_text(report.to_html(rows, machine(), seconds), encoding="utf-8")
    if arguments.json:
        _write(report.to_json(rows, machine()), arguments.json)
    # JSON on standard output stays alone there; the rest goes to the error stream.
    console = Console(stderr=arguments.json == "-", width=None if sys.stdout.isatty() else 150)
    if arguments.json != "-":
        console.print(report.table(rows, every=arguments.all_rows))
    for line in report.failures(rows):
        console.print(line, style="bold red", markup=False, soft_wrap=True)
    console.print(report.summary(rows, seconds), style="bold")
    absent = not_run(arguments.device)
    if absent:
        console.print(f"not run: {'; '.join(absent)}", markup=False, soft_wrap=True)
    return 0 if report.succeeded(rows) else 1


def _refuse_unwritable(*targets: str | None) -> None:
    """Refuse at once what could not be written at the end."""
    for target in targets:
        if target not in (None, "-"):
            with Path(str(target)).open("a", encoding="utf-8"):
                pass


def _write(text: str, target: str) -> None:
    if target == "-":
        sys.stdout.write(text + "\n")
    else:
        Path(target).write_text(text, encoding="utf-8")


def _bench(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from .testing import report
    from .testing.validation import jobs

    _refuse_unwritable(arguments.json)
    timed = [job for job in jobs(_selection(arguments)) if job.case.bench]
    rows = _run_jobs(timed, Console(stderr=True), repeats=7)
    if arguments.json:
        _write(report.to_json(rows, machine()), arguments.json)
    if arguments.json != "-":
        Console(width=None if sys.stdout.isatty() else 150).print(report.table(rows))
    return 0 if report.succeeded(rows) else 1


def _info() -> int:
    from rich.console import Console
    from rich.table import Table

    table = Table("what", "version or value", title="orthokern info", title_justify="left")
    for key, value in machine().items():
        table.add_row(key, value)
    Console().print(table)
    return 0


def _backends() -> int:
    from rich.console import Console
    from rich.table import Table

    from ._core.backends import absence, installed, ops_of, priority
    from ._core.dispatch import OPS
    from ._core.registry import load_all

    load_all()
    names = installed()
    table = Table(
        "op",
        *names,
        title="op x backend (the reference, array-api, implements every op)",
        title_justify="left",
    )
    for op in sorted(OPS):
        table.add_row(op, *("yes" if op in ops_of(name) else "-" for name in names))
    table.add_section()
    table.add_row("available", *(absence(name) or "yes" for name in names))
    table.add_row(
        "asked by default", *("yes" if name in priority() else "only when named" for name in names)
    )
    Console().print(table)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the return value is the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.command == "validate":
            return _validate(arguments)
        if arguments.command == "bench":
            return _bench(arguments)
        return _info() if arguments.command == "info" else _backends()
    except (OSError, ValueError, RuntimeError) as reason:
        sys.stderr.write(f"orthokern {arguments.command}: {reason}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
