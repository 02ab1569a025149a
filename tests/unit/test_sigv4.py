"""AWS Signature Version 4 against the examples that its authors publish for S3."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest

from services.chassis.object_place import ObjectPlace, object_place, store_endpoint
from services.chassis.settings import Secret, SettingsError
from services.chassis.sigv4 import EMPTY_SHA256, Signer, escaped_path

HOST = "examplebucket.s3.amazonaws.com"
AT = datetime(2013, 5, 24, tzinfo=UTC)
SIGNER = Signer(
    Secret("AKIAIOSFODNN7EXAMPLE"), Secret("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"), "us-east-1"
)


def signature(method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> str:
    digest = hashlib.sha256(body).hexdigest()
    signed = SIGNER.headers(method, escaped_path(path), query, {"host": HOST, **headers}, digest, AT)
    return signed["authorization"].rpartition("Signature=")[2]


@pytest.mark.parametrize(
    "method,path,query,headers,body,expected",
    [
        (
            "GET",
            "/test.txt",
            {},
            {"Range": "bytes=0-9"},
            b"",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            "/test$file.text",
            {},
            {"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            b"Welcome to Amazon S3.",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            "GET",
            "/",
            {"lifecycle": ""},
            {},
            b"",
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "GET",
            "/",
            {"max-keys": "2", "prefix": "J"},
            {},
            b"",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_a_request_is_signed_as_in_the_published_examples(
    method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes, expected: str
) -> None:
    assert signature(method, path, query, headers, body) == expected


def test_an_address_is_signed_as_in_the_published_example() -> None:
    query = SIGNER.presigned_query("GET", HOST, "/test.txt", {}, AT, 86_400)
    assert query.endswith("X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404")


def test_who_signs_is_named_and_the_secret_is_in_nothing_that_is_sent_or_printed() -> None:
    headers = SIGNER.headers("GET", "/", {}, {"host": HOST}, EMPTY_SHA256, AT)
    assert "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request" in headers["authorization"]
    assert "wJalr" not in str(headers) + repr(SIGNER)
    assert "AKIA" not in repr(SIGNER)


def place(endpoint: str, *, path_style: bool = True) -> ObjectPlace:
    return ObjectPlace(endpoint, "us-east-1", "films", Secret("a"), Secret("b"), path_style)


def test_a_bucket_is_a_part_of_the_path_or_of_the_host() -> None:
    endpoint = "https://s3.example.com:9000"
    assert place(endpoint).address("a b/ä.mp4", "") == f"{endpoint}/films/a%20b/%C3%A4.mp4"
    assert place(endpoint).address("", "list-type=2") == f"{endpoint}/films?list-type=2"
    own = place(endpoint, path_style=False)
    assert own.address("a+b.mp4", "") == "https://films.s3.example.com:9000/a%2Bb.mp4"
    assert own.address("", "") == "https://films.s3.example.com:9000/"


@pytest.mark.parametrize(
    "text,endpoint",
    [
        ("https://s3.example.com/", "https://s3.example.com"),
        ("https://s3.example.com:443", "https://s3.example.com"),
        ("http://LOCALHOST:80", "http://localhost"),
        ("http://[::1]:9000", "http://[::1]:9000"),
    ],
)
def test_an_endpoint_is_written_as_it_is_signed(text: str, endpoint: str) -> None:
    assert store_endpoint(text) == endpoint


@pytest.mark.parametrize(
    "text",
    ["s3.example.com", "ftp://a", "https://", "https://a/b", "https://a?b", "https://u:p@a", "https://a:x"],
)
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be an address"):
        store_endpoint(text)


def described(endpoint: str, **changes: object) -> ObjectPlace | None:
    settings: dict[str, object] = {
        "region": "us-east-1",
        "bucket": "films",
        "access_keys": (Secret("a"), None),
        "secret_keys": (None, Secret("b")),
        "path_style": True,
        "plaintext": False,
    }
    return object_place("ATELIER_X_S3_", endpoint, **(settings | changes))  # type: ignore[arg-type]  # as settings give it


def test_without_an_endpoint_there_is_no_bucket() -> None:
    assert described("", bucket="") is None


def test_everything_that_is_missing_of_a_bucket_is_said_at_once() -> None:
    wrong = {"bucket": "", "access_keys": (None, None), "secret_keys": (Secret("b"), Secret("b"))}
    with pytest.raises(SettingsError) as refusal:
        described("http://s3.example.com", **wrong)
    for name in ("BUCKET", "ACCESS_KEY_FILE", "SECRET_KEY_FILE", "ENDPOINT"):
        assert f"ATELIER_X_S3_{name}" in str(refusal.value)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9000", "http://[::1]", "http://localhost:1"])
def test_this_machine_is_spoken_to_in_plaintext_and_others_where_it_is_said(endpoint: str) -> None:
    assert described(endpoint) is not None
    with pytest.raises(SettingsError):
        described("http://10.0.0.7:9000")
    assert described("http://10.0.0.7:9000", plaintext=True) is not None
