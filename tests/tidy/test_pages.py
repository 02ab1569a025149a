from __future__ import annotations

import re

from tests.tidy.configuration_page import PAGE, page
from tests.tidy.source import ROOT, modules


def test_the_configuration_page_lists_every_setting_as_it_is() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make gen`"


def test_links_between_pages_lead_somewhere() -> None:
    broken = [
        f"{document.relative_to(ROOT)} → {target}"
        for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
        for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", document.read_text(encoding="utf-8"))
        if not (document.parent / target).exists()
    ]
    assert broken == []


def test_every_error_reason_of_the_protos_is_explained() -> None:
    explained = (ROOT / "docs" / "ERRORS.md").read_text(encoding="utf-8")
    reasons = {
        name
        for proto in ROOT.glob("protos/*/v1/*.proto")
        for name in re.findall(r"^  REASON_(\w+) = ", proto.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert sorted(reason for reason in reasons - {"UNSPECIFIED"} if f"`{reason}`" not in explained) == []


def test_every_metric_is_in_the_operations_page_with_its_meaning() -> None:
    page_text = (ROOT / "docs" / "OPERATIONS.md").read_text(encoding="utf-8")
    declared = {
        name
        for path in modules()
        for name in re.findall(
            r"(?:Counter|Gauge|Histogram)\(\s*\"(atelier_\w+)\"", path.read_text(encoding="utf-8")
        )
    }
    assert sorted(name for name in declared if f"`{name}`" not in page_text) == []
