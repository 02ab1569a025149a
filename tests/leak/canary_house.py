"""`python -m tests.leak.canary_house`: the whole house, whose provider pool has one provider more."""

from __future__ import annotations

import runpy

from services.house import child

_plain = child.module_of


def _module_of(service: str) -> str:
    return "tests.leak.canary_pool" if service == "provider_pool" else _plain(service)


if __name__ == "__main__":
    child.module_of = _module_of
    runpy.run_module("services", run_name="__main__", alter_sys=True)
