"""Atelier's processes, one package each.

    gateway        JSON over HTTP for customers; turns it into calls to the three services below
    billing        customers, API keys, wallets and the journal
    jobs           the life of a job, from the request to its settled end
    provider_pool  provider accounts, leases, attempts, adapters, the media store
    admin          the operator's command line, a client of the others
    house          starts all of them on one machine: `python -m services`
    chassis        what every process needs before it knows its business
    gen            stubs generated from protos/

Calls go one way: gateway → {jobs, billing, provider_pool}, jobs → {billing, provider_pool}.
"""
