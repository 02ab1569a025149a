"""The page `docs/PERFORMANCE.md`: what was measured, kept as JSON beside it and written between two markers.

What is simulated and not timed has a page of its own. A run of some measurements replaces theirs and leaves the
others; every one says when and how it was taken.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tests.bench.drawing import drawn
from tests.bench.findings import Chart, Finding, Line, Section, table
from tests.bench.plan import Plan
from tests.bench.processes import CORES, sync_ms
from tests.house import ROOT

PAGE: Final = ROOT / "docs" / "PERFORMANCE.md"
FOLDER: Final = ROOT / "docs" / "performance"
# By the measurement's name.
OWN_PAGES: Final = {"selection": ROOT / "docs" / "SELECTION.md"}
_NUMBERS: Final = "measured.json"
BEGIN: Final = "<!-- measured: begin; written by `make bench` -->"
END: Final = "<!-- measured: end -->"


def entry(sections: Sequence[Section], plan: Plan) -> dict[str, Any]:
    """What is kept of one measurement: its sections, and when, where and how they were taken."""
    return {
        "taken": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "machine": machine(plan.folder),
        "slices": plan.slices,
        "seconds": plan.seconds,
        "sections": [
            asdict(section) | {"charts": list(map(_chart_json, section.charts))} for section in sections
        ],
    }


def write(fresh: Mapping[str, dict[str, Any]], order: Sequence[str]) -> None:
    """Puts the entries into the page, in `order`, with those kept from earlier runs."""
    numbers = FOLDER / _NUMBERS
    kept = json.loads(numbers.read_text(encoding="utf-8")) if numbers.exists() else {}
    entries = {name: {**kept, **fresh}[name] for name in order if name in fresh or name in kept}
    FOLDER.mkdir(exist_ok=True)
    numbers.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    for section in _sections(entries):
        for chart in section.charts:
            (FOLDER / f"{chart.name}.svg").write_text(drawn(chart), encoding="utf-8")
    for page in (PAGE, *OWN_PAGES.values()):
        told = {name: kept for name, kept in entries.items() if OWN_PAGES.get(name, PAGE) == page}
        if told.keys() & fresh.keys():
            _write_into(page, _body(told))


def _write_into(page: Path, body: str) -> None:
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}", encoding="utf-8")


def machine(folder: Path) -> str:
    """What the numbers depend on, in one sentence."""
    names = {
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    }
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return (
        f"{CORES} cores of {', '.join(sorted(names)) or platform.machine()}, {memory_kib / 1024**2:.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}; "
        f"4 KiB appended and synced in {sync_ms(folder):.2f} ms"
    )


def _body(entries: Mapping[str, dict[str, Any]]) -> str:
    asked = [
        finding
        for section in _sections(entries)
        for finding in section.findings
        if finding.target is not None
    ]
    parts = ["## Against the targets", table(asked), "## Measurement by measurement"]
    for name, kept in entries.items():
        taken = f"`{name}`: taken {kept['taken']} at commit {kept['commit']}"
        if name not in OWN_PAGES:
            taken += f", up to {kept['slices']} slices of {kept['seconds']:g} s a case; {kept['machine']}"
        parts += [_section(one).markdown() for one in kept["sections"]]
        parts.append(f"<sub>{taken}.</sub>")
    return "\n\n".join(parts)


def _sections(entries: Mapping[str, dict[str, Any]]) -> list[Section]:
    return [_section(one) for kept in entries.values() for one in kept["sections"]]


def _section(kept: Mapping[str, Any]) -> Section:
    findings = tuple(Finding(**{**one, "slices": tuple(one["slices"])}) for one in kept["findings"])
    return Section(kept["title"], findings, kept["text"], tuple(map(_chart, kept["charts"])))


def _chart_json(chart: Chart | Line) -> dict[str, Any]:
    return asdict(chart)


def _chart(kept: Mapping[str, Any]) -> Chart | Line:
    return Chart(**kept) if "bars" in kept else Line(**kept)


def _commit() -> str:
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"
