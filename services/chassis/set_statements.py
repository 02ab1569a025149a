"""Statements over whole sets of rows, spelled once for SQLite and PostgreSQL.

Every function here issues a fixed number of statements however many rows it is given, and each statement
has the same text whatever the number of rows, so that both SQLAlchemy's and the server's caches of
statements keep working.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from operator import itemgetter
from typing import Any, Self

import msgspec
from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    Dialect,
    Function,
    Insert,
    LargeBinary,
    Numeric,
    Select,
    String,
    Table,
    Text,
    Update,
    and_,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.operators import OperatorType
from sqlalchemy.sql.selectable import TableValuedAlias
from sqlalchemy.types import TypeDecorator, TypeEngine

from services.chassis import array_text
from services.chassis.errors import Kind, ServiceError
from services.chassis.prepared_statements import Prepared, Processor, bind_processor, change_all, prepared

Row = Mapping[str, Any]
Names = tuple[str, ...]

STATEMENT_CACHE_SIZE = 512
"""Distinct (table, columns) shapes of which the built statement is kept; a service has some dozens."""


class _ValueList(TypeDecorator[Sequence[Any]]):
    """One bind parameter that holds a list: a JSON text on SQLite, an array on PostgreSQL."""

    impl = Text
    cache_ok = True

    def __init__(self, item_type: TypeEngine[Any]) -> None:
        super().__init__()
        self.item_type = item_type

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.ARRAY(self.item_type))
        return dialect.type_descriptor(Text())

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        if value is None:
            return value
        if dialect.name == "postgresql":
            return value if isinstance(value, list) else list(value)
        return msgspec.json.encode(value if isinstance(value, list) else list(value)).decode()


class _MemberOf(FunctionElement[bool]):
    name = "member_of"
    type = Boolean()
    inherit_cache = True

    def self_group(self, against: OperatorType | None = None) -> Self:
        """Itself: as a Boolean it would be compared with 1 on SQLite, and that comparison hides the index."""
        return self


@compiles(_MemberOf, "sqlite")
def _member_of_on_sqlite(element: _MemberOf, compiler: SQLCompiler, **options: Any) -> str:
    column, values = element.clauses
    listed = f"json_each({compiler.process(values, **options)})"
    return f"({compiler.process(column, **options)} IN (SELECT value FROM {listed}))"  # noqa: S608  compiled parts


@compiles(_MemberOf, "postgresql")
def _member_of_on_postgresql(element: _MemberOf, compiler: SQLCompiler, **options: Any) -> str:
    column, values = element.clauses
    return f"({compiler.process(column, **options)} = ANY({compiler.process(values, **options)}))"


def member_of(column: ColumnElement[Any], values: Iterable[Any]) -> ColumnElement[bool]:
    """True where `column` (text or integer) equals one of `values`; of no values it is false for every row.

    The values travel as one bind parameter, so the statement is the same for one value and for ten
    thousand. Bytes work too, with a statement per length on SQLite. Raises ServiceError INVALID_ARGUMENT
    for a NUL in a text.
    """
    listed = list(values)
    if isinstance(column.type, LargeBinary):
        return column.in_(listed)
    if isinstance(column.type, String):
        _refuse_nul(listed)
    parameter = bindparam(None, listed, type_=_ValueList(_array_item_type(column.type)), unique=True)
    return _MemberOf(column, parameter)


def member_of_named(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """`member_of` for a prepared statement: the values (text or integers) are given as `name` when it runs.

    A NUL in a text is for the caller to refuse: what was admitted through an RPC holds none.
    """
    return _MemberOf(column, bindparam(name, type_=_ValueList(_array_item_type(column.type))))


def _refuse_nul(values: Sequence[str]) -> None:
    # PostgreSQL refuses NUL in a text and SQLite's JSON would cut the text there, so that it could match
    # another row.
    if "\x00" in "".join(values):
        raise ServiceError(Kind.INVALID_ARGUMENT, "INVALID_TEXT", "a text must not contain the NUL character")


def locked(statement: Select[Any], *order_by: ColumnElement[Any], skip_locked: bool = False) -> Select[Any]:
    """`statement` with its rows locked in the given order until the end of the transaction (FOR NO KEY
    UPDATE).

    Name the order that every writer of the table uses (its primary key), or two replicas can deadlock.
    `skip_locked` leaves out rows that another replica holds. On SQLite the one writer holds the whole
    database, so only the order remains.
    """
    return statement.order_by(*order_by).with_for_update(key_share=True, skip_locked=skip_locked)


def _array_item_type(column_type: TypeEngine[Any]) -> TypeEngine[Any]:
    # A cast to varchar(n)[] cuts longer texts silently, and a cut key could match a row that nobody named.
    if isinstance(column_type, String):
        return Text()
    return column_type


def _columns_of(table: Table, rows: Sequence[Row]) -> tuple[str, ...]:
    names = tuple(rows[0])
    unknown = [name for name in names if name not in table.c]
    if unknown:
        raise ValueError(f"table {table.name} has no column {', '.join(unknown)}")
    if set(map(len, rows)) != {len(names)}:
        raise ValueError(f"the rows for table {table.name} do not all have the same columns")
    return names


Shape = tuple[Any, ...]


@lru_cache(maxsize=STATEMENT_CACHE_SIZE)
def _built(build: Callable[..., Insert | Update], shape: Shape) -> Prepared:
    return prepared(build(*shape))


def as_arrays(
    table: Table, names: Names, rows: Sequence[tuple[Any, ...]], prefix: str = "v_"
) -> dict[str, Any]:
    """What a statement over arrays is given: each column's values in a list, or in a text that spells one."""
    columns = zip(names, _spellings(table, names), zip(*rows, strict=True), strict=True)
    return {f"{prefix}{name}": spelled(column) for name, spelled, column in columns}


@lru_cache(maxsize=STATEMENT_CACHE_SIZE)
def _spellings(table: Table, names: Names) -> list[array_text.Spelling]:
    return [array_text.spelling_of(table.c[name].type) or list for name in names]


def _unnested(table: Table, names: Sequence[str], prefix: str) -> TableValuedAlias:
    arrays: list[ColumnElement[Any]] = []
    for name in names:
        column_type = table.c[name].type
        array_type = postgresql.ARRAY(_array_item_type(column_type))
        if array_text.spelling_of(column_type) is not None:
            arrays.append(cast(bindparam(f"{prefix}{name}", type_=Text()), array_type))
        else:
            arrays.append(bindparam(f"{prefix}{name}", type_=array_type))
    unnest: Function[Any] = func.unnest(*arrays)
    return unnest.table_valued(*names, name="v").render_derived()


def insert_rows(
    connection: Connection, table: Table, rows: Sequence[Row], *, ignore_conflicts: bool = False
) -> int:
    """Insert `rows` and return how many went in.

    All rows have the same columns; columns left out get the database's defaults. `ignore_conflicts` leaves
    out rows that collide, on any unique index, with one that is there; without it a collision raises
    IntegrityError.
    """
    if not rows:
        return 0
    names = _columns_of(table, rows)
    return insert_tuples(connection, table, names, _as_tuples(names, rows), ignore_conflicts=ignore_conflicts)


def insert_tuples(
    connection: Connection,
    table: Table,
    names: Names,
    rows: Sequence[tuple[Any, ...]],
    *,
    ignore_conflicts: bool = False,
) -> int:
    """`insert_rows` for paths where every microsecond counts: the rows' values in the order of `names`."""
    if not rows:
        return 0
    if connection.dialect.name == "postgresql":
        insert = _built(_postgres_insert, (table, names, ignore_conflicts))
        return insert.run(connection, **as_arrays(table, names, rows))
    suffix = " ON CONFLICT DO NOTHING" if ignore_conflicts else ""
    return _sqlite_insert(connection, table, names, rows, suffix)


def _as_tuples(names: Names, rows: Sequence[Row]) -> list[tuple[Any, ...]]:
    return [tuple([row[name] for name in names]) for row in rows]


def _postgres_insert(table: Table, names: tuple[str, ...], ignore_conflicts: bool) -> Insert:
    statement = insertion_of_arrays(table, names)
    return statement.on_conflict_do_nothing() if ignore_conflicts else statement


def insertion_of_arrays(table: Table, names: Names, prefix: str = "v_") -> postgresql.Insert:
    """PostgreSQL's INSERT of rows that are given as one array a column."""
    source = _unnested(table, names, prefix)
    values = select(*(source.c[name] for name in names))
    return postgresql.insert(table).from_select(list(names), values, include_defaults=False)


def _sqlite_insert(
    connection: Connection, table: Table, names: Names, rows: Sequence[tuple[Any, ...]], suffix: str
) -> int:
    spelled = partial(_sqlite_insert_sql, table, names, suffix, connection.dialect)
    return change_all(connection, spelled, _bound(table, names, rows, connection.dialect))


@lru_cache(maxsize=STATEMENT_CACHE_SIZE)
def _sqlite_insert_sql(table: Table, names: Names, suffix: str, dialect: Dialect, size: int) -> str:
    quote = dialect.identifier_preparer.quote
    columns = ", ".join(quote(name) for name in names)
    return f"INSERT INTO {quote(table.name)} ({columns}) VALUES {_marks(names, size)}{suffix}"  # noqa: S608  quoted


def _marks(names: Names, size: int) -> str:
    one = f"({', '.join('?' * len(names))})"
    return ", ".join([one] * size)


def _bound(
    table: Table, names: Names, rows: Sequence[tuple[Any, ...]], dialect: Dialect
) -> Sequence[tuple[Any, ...]]:
    """The rows as the driver wants them: unchanged but for the few types that need a conversion."""
    converted = _conversions(table, names, dialect)
    if not converted:
        return rows
    columns: list[Iterable[Any]] = list(zip(*rows, strict=True))
    for place, process in converted:
        columns[place] = map(process, columns[place])
    return list(zip(*columns, strict=True))


@lru_cache(maxsize=STATEMENT_CACHE_SIZE)
def _conversions(table: Table, names: Names, dialect: Dialect) -> list[tuple[int, Processor]]:
    processors = (bind_processor(table.c[name].type, dialect) for name in names)
    return [(place, process) for place, process in enumerate(processors) if process is not None]


def upsert_rows(
    connection: Connection,
    table: Table,
    *,
    key: Sequence[str],
    rows: Sequence[Row],
    add: Sequence[str] = (),
    replace: Sequence[str] = (),
) -> None:
    """Insert `rows`; where one with the same `key` (a unique index) is there, add to and replace some of
    its columns.

    `add` columns grow by the given value, `replace` columns take it, the others keep theirs. No key may
    come twice.
    """
    if not rows:
        return
    names = _columns_of(table, rows)
    ordered = _as_tuples(names, sorted(rows, key=itemgetter(*key)))
    upsert_tuples(connection, table, tuple(key), names, ordered, add=tuple(add), replace=tuple(replace))


def upsert_tuples(
    connection: Connection,
    table: Table,
    key: Names,
    names: Names,
    rows: Sequence[tuple[Any, ...]],
    *,
    add: Names = (),
    replace: Names = (),
) -> None:
    """`upsert_rows` of rows that are in the order of their key, their values in the order of `names`."""
    if connection.dialect.name == "postgresql":
        shape = (table, names, key, add, replace)
        _built(upsert_from_arrays, shape).run(connection, **as_arrays(table, names, rows))
        return
    quote = connection.dialect.identifier_preparer.quote
    changes = [f"{quote(name)} = {quote(table.name)}.{quote(name)} + excluded.{quote(name)}" for name in add]
    changes += [f"{quote(name)} = excluded.{quote(name)}" for name in replace]
    target = ", ".join(quote(name) for name in key)
    action = f"UPDATE SET {', '.join(changes)}" if changes else "NOTHING"
    _sqlite_insert(connection, table, names, rows, f" ON CONFLICT ({target}) DO {action}")


def upsert_from_arrays(
    table: Table, names: Names, key: Names, add: Names, replace: Names, prefix: str = "v_"
) -> Insert:
    """PostgreSQL's upsert of rows that are given as one array a column."""
    statement = insertion_of_arrays(table, names, prefix)
    changes: dict[str, Any] = {name: table.c[name] + statement.excluded[name] for name in add}
    changes |= {name: statement.excluded[name] for name in replace}
    if not changes:
        return statement.on_conflict_do_nothing(index_elements=list(key))
    return statement.on_conflict_do_update(index_elements=list(key), set_=changes)


def update_rows(
    connection: Connection,
    table: Table,
    *,
    key: Sequence[str],
    rows: Sequence[Row],
    match: Sequence[str] = (),
    extra_where: ColumnElement[bool] | None = None,
    returning_keys: bool = True,
) -> set[Any]:
    """Update the rows of `table` named by `key`, each only where its `match` columns equal those given (the
    fence).

    All rows have the same columns, no key comes twice, and columns that are neither key nor match are set;
    `extra_where` may name columns of `table`. Returns the keys of the rows updated, plain values for one
    key column, else tuples in the order of `key`; with `returning_keys=False` nothing is read back and the
    set is empty.
    """
    if not rows:
        return set()
    names = _columns_of(table, rows)
    ordered = sorted(rows, key=itemgetter(*key))
    fence = (table, names, tuple(key), tuple(match))
    tuples = _as_tuples(names, ordered)
    if extra_where is None and not returning_keys:
        _update_unread(connection, fence, tuples)
        return set()
    values = _set_of_rows(connection, table, names, tuples)
    if values is None:
        return _update_one_by_one(connection, _single_update(*fence), ordered, key, extra_where)
    build = update_from_arrays if connection.dialect.name == "postgresql" else _sqlite_update
    found: Iterable[Any] = ()
    if extra_where is None:
        found = _built(build, (*fence, True)).rows(connection, **values)
    else:
        result = connection.execute(build(*fence, returning_keys).where(extra_where), values)
        found = list(result) if returning_keys else ()
    return {row[0] for row in found} if len(key) == 1 else {tuple(row) for row in found}


def update_tuples(
    connection: Connection, table: Table, key: Names, names: Names, rows: Iterable[tuple[Any, ...]]
) -> None:
    """`update_rows` without fence for paths where every microsecond counts: the rows' values in the order of `names`.

    The key's columns come first in `names`, in the order of `key`.
    """
    ordered = sorted(rows, key=itemgetter(*range(len(key))))
    if ordered:
        _update_unread(connection, (table, names, key, ()), ordered)


Fence = tuple[Table, Names, Names, Names]


def _update_unread(connection: Connection, fence: Fence, rows: Sequence[tuple[Any, ...]]) -> None:
    table, names = fence[:2]
    if connection.dialect.name == "postgresql":
        _built(update_from_arrays, (*fence, False)).run(connection, **as_arrays(table, names, rows))
        return
    # Where nobody asks which rows were there, plain values take SQLite half as long as reading them out of JSON.
    spelled = partial(_sqlite_update_sql, *fence, connection.dialect)
    change_all(connection, spelled, _bound(table, names, rows, connection.dialect))


@lru_cache(maxsize=STATEMENT_CACHE_SIZE)
def _sqlite_update_sql(
    table: Table, names: Names, key: Names, match: Names, dialect: Dialect, size: int
) -> str:
    quote = dialect.identifier_preparer.quote
    own = quote(table.name)
    # SQLite names the columns of VALUES so; for one row numbered values are a third of the work.
    value = "v.column{}" if size > 1 else "?{}"
    given = {name: value.format(place) for place, name in enumerate(names, start=1)}
    changes = ", ".join(f"{quote(name)} = {given[name]}" for name in names if name not in key + match)
    found = " AND ".join(f"{own}.{quote(name)} = {given[name]}" for name in key + match)
    source = f" FROM (VALUES {_marks(names, size)}) AS v" if size > 1 else ""
    return f"UPDATE {own} SET {changes}{source} WHERE {found}"  # noqa: S608  quoted names


def _set_of_rows(
    connection: Connection, table: Table, names: Names, rows: Sequence[tuple[Any, ...]]
) -> dict[str, Any] | None:
    if connection.dialect.name == "postgresql":
        return as_arrays(table, names, rows)
    return _json_rows(connection, table, names, rows)


def _update(
    table: Table, names: Names, key: Names, match: Names, value: Callable[[str], ColumnElement[Any]]
) -> Update:
    fence = and_(*(table.c[name] == value(name) for name in key + match))
    return update(table).values({name: value(name) for name in names if name not in key + match}).where(fence)


def _returning(statement: Update, table: Table, key: Names, returning_keys: bool) -> Update:
    return statement.returning(*(table.c[name] for name in key)) if returning_keys else statement


def update_from_arrays(
    table: Table, names: Names, key: Names, match: Names, returning_keys: bool = False, prefix: str = "v_"
) -> Update:
    """PostgreSQL's UPDATE from rows that are given as one array a column."""
    source = _unnested(table, names, prefix)
    return _returning(
        _update(table, names, key, match, lambda name: source.c[name]), table, key, returning_keys
    )


def _sqlite_update(table: Table, names: Names, key: Names, match: Names, returning_keys: bool) -> Update:
    source = func.json_each(bindparam("v_rows", type_=Text())).table_valued("value", name="v")

    def value(name: str) -> ColumnElement[Any]:
        place: ColumnElement[str] = literal_column(f"'$[{names.index(name)}]'")
        return func.json_extract(source.c.value, place, type_=table.c[name].type)

    return _returning(_update(table, names, key, match, value), table, key, returning_keys)


def _single_update(table: Table, names: Names, key: Names, match: Names) -> Update:
    return _update(table, names, key, match, lambda name: bindparam(f"v_{name}", type_=table.c[name].type))


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _json_rows(
    connection: Connection, table: Table, names: Names, rows: Sequence[tuple[Any, ...]]
) -> dict[str, Any] | None:
    """The rows as one JSON parameter, or None for what SQLite's cannot carry: bytes, exact floats, a NUL in a text."""
    if not _fits_json(table, names):
        return None
    try:
        encoded = _encode(_bound(table, names, rows, connection.dialect))
    except TypeError:
        return None
    return None if "\\u0000" in encoded else {"v_rows": encoded}


@lru_cache(maxsize=STATEMENT_CACHE_SIZE)
def _fits_json(table: Table, names: Names) -> bool:
    return not any(isinstance(table.c[name].type, Numeric | LargeBinary) for name in names)


def _update_one_by_one(
    connection: Connection,
    statement: Update,
    rows: Sequence[Row],
    key: Sequence[str],
    extra_where: ColumnElement[bool] | None,
) -> set[Any]:
    if extra_where is not None:
        statement = statement.where(extra_where)
    identity = itemgetter(*key)
    updated: set[Any] = set()
    for row in rows:
        if connection.execute(statement, {f"v_{name}": value for name, value in row.items()}).rowcount:
            updated.add(identity(row))
    return updated
