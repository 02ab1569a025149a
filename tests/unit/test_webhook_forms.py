from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.clock import rfc3339
from services.jobs.job import FailureReason, Job, JobState, Output
from services.jobs.webhooks.forms import PLACES, Form, fill, is_place, read_document, with_links
from tests.jobs_rows import NOW_MS, a_job

PICTURE = Output(1, "job_1/primary.png", "image/png", 10, "ab", 640, 480, 0)
FILM = Output(1, "job_1/primary.mp4", "video/mp4", 10, "ab", 640, 480, 5_000)
PREVIEW = Output(2, "job_1/preview.jpg", "image/jpeg", 10, "ab", 64, 48, 0)
TEXT = Output(1, "job_1/primary.txt", "text/plain", 10, "ab", 0, 0, 0, text='Ünï "quoted"\n')


def a_form(completed: Any, failed: Any = None) -> Form:
    return Form("leonardo", json.dumps(completed), json.dumps(failed or {}), {0: "It failed."}, {0: "failed"})


def ended(*outputs: Output, **given_fields: Any) -> Job:
    fields: dict[str, Any] = {
        "state": JobState.COMPLETED,
        "ended_at_ms": NOW_MS + 5_250,
        "updated_at_ms": NOW_MS + 5_250,
    }
    return a_job(**fields | {"outputs": outputs} | given_fields)


def link(object_key: str) -> str:
    return f"https://here/{object_key}?a=1&b=2"


def shown(completed: Any, job: Job) -> Any:
    return json.loads(with_links(fill(a_form(completed), job), link))


def value(name: str, job: Job) -> Any:
    return shown({"x": {"$": name}}, job)["x"]


def test_what_is_no_place_stays_as_it_is() -> None:
    document: dict[str, Any] = {"a": [1, 2.5, True, None, "x", [], {}], "ü": {"b": "\u2028"}}
    assert shown(document, ended()) == document


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("job_id", "job_1"),
        ("public_number", 4711),
        ("public_model", "pro"),
        ("model", "gpt-image-2"),
        ("kind", "image"),
        ("project_id", "p1"),
        ("created_at", rfc3339(NOW_MS)),
        ("created_at_s", rfc3339(NOW_MS)[:19] + "Z"),
        ("created_at_ms", NOW_MS),
        ("updated_at_ms", NOW_MS + 5_250),
        ("ended_at", rfc3339(NOW_MS + 5_250)),
        ("ended_at_s", rfc3339(NOW_MS + 5_250)[:19] + "Z"),
        ("width", 640),
        ("height", 480),
        ("content_type", "video/mp4"),
        ("duration_s", 5.0),
        ("media:primary", link(FILM.object_key)),
        ("media:preview", link(PREVIEW.object_key)),
        ("media:last_frame", None),
        ("failure_message", None),
        ("failure_code", None),
        ("text", None),
    ],
)
def test_a_place_holds_what_the_job_says(name: str, expected: Any) -> None:
    job = ended(FILM, PREVIEW, public_number=4711, public_model="pro", project_id="p1")
    assert value(name, job) == expected


@pytest.mark.parametrize(
    ("millis", "plain", "decimal"),
    [(0, "0", "0.0"), (12_000, "12", "12.0"), (12_500, "12.5", "12.5"), (7, "0.007", "0.007")],
)
def test_credits_are_whole_where_they_are_and_decimal_where_that_is_asked(
    millis: int, plain: str, decimal: str
) -> None:
    job = ended(PICTURE, quoted_millis=millis, charged_millis=millis, refunded_millis=millis)
    for name in ("quoted_credits", "charged_credits", "refunded_credits"):
        form = a_form({"a": {"$": name}, "b": {"$": f"{name}_decimal"}})
        assert fill(form, job) == [f'{{"a":{plain},"b":{decimal}}}']


def test_a_text_is_spelled_as_json() -> None:
    assert value("text", ended(TEXT)) == TEXT.text


def test_a_place_without_a_value_is_null_or_left_out_with_its_name() -> None:
    document: dict[str, Any] = {
        "a": {"$": "project_id"},
        "b": {"$?": "project_id"},
        "c": [{"$?": "echo.x"}, 1],
        "d": {"$?": "job_id"},
    }
    assert shown(document, ended(PICTURE)) == {"a": None, "c": [1], "d": "job_1"}


def test_what_the_storefront_wanted_back_is_there_as_it_was_written() -> None:
    echo = '{"big": 12345678901234567890, "f": 1.10, "null": null, "nested": {"a": ["\\u00e9"]}}'
    job = ended(PICTURE, echo=echo)
    document = {name: {"$": f"echo.{name}"} for name in ("big", "f", "null", "nested", "none")}
    text = with_links(fill(a_form(document | {"all": {"$": "echo"}}), job), link).decode()
    assert "12345678901234567890" in text
    assert '"f":1.10' in text
    assert json.loads(text)["all"] == json.loads(echo)
    assert json.loads(text)["none"] is None
    assert shown({"a": {"$?": "echo.null"}, "b": {"$?": "echo.none"}}, job) == {"a": None}


@pytest.mark.parametrize("echo", ["", "no json", "[1]", '"a"'])
def test_an_echo_that_is_no_object_has_no_members(echo: str) -> None:
    assert value("echo.a", ended(PICTURE, echo=echo)) is None


def test_an_echo_that_is_nested_too_deep_is_left_out() -> None:
    job = ended(PICTURE, echo='{"a":' + "[" * 5_000 + "]" * 5_000 + "}")
    assert shown({"a": {"$?": "echo"}, "b": {"$?": "echo.a"}}, job) == {}


HOSTILE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(sorted(PLACES)),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["$", "$?", "$media", "a"]) | st.text(), inner)
    ),
    max_leaves=10,
)


@given(HOSTILE)
def test_nothing_that_a_customer_gave_becomes_a_place(given_back: Any) -> None:
    job = ended(PICTURE, echo=json.dumps({"m": given_back}))
    filled = fill(a_form({"a": {"$": "echo.m"}, "url": {"$": "media:primary"}}), job)
    assert filled[1::2] == [PICTURE.object_key]
    assert json.loads(with_links(filled, link)) == {"a": given_back, "url": link(PICTURE.object_key)}


@pytest.mark.parametrize(
    ("failure", "message", "code"),
    [(FailureReason.CONTENT_REFUSED, "No.", "refused"), (FailureReason.TIMED_OUT, "It failed.", "failed")],
)
def test_a_failure_is_told_in_the_storefront_s_words(failure: FailureReason, message: str, code: str) -> None:
    failed = json.dumps(
        {"m": {"$": "failure_message"}, "c": {"$": "failure_code"}, "u": {"$?": "media:primary"}}
    )
    form = Form("s", "{}", failed, {0: "It failed.", 2: "No."}, {0: "failed", 2: "refused"})
    job = ended(PICTURE, state=JobState.FAILED, failure=failure)
    assert json.loads(fill(form, job)[0]) == {"m": message, "c": code}


def test_a_job_that_was_canceled_is_told_as_one_that_failed() -> None:
    form = a_form({"status": "completed"}, {"status": "failed", "why": {"$": "failure_message"}})
    job = ended(state=JobState.CANCELED, failure=FailureReason.CANCELED)
    assert json.loads(fill(form, job)[0]) == {"status": "failed", "why": "It failed."}


def test_the_same_form_has_the_same_id_and_every_change_another() -> None:
    form = a_form({"a": 1})
    again = Form.decoded(form.encoded().decode())
    assert again == form
    assert again.form_id == form.form_id
    assert a_form({"a": 2}).form_id != form.form_id
    reordered = Form("leonardo", form.completed, form.failed, {1: "a", 0: "b"}, {})
    assert reordered.form_id == Form("leonardo", form.completed, form.failed, {0: "b", 1: "a"}, {}).form_id


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "1",
        '{"$": "job_id"}',
        '{"a": {"$": "nothing"}}',
        '{"a": {"$": 1}}',
        '{"a": {"$": "job_id", "b": 1}}',
        '{"a": {"$other": "job_id"}}',
        '{"a": {"$": "media:other"}}',
        '{"a": {"$": "echo."}}',
        '{"a": {"$": "primary"}}',
        '{"a": 1, "a": 2}',
        '{"a": NaN}',
        '{"a": Infinity}',
        '{"a":' * 17 + "1" + "}" * 17,
        '{"a":' + "[" * 100_000,
        '{"a": "' + "x" * 16_384 + '"}',
        "{'a': 1}",
    ],
    ids=lambda text: repr(text[:30]),
)
def test_a_document_that_cannot_be_filled_in_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(is|names|has|holds) "):
        read_document(text)


def test_every_place_of_the_list_can_be_filled_in() -> None:
    document = {name: {"$": name} for name in PLACES}
    assert set(shown(document, ended(FILM, PREVIEW))) == PLACES
    assert all(is_place(name) for name in PLACES)
