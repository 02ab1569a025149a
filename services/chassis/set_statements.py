"""Statements over whole sets of rows, spelled once for SQLite and PostgreSQL.

Every function here issues a fixed number of statements however many rows it is given, and each statement
has the same text whatever the number of rows, so that both SQLAlchemy's and the server's caches of
statements keep working.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, Self, cast

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    CursorResult,
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

from services.chassis.errors import Kind, ServiceError

Row = Mapping[str, Any]

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
        if value is None or dialect.name == "postgresql":
            return value
        return _encode(value)


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


class _DatabaseNowMs(FunctionElement[int]):
    name = "database_now_ms"
    type = BigInteger()
    inherit_cache = True


@compiles(_DatabaseNowMs, "sqlite")
def _now_on_sqlite(_element: _DatabaseNowMs, _compiler: SQLCompiler, **_options: Any) -> str:
    # Integer arithmetic: julianday() is a float and is off by a millisecond now and then.
    return (
        "(CAST(strftime('%s', 'now') AS INTEGER) * 1000 + CAST(substr(strftime('%f', 'now'), 4) AS INTEGER))"
    )


@compiles(_DatabaseNowMs, "postgresql")
def _now_on_postgresql(_element: _DatabaseNowMs, _compiler: SQLCompiler, **_options: Any) -> str:
    # statement_timestamp() is STABLE, so a comparison with it may use an index; clock_timestamp() may not.
    return "CAST(floor(extract(epoch FROM statement_timestamp()) * 1000) AS BIGINT)"


def database_now_ms() -> ColumnElement[int]:
    """The engine's own clock at the start of the statement, in milliseconds since the epoch (UTC)."""
    return _DatabaseNowMs()


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


Processor = Callable[[Any], Any]


def _processor(column_type: TypeEngine[Any], dialect: Dialect) -> Processor | None:
    return cast("Processor | None", column_type.dialect_impl(dialect).bind_processor(dialect))


class _Prepared:
    """A statement in the driver's own words: building and keying a Core expression costs more than running
    it.
    """

    def __init__(self, statement: Insert | Update, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        if not isinstance(compiled, SQLCompiler):
            raise TypeError(f"{statement} has no SQL")
        self.sql = str(compiled)
        self._parameters = [
            (name, _processor(compiled.binds[name].type, dialect)) for name in compiled.positiontup or ()
        ]

    def run(self, connection: Connection, values: Mapping[str, Any]) -> CursorResult[Any]:
        return connection.exec_driver_sql(
            self.sql,
            tuple(
                values[name] if process is None else process(values[name])
                for name, process in self._parameters
            ),
        )


Shape = tuple[Any, ...]


@lru_cache(maxsize=STATEMENT_CACHE_SIZE)
def _prepared(build: Callable[..., Insert | Update], shape: Shape, dialect: Dialect) -> _Prepared:
    return _Prepared(build(*shape), dialect)


def _arrays(rows: Sequence[Row], names: Sequence[str]) -> dict[str, list[Any]]:
    return {f"v_{name}": [row[name] for row in rows] for name in names}


def _unnested(table: Table, names: Sequence[str]) -> TableValuedAlias:
    arrays = [
        bindparam(f"v_{name}", type_=postgresql.ARRAY(_array_item_type(table.c[name].type))) for name in names
    ]
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
    if connection.dialect.name == "postgresql":
        prepared = _prepared(_postgres_insert, (table, names, ignore_conflicts), connection.dialect)
        return prepared.run(connection, _arrays(rows, names)).rowcount
    suffix = " ON CONFLICT DO NOTHING" if ignore_conflicts else ""
    return _sqlite_insert(connection, table, names, rows, suffix)


def _postgres_insert(table: Table, names: tuple[str, ...], ignore_conflicts: bool) -> Insert:
    statement = _insert_from_arrays(table, names)
    return statement.on_conflict_do_nothing() if ignore_conflicts else statement


def _insert_from_arrays(table: Table, names: tuple[str, ...]) -> postgresql.Insert:
    source = _unnested(table, names)
    values = select(*(source.c[name] for name in names))
    return postgresql.insert(table).from_select(list(names), values, include_defaults=False)


def _sqlite_insert(
    connection: Connection, table: Table, names: tuple[str, ...], rows: Sequence[Row], suffix: str
) -> int:
    sql = _sqlite_insert_sql(table, names, suffix, connection.dialect)
    return connection.exec_driver_sql(sql, _tuples(table, names, rows, connection.dialect)).rowcount


@lru_cache(maxsize=STATEMENT_CACHE_SIZE)
def _sqlite_insert_sql(table: Table, names: tuple[str, ...], suffix: str, dialect: Dialect) -> str:
    quote = dialect.identifier_preparer.quote
    columns = ", ".join(quote(name) for name in names)
    marks = ", ".join("?" * len(names))
    return f"INSERT INTO {quote(table.name)} ({columns}) VALUES ({marks}){suffix}"  # noqa: S608  quoted names


def _tuples(
    table: Table, names: tuple[str, ...], rows: Sequence[Row], dialect: Dialect
) -> list[tuple[Any, ...]]:
    columns: list[Iterable[Any]] = []
    for name in names:
        process = _processor(table.c[name].type, dialect)
        values = [row[name] for row in rows]
        columns.append(values if process is None else map(process, values))
    return list(zip(*columns, strict=True))


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
    ordered = sorted(rows, key=itemgetter(*key))
    if connection.dialect.name == "postgresql":
        shape = (table, names, tuple(key), tuple(add), tuple(replace))
        _prepared(_postgres_upsert, shape, connection.dialect).run(connection, _arrays(ordered, names))
        return
    quote = connection.dialect.identifier_preparer.quote
    changes = [f"{quote(name)} = {quote(table.name)}.{quote(name)} + excluded.{quote(name)}" for name in add]
    changes += [f"{quote(name)} = excluded.{quote(name)}" for name in replace]
    target = ", ".join(quote(name) for name in key)
    action = f"UPDATE SET {', '.join(changes)}" if changes else "NOTHING"
    _sqlite_insert(connection, table, names, ordered, f" ON CONFLICT ({target}) DO {action}")


def _postgres_upsert(
    table: Table, names: tuple[str, ...], key: tuple[str, ...], add: tuple[str, ...], replace: tuple[str, ...]
) -> Insert:
    statement = _insert_from_arrays(table, names)
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
    build: Callable[..., Update] = _postgres_update
    values: Mapping[str, Any] | None
    if connection.dialect.name == "postgresql":
        values = _arrays(ordered, names)
    else:
        build, values = _sqlite_update, _json_rows(connection, table, names, ordered)
    if values is None:
        return _update_one_by_one(connection, _single_update(*fence), ordered, key, extra_where)
    if extra_where is None:
        found = _prepared(build, (*fence, returning_keys), connection.dialect).run(connection, values)
    else:
        found = connection.execute(build(*fence, returning_keys).where(extra_where), values)
    if not returning_keys:
        return set()
    return set(found.scalars()) if len(key) == 1 else {tuple(row) for row in found}


Names = tuple[str, ...]


def _update(
    table: Table, names: Names, key: Names, match: Names, value: Callable[[str], ColumnElement[Any]]
) -> Update:
    fence = and_(*(table.c[name] == value(name) for name in key + match))
    return update(table).values({name: value(name) for name in names if name not in key + match}).where(fence)


def _returning(statement: Update, table: Table, key: Names, returning_keys: bool) -> Update:
    return statement.returning(*(table.c[name] for name in key)) if returning_keys else statement


def _postgres_update(table: Table, names: Names, key: Names, match: Names, returning_keys: bool) -> Update:
    source = _unnested(table, names)
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
    connection: Connection, table: Table, names: Names, rows: Sequence[Row]
) -> dict[str, Any] | None:
    """The rows as one JSON parameter, or None for what SQLite's JSON cannot carry: bytes, exact floats, a
    NUL in a text.
    """
    if any(isinstance(table.c[name].type, Numeric | LargeBinary) for name in names):
        return None
    try:
        encoded = _encode(_tuples(table, names, rows, connection.dialect))
    except TypeError:
        return None
    return None if "\\u0000" in encoded else {"v_rows": encoded}


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
