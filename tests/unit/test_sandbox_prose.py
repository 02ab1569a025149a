"""Texts of the sandbox: about what was asked, no longer than was asked, and honest about who wrote them."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.provider_pool.adapters.sandbox.prose import topic_of, write_prose, written
from services.provider_pool.adapters.sandbox.prose_phrases import SIGNED, STOP_WORDS
from services.provider_pool.adapters.sandbox.render_order import RenderOrder
from services.provider_pool.media.probe import TEXT_LIMIT_BYTES, probe


@pytest.mark.parametrize("max_words", [1, 2, 5, 20, 33, 60, 150, 400, 2_000])
@pytest.mark.parametrize(
    "prompt",
    ["Write about bees", "A poem about the sea", "An email about the delay", "Tell a story of a fox", ""],
)
def test_a_text_is_never_longer_than_asked_and_never_empty(prompt: str, max_words: int) -> None:
    for seed in range(5):
        assert 1 <= len(written(prompt, seed, max_words).split()) <= max_words


def test_it_is_about_what_was_asked_and_says_who_wrote_it() -> None:
    text = written("Write a short article about urban beekeeping in Berlin", 1, 200)
    assert text.count("urban beekeeping in Berlin") >= 2
    assert text.endswith(SIGNED)
    assert "\n\n" in text


def test_every_sentence_is_whole_and_none_comes_twice_in_a_usual_text() -> None:
    text = written("Explain tides", 3, 250)
    sentences = [one for part in text.split("\n\n") for one in part.replace("? ", ". ").split(". ")]
    assert len(sentences) == len(set(sentences)) > 8
    for paragraph in text.split("\n\n"):
        assert paragraph[0].isupper() or paragraph[0] == "("
        assert paragraph[-1] in ".)"


def test_a_number_of_words_in_the_prompt_counts() -> None:
    assert len(written("Write 80 words about tea", 1, 2_000).split()) <= 80
    assert len(written("Write 600 words about tea", 1, 2_000).split()) > 500


def test_the_same_prompt_and_seed_are_the_same_text_and_others_are_others() -> None:
    first = written("about tea", 1, 100)
    assert first == written("about tea", 1, 100)
    assert first != written("about tea", 2, 100)
    assert first != written("about coffee", 1, 100)


@pytest.mark.parametrize("words", range(3, 20))
def test_a_short_text_does_not_break_off_before_the_word_that_matters(words: int) -> None:
    said = written("A slogan for a ferry line", 1, words)
    assert said.rstrip(".").split()[-1].casefold() not in STOP_WORDS
    assert " A " not in said


def test_a_poem_has_lines_and_a_letter_an_address() -> None:
    assert written("a poem about rain", 1, 200).count("\n") > 8
    assert written("an email about rain", 1, 200).startswith(("Dear", "Hello"))


@pytest.mark.parametrize(
    ("said", "topic"),
    [
        ("Write a short article about urban beekeeping", "urban beekeeping"),
        ("Explain quantum computing", "quantum computing"),
        ("The moon", "The moon"),
        ("Please write 200 words about tea.", "tea"),
        ("A slogan for a ferry line", "a ferry line"),
        ("A short poem about the sea", "the sea"),
        ("Product description: wireless headphones", "wireless headphones"),
        ("List 5 ideas for a birthday party", "a birthday party"),
        ("What is the capital of France?", "the capital of France"),
        ("A letter from the sea", "A letter from the sea"),
        ("", "a subject of your choice"),
    ],
)
def test_the_topic_is_what_is_left_without_the_request(said: str, topic: str) -> None:
    assert topic_of(said) == topic


@pytest.mark.parametrize(
    "prompt", ["字" * 20_000, "{topic} {0} {", "\x00\x1b[2J\x07", "\ud800", "x" * 20_000, "%s [sandbox:fail]"]
)
def test_no_prompt_makes_it_something_else_than_a_text_that_can_be_kept(prompt: str, tmp_path: Path) -> None:
    write_prose(RenderOrder("o", "text", prompt, 0, 0, 0, False, 1, "", max_words=2_000), tmp_path / "text")
    assert (tmp_path / "text").stat().st_size <= TEXT_LIMIT_BYTES
    assert probe(tmp_path / "text").content_type == "text/plain"
    assert "sandbox:" not in (tmp_path / "text").read_text()
