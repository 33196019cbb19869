"""The rows of a validation as a terminal table, as JSON, as one self-contained HTML page."""

from __future__ import annotations

import html
import importlib.resources
import json
import math
import string
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from .checking import Outcome

STYLES = {"pass": "green", "fail": "bold red", "refused": "yellow"}
COLUMNS = (
    "kernel",
    "case",
    "ran on",
    "library",
    "dtype",
    "residual",
    "limit",
    "distance",
    "speed-up",
    "verdict",
)
RIGHT = frozenset({"residual", "limit", "distance", "speed-up"})


def ran_on(row: Outcome) -> str:
    """The backends that really ran, most specific first; "array-api" is the reference body."""
    names = sorted(set(row.ran.values()), key=lambda name: (name == "array-api", name))
    return " + ".join(names) or row.backend


def _figure(value: float) -> str:
    if not math.isfinite(value):
        return str(value)
    return f"{value:.2g}" if value < 1e4 else f"{value:.1e}"


def cells(row: Outcome) -> tuple[str, ...]:
    """One row of the table as text; residual and limit are those of the figure nearest to its limit, in eps."""
    worst = row.worst
    residual, limit = (
        (f"{worst[0]} {_figure(worst[1].value)}", _figure(worst[1].limit)) if worst else ("", "")
    )
    distance = _figure(row.forward.value) if row.forward else ""
    speed = f"{row.speedup:.2f}x" if row.speedup else ""
    case = f"{row.case} (real data)" if row.real else row.case
    where = row.library if row.device == "cpu" else f"{row.library} {row.device}"
    return (
        row.kernel,
        case,
        ran_on(row),
        where,
        row.dtype,
        residual,
        limit,
        distance,
        speed,
        row.verdict,
    )


def table(rows: Sequence[Outcome], *, every: bool = True) -> Table:
    """The rows as a rich table; ``every=False`` keeps one row per kernel and case: the tightest."""
    shown = rows if every else condensed(rows)
    result = Table(
        title="orthokern validate: residuals and distances in eps of the dtype",
        title_justify="left",
    )
    for name in COLUMNS:
        result.add_column(name, justify="right" if name in RIGHT else "left", overflow="fold")
    for row in shown:
        *plain, verdict = cells(row)
        result.add_row(*plain, Text(verdict, style=STYLES[row.verdict]))
    return result


def summary(rows: Sequence[Outcome], seconds: float) -> str:
    """One line: how many rows passed, failed, were refused."""
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in STYLES}
    parts = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    return f"{len(rows)} rows: {parts}; {seconds:.0f} s"


def failures(rows: Sequence[Outcome]) -> list[str]:
    """A sentence for each failed row: kernel, case, where, and the error."""
    return [
        f"FAIL {row.kernel} / {row.case} on {ran_on(row)} ({row.library}, {row.dtype}): {row.reason}"
        for row in rows
        if row.verdict == "fail"
    ]


def succeeded(rows: Sequence[Outcome]) -> bool:
    """Whether something passed and nothing failed."""
    return any(row.verdict == "pass" for row in rows) and not any(
        row.verdict == "fail" for row in rows
    )


def _record(row: Outcome) -> dict[str, Any]:
    record = row._asdict()
    record["residuals"] = {name: figure._asdict() for name, figure in row.residuals.items()}
    record["distance"] = row.forward._asdict() if row.forward else None
    del record["forward"]
    return record


def to_json(rows: Sequence[Outcome], machine: dict[str, str]) -> str:
    """All rows with all figures; non-finite numbers are written as strings."""

    def plain(value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return value

    document = {
        "machine": machine,
        "passed": succeeded(rows),
        "rows": [plain(_record(row)) for row in rows],
    }
    return json.dumps(document, indent=1)


def condensed(rows: Sequence[Outcome]) -> list[Outcome]:
    """Of each kernel, case and backend that ran the row nearest to a limit; failed rows are all kept."""
    best: dict[tuple[str, str, str], Outcome] = {}
    kept: list[Outcome] = []
    for row in rows:
        key = (row.kernel, row.case, ran_on(row))
        if row.verdict == "fail":
            kept.append(row)
        elif key not in best or _use(row) > _use(best[key]):
            best[key] = row
    order = {id(row): i for i, row in enumerate(rows)}
    return sorted([*kept, *best.values()], key=lambda row: order[id(row)])


def _use(row: Outcome) -> float:
    """Share of the error budget that the row uses."""
    worst = row.worst
    if worst is None:
        return 0.0
    figure = worst[1]
    if math.isnan(figure.value) or (figure.limit == 0 and figure.value != 0):
        return math.inf
    return figure.value / figure.limit if figure.limit else 0.0


def _bars(values: dict[str, float], label: str, *, full: float) -> str:
    lines = []
    for name, value in values.items():
        width = min(100.0, 100 * value / full) if math.isfinite(value) else 100.0
        style = ' class="over"' if label == "of the limit" and not value <= 1 else ""
        lines.append(
            f'<tr><td>{html.escape(name)}</td><td><div class="bar"><i{style} style="width:{width:.1f}%"></i></div></td>'
            f'<td class="n">{value:.2f} {label}</td></tr>'
        )
    return (
        f"<table>{''.join(lines)}</table>"
        if lines
        else "<p>nothing was timed against the reference</p>"
    )


def _grouped(rows: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    groups: dict[str, list[Outcome]] = {}
    for row in rows:
        groups.setdefault(f"{row.kernel} on {ran_on(row)}", []).append(row)
    return groups


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def to_html(rows: Sequence[Outcome], machine: dict[str, str], seconds: float) -> str:
    """The same table with bar charts, in one file that needs no network."""
    groups = _grouped([row for row in rows if row.verdict != "refused"])
    budget = {name: max(_use(row) for row in group) for name, group in groups.items()}
    speeds = {
        name: _median([row.speedup for row in group if row.speedup])
        for name, group in groups.items()
        if any(row.speedup for row in group)
    }
    body = "".join(_html_row(row) for row in rows)
    page = (
        importlib.resources.files("orthokern.testing")
        .joinpath("page.html")
        .read_text(encoding="utf-8")
    )
    return string.Template(page).substitute(
        summary=html.escape(summary(rows, seconds)),
        machine=html.escape(", ".join(f"{key} {value}" for key, value in machine.items())),
        chart=_bars(budget, "of the limit", full=1.0),
        speed=_bars(speeds, "x", full=max([1.0, *speeds.values()])),
        head="".join(f"<th>{name}</th>" for name in COLUMNS),
        body=body,
    )


def _html_row(row: Outcome) -> str:
    parts = []
    for name, text in zip(COLUMNS, cells(row), strict=True):
        style = (
            f' class="{row.verdict}"'
            if name == "verdict"
            else ' class="n"'
            if name in RIGHT
            else ""
        )
        parts.append(f"<td{style}>{html.escape(text)}</td>")
    return f"<tr title='{html.escape(row.reason, quote=True)}'>{''.join(parts)}</tr>"
