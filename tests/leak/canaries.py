"""What must never reach a customer, spelled so that it is found wherever it turns up."""

from __future__ import annotations

from typing import Final

# In every name, address, id and secret of the provider below, and in nothing else of the house.
CANARY: Final = "canary"

PROVIDER: Final = "canaryprovider"
UPSTREAM_MODEL: Final = "canary-upstream-model"
TASK_PREFIX: Final = "canary-task-"
LABEL: Final = "canary-account"
CREDENTIAL: Final = "canary-credential-3f9c"
MESSAGE: Final = (
    "https://api.canary.example/v2/tasks says: key canary-credential-3f9c of canary-account is not welcome"
)
