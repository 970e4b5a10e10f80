"""Random statements over a few small tables, from a seed.

Tables stand in a statement as `{name}`. Every statement has one answer: integers, texts and dates only, no
order that is not total where it decides which rows there are. Tables hold NULLs, doubles of values, and
values that are in one table alone.
"""

from __future__ import annotations

import random

TABLES = {
    "ducks": 300,
    "ponds": 40,
    "visits": 2000,
    "nobody": 0,
}
# All tables have the same columns, so that any may stand anywhere.
COLUMNS = {"id": "int", "pond": "int", "weight": "int", "name": "text", "born": "date"}


def contents(table: str) -> str:
    """The query that makes a table's rows: the same for everybody."""
    rows, salt = TABLES[table], sorted(TABLES).index(table)
    return (
        f"SELECT i AS id, "
        f"CASE WHEN hash(i, {salt}) % 7 > 0 THEN (hash(i, {salt + 10}) % 50)::INTEGER END AS pond, "
        f"CASE WHEN hash(i, {salt + 20}) % 11 > 0 THEN (hash(i, {salt + 30}) % 1000)::INTEGER - 500 END "
        f"AS weight, "
        f"CASE WHEN hash(i, {salt + 40}) % 9 > 0 THEN 'duck ' || (hash(i, {salt + 50}) % 30) END AS name, "
        f"DATE '2020-01-01' + (hash(i, {salt + 60}) % 700)::INTEGER AS born "
        f"FROM range({rows}) AS r(n), LATERAL (SELECT n::INTEGER) AS l(i)"
    )


class Grammar:
    """A source of statements."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._number = 0

    def query(self) -> str:
        """A query."""
        kind = self._chance.random()
        if kind < 0.15:
            operator = self._chance.choice(("UNION", "UNION ALL", "INTERSECT", "EXCEPT", "EXCEPT ALL"))
            one, other = self._source("a"), self._source("b")
            return f"SELECT id, name FROM {one} {operator} SELECT id, name FROM {other}"
        if kind < 0.25:
            inner = self._plain(3)
            outer = "SELECT count(*), min(x.v0), max(y.v1) FROM c AS x JOIN c AS y ON x.v0 = y.v0"
            return f"WITH c AS ({inner}) {outer}"
        if kind < 0.35:
            return self._window()
        if kind < 0.65:
            return self._aggregate()
        return self._plain(self._chance.randint(1, 5))

    def change(self) -> str:
        """A statement that changes a table."""
        target, other = self._table(), self._table()
        kind = self._chance.randrange(6)
        if kind == 0:
            where = self._condition("a", 1)
            return f"INSERT INTO {target} SELECT a.* FROM {other} AS a WHERE {where}"
        if kind == 1:
            return f"DELETE FROM {target} WHERE id % {self._chance.randint(2, 9)} = 0"
        if kind == 2:
            low = self._chance.randint(0, 300)
            return f"UPDATE {target} SET weight = weight + id, name = upper(name) WHERE id > {low}"
        if kind == 3:
            heavy = f"SELECT pond FROM {other} WHERE weight > 300"
            return f"UPDATE {target} SET name = 'seen' WHERE pond IN ({heavy})"
        if kind == 4:
            light = f"SELECT 1 FROM {other} AS o WHERE o.id = t.id AND o.weight < -300"
            return f"DELETE FROM {target} AS t WHERE EXISTS ({light})"
        number = self._chance.randint(-99, 99)
        return f"INSERT INTO {target} VALUES ({number}, NULL, {number}, 'new', DATE '2021-03-04')"

    def _plain(self, columns: int) -> str:
        values = ", ".join(f"{self._value(self._alias())} AS v{number}" for number in range(columns))
        sql = f"SELECT {values}{self._from()}"
        if self._chance.random() < 0.3:
            sql = sql.replace("SELECT ", "SELECT DISTINCT ", 1)
        if self._chance.random() < 0.4:
            order = ", ".join(f"{number + 1} {self._direction()}" for number in range(columns))
            # Rows that are equal in all columns are the same row.
            sql += f" ORDER BY {order}"
            if self._chance.random() < 0.7:
                sql += f" LIMIT {self._chance.randint(0, 50)}"
                if self._chance.random() < 0.4:
                    sql += f" OFFSET {self._chance.randint(0, 20)}"
        return sql

    def _aggregate(self) -> str:
        function = self._chance.choice(
            (
                "count(*)",
                "count(b.weight)",
                "sum(a.weight)",
                "min(b.name)",
                "max(a.born)",
                "count(DISTINCT b.pond)",
            )
        )
        filtered = f" FILTER ({self._condition('a', 1)})" if self._chance.random() < 0.3 else ""
        keys = self._chance.sample(
            ("a.pond", "b.name", "year(a.born)", "a.id % 5"), self._chance.randint(0, 2)
        )
        grouped = f" GROUP BY {', '.join(keys)}" if keys else ""
        if grouped and self._chance.random() < 0.3:
            grouped += " HAVING count(*) > 2"
        if keys and self._chance.random() < 0.2:
            grouped = f" GROUP BY ROLLUP ({', '.join(keys)})"
        values = ", ".join([*keys, f"{function}{filtered} AS f"])
        return f"SELECT {values}{self._from()}{grouped}"

    def _window(self) -> str:
        function = self._chance.choice(("row_number()", "rank()", "lag(a.weight)", "sum(a.weight)"))
        source = self._source("a")
        order = f"a.weight {self._direction()}, a.id"
        where = self._condition("a", 2)
        window = f"{function} OVER (PARTITION BY a.pond ORDER BY {order}) AS w"
        return f"SELECT a.id, {window} FROM {source} WHERE {where}"

    def _from(self) -> str:
        """A join of `a` and `b`, and a condition."""
        kind = self._chance.choice(("JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "SEMI"))
        on = self._chance.choice(("a.id = b.id", "a.pond = b.id", "a.pond = b.pond AND a.id < b.id"))
        source, other = self._source("a"), self._source("b")
        if kind == "SEMI":
            # Both names stay in scope.
            some = f"(SELECT id, pond FROM {self._table()})"
            negation = self._chance.choice(("", "NOT "))
            join = f"{source} JOIN {other} ON {on}"
            return f" FROM {join} WHERE {negation}EXISTS (SELECT 1 FROM {some} AS s WHERE s.id = a.pond)"
        return f" FROM {source} {kind} {other} ON {on} WHERE {self._condition(self._alias(), 2)}"

    def _source(self, alias: str) -> str:
        if self._chance.random() < 0.75:
            return f"{self._table()} AS {alias}"
        inner = f"SELECT * FROM {self._table()} AS {alias} WHERE {self._condition(alias, 1)}"
        return f"({inner}) AS {alias}"

    def _condition(self, alias: str, depth: int) -> str:
        if depth > 0 and self._chance.random() < 0.4:
            word = self._chance.choice(("AND", "OR"))
            return f"({self._condition(alias, depth - 1)} {word} {self._condition(alias, depth - 1)})"
        number = self._chance.randint(-500, 500)
        choices = [
            f"{alias}.weight > {number}",
            f"{alias}.weight BETWEEN {number} AND {number + 200}",
            f"{alias}.name LIKE 'duck 1%'",
            f"{alias}.name IS NULL",
            f"{alias}.pond IN ({abs(number) % 50}, {abs(number) % 40}, 7)",
            f"{alias}.born >= DATE '2020-06-01'",
            f"NOT ({alias}.pond = {abs(number) % 50})",
            f"{alias}.weight IS DISTINCT FROM {number}",
            f"{alias}.pond IN (SELECT id FROM {self._table()} WHERE weight < {number})",
            f"{alias}.weight > (SELECT min(weight) FROM {self._table()} WHERE pond = {alias}.pond)",
            "true",
        ]
        return self._chance.choice(choices)

    def _value(self, alias: str) -> str:
        return self._chance.choice(
            (
                f"{alias}.id",
                f"{alias}.pond",
                f"{alias}.weight * 2",
                f"upper({alias}.name)",
                f"coalesce({alias}.name, 'none')",
                f"{alias}.born",
                f"CASE WHEN {alias}.weight > 0 THEN 'heavy' ELSE {alias}.name END",
                f"{alias}.weight // 7",
                f"{alias}.weight % 7",
                f"strftime({alias}.born, '%Y-%m')",
                f"length({alias}.name)",
                f"({alias}.id, {alias}.name)",
                f"[{alias}.pond, {alias}.id]",
            )
        )

    def _alias(self) -> str:
        return self._chance.choice("ab")

    def _direction(self) -> str:
        return self._chance.choice(("", "DESC", "NULLS FIRST", "DESC NULLS LAST"))

    def _table(self) -> str:
        weights = {"ducks": 4, "ponds": 3, "visits": 2, "nobody": 1}
        return "{" + self._chance.choices(list(weights), list(weights.values()))[0] + "}"
