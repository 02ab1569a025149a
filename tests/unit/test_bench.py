from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench import page, slices
from tests.bench.drawing import drawn
from tests.bench.findings import Chart, Finding, Line, Section, of_slices, shown
from tests.bench.plan import Plan
from tests.bench.processes import Foreign
from tests.bench.slices import Rounds, Slice, alternate
from tests.bench.wrk import Request


async def test_disturbed_rounds_are_made_up_for_unless_every_one_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = iter([0.0, 0.9, 0.0, 0.9, 0.0, 0.0])
    monkeypatch.setattr(Foreign, "share", lambda _: next(shares))

    async def run() -> int:
        return 1

    some = await alternate({"a": run}, Plan(tmp_path, slices=3, patience_s=0))
    assert [taken.foreign for taken in some.slices["a"]] == [0.9, 0.0, 0.9, 0.0, 0.0]
    monkeypatch.setattr(Foreign, "share", lambda _: 0.9)
    none = await alternate({"a": run}, Plan(tmp_path, slices=3, patience_s=0))
    assert len(none.slices["a"]) == 3


def rounds(*foreign: float) -> Rounds[float]:
    """Round n measured n + 1 for `ours` and 1 for `base`."""
    ours = [Slice(float(number + 1), share) for number, share in enumerate(foreign)]
    return Rounds({"ours": ours, "base": [Slice(1.0, 0.0) for _ in foreign]})


def test_disturbed_rounds_are_left_out_of_every_case_while_three_remain() -> None:
    assert rounds(0.0, 0.5, 0.0, 0.0).of("ours") == [1.0, 3.0, 4.0]
    assert rounds(0.0, 0.5, 0.0, 0.0).of("base") == [1.0, 1.0, 1.0]


def test_all_rounds_count_where_too_few_were_undisturbed() -> None:
    assert rounds(0.0, 0.5, 0.5, 0.0).ratios("ours", "base", float) == [1.0, 2.0, 3.0, 4.0]


async def test_cases_take_turns_and_every_second_round_runs_backward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    async def run(name: str) -> int:
        ran.append(name)
        return len(ran)

    monkeypatch.setattr(slices, "DISTURBED", 2.0)
    taken = await alternate(
        {"a": lambda: run("a"), "b": lambda: run("b")}, Plan(tmp_path, slices=2, patience_s=0)
    )
    assert ran == ["b", "a", "a", "b", "b", "a"]
    assert len(taken.slices["a"]) == len(taken.slices["b"]) == 2


@pytest.mark.parametrize(
    "measured, at_least, met",
    [(2.0, True, True), (1.9, True, False), (2.0, False, True), (2.1, False, False)],
)
def test_a_finding_is_judged_by_its_target(measured: float, at_least: bool, met: bool) -> None:
    assert Finding("x", measured, target=2.0, at_least=at_least).met is met


def test_a_finding_of_slices_is_their_median() -> None:
    assert of_slices("x", [9.0, 1.0, 2.0]).measured == 2.0


def test_numbers_are_shown_with_the_figures_that_count() -> None:
    assert [shown(number) for number in (12345.6, 12.34, 1.234, 0.1234)] == [
        "12,346",
        "12.3",
        "1.23",
        "0.123",
    ]


def test_a_request_is_written_as_lua_with_its_quotes_escaped() -> None:
    lua = Request("POST", "/x", {"Authorization": 'a"b'}, '{"prompt": "p"}', keyed=True).lua()
    assert '["Authorization"] = "a\\"b"' in lua
    assert 'body = "{\\"prompt\\": \\"p\\"}", keyed = true' in lua


def test_a_chart_escapes_what_it_is_told() -> None:
    assert "a &lt; b" in drawn(Chart("c", "a < b", "/s", [("one", 1.0)]))
    assert "<polyline" in drawn(Line("l", "memory", "minutes", "MB", [(0.0, 1.0), (1.0, 2.0)]))


def test_a_run_of_some_measurements_leaves_the_others_in_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "PAGE", tmp_path / "PERFORMANCE.md")
    monkeypatch.setattr(page, "FOLDER", tmp_path / "performance")
    page.PAGE.write_text(f"by hand\n{page.BEGIN}\nold\n{page.END}\nafter\n", encoding="utf-8")
    plan = Plan(tmp_path)

    def entry(title: str, measured: float) -> dict[str, object]:
        row = of_slices(f"row of {title}", [measured], "×", target=1.0)
        chart = Chart(title, title, "/s", [("one", measured)])
        return page.entry([Section(title, (row,), "words", (chart,))], plan)

    page.write({"one": entry("one", 1.5)}, ["one", "two"])
    page.write({"two": entry("two", 2.5)}, ["one", "two"])
    page.write({"two": entry("two", 0.5)}, ["one", "two"])

    text = page.PAGE.read_text(encoding="utf-8")
    assert text.startswith("by hand\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| row of one | 1.50 × | – | ≥ 1.00 × | yes |" in text
    assert "| row of two | 0.500 × | – | ≥ 1.00 × | **no** |" in text
    assert "2.50 ×" not in text
    assert (tmp_path / "performance" / "one.svg").exists()
    assert list(json.loads((tmp_path / "performance" / "measured.json").read_text())) == ["one", "two"]
