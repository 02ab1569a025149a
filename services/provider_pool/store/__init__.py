"""Reading and writing the tables: plain functions of a connection, the same on both engines.

Locks are taken in one order everywhere: accounts by id, then leases by attempt id, then attempts by id. Breakers have no
lock of their own; whoever writes one holds its account.
"""
