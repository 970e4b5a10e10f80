"""The database of the demonstration: a shop's orders, and accounts that send money around.

It is made so that any state of it can be judged alone: the ledger's entries are numbered without
gaps, so their count is also the number of the newest transfer; and each account's balance is what
it began with and what the ledger says it got and gave.
"""

from dataclasses import dataclass

ORDERS = 3_000_000
ACCOUNTS = 1_000

MAKE = (
    f"""CREATE TABLE orders AS
        SELECT i AS id, DATE '2020-01-01' + CAST(i % 2000 AS INTEGER) AS day,
               'customer-' || (hash(i) % 50000) AS customer,
               (hash(i * 7) % 100000) / 100.0 AS price
        FROM range({ORDERS}) AS r(i)""",
    f"CREATE TABLE account AS SELECT i AS id, 1000 AS balance FROM range({ACCOUNTS}) AS r(i)",
    "CREATE TABLE ledger (transfer BIGINT, debtor BIGINT, creditor BIGINT, amount BIGINT)",
    "CHECKPOINT",
)

JUDGE = """
    WITH flow AS (
        SELECT creditor AS id, amount FROM ledger UNION ALL SELECT debtor, -amount FROM ledger
    ), due AS (
        SELECT account.id, any_value(balance) AS balance, 1000 + coalesce(sum(amount), 0) AS due
        FROM account LEFT JOIN flow USING (id) GROUP BY account.id
    )
    SELECT (SELECT count(DISTINCT transfer) FROM ledger),
           (SELECT coalesce(max(transfer), 0) FROM ledger),
           (SELECT count(*) FROM due WHERE balance <> due),
           (SELECT count(*) FROM orders)"""


@dataclass(frozen=True)
class State:
    """What `JUDGE` found."""

    transfers: int
    newest: int
    wrong_accounts: int
    orders: int

    def is_whole(self) -> bool:
        """No gap in the ledger, no account that disagrees with it, all orders there."""
        return self.transfers == self.newest and self.wrong_accounts == 0 and self.orders == ORDERS
