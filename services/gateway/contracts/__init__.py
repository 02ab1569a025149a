"""The public contracts. The first one speaks for paths that nobody claims."""

from __future__ import annotations

from services.gateway.contracts import imaginelab, leonardo, loova, seedance2pro, seedancee2

CONTRACTS = (
    leonardo.CONTRACT,
    seedancee2.CONTRACT,
    seedance2pro.CONTRACT,
    loova.CONTRACT,
    imaginelab.CONTRACT,
)
