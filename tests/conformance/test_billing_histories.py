from __future__ import annotations

from pathlib import Path

from hypothesis import settings

from tests.conformance.billing_shelf import run_on_every_engine
from tests.postgres import Postgres

# Each step is several transactions on four databases; the rules alone are tried with many more examples.
DEPTH = settings(max_examples=6, stateful_step_count=25)


def test_both_engines_answer_and_store_as_the_oracle_however_batches_are_cut(
    tmp_path: Path, postgres: Postgres
) -> None:
    run_on_every_engine(tmp_path, postgres, DEPTH)
