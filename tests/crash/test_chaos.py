"""Chaos by a seed: the strikes are repeatable, each of them is real, and nothing breaks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from rich.console import Console
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from labkit import crash
from labkit.lab.processes import children
from labkit.testing.chaos import FAULTS, Chaos
from labkit.testing.strikes import KINDS, Strike, end_s, plan
from labkit.testing.victims import Servers, _family

LEASE_S = 1.0


@pytest.mark.parametrize("seed", [1, 2, 99])
def test_a_seed_decides_every_strike(seed: int) -> None:
    assert plan(seed, 60, LEASE_S) == plan(seed, 60, LEASE_S)
    assert plan(seed, 60, LEASE_S) != plan(seed + 1, 60, LEASE_S)


@pytest.mark.parametrize("duration_s", [1, 10, 12, 60])
@pytest.mark.parametrize("seed", range(20))
def test_however_short_a_run_strikes_in_every_way(seed: int, duration_s: float) -> None:
    strikes = plan(seed, duration_s, LEASE_S)

    assert {(strike.kind, strike.action) for strike in strikes} == set(KINDS)
    assert [strike.at_s for strike in strikes] == sorted(strike.at_s for strike in strikes)
    assert end_s(strikes) >= strikes[-1].at_s


@pytest.mark.parametrize("seed", range(20))
def test_a_victim_is_healed_before_it_is_struck_again(seed: int) -> None:
    healed_s: dict[str, float] = {}
    for strike in plan(seed, 60, LEASE_S):
        assert strike.at_s > healed_s.get(strike.victim, -1)
        healed_s[strike.victim] = strike.at_s + strike.lasts_s


@pytest.mark.parametrize("seed", range(20))
def test_what_is_frozen_stays_so_beyond_its_lease(seed: int) -> None:
    frozen = [strike for strike in plan(seed, 60, LEASE_S) if strike.action == "freeze"]

    assert min(strike.lasts_s for strike in frozen) > LEASE_S


def test_every_crash_point_of_a_worker_is_among_the_faults() -> None:
    # Nobody rebuilds a projection during the run.
    assert crash.parse(FAULTS).keys() == crash.POINTS - {"rebuild.before_swap"}


@pytest.fixture(scope="module")
def servers_of_our_own() -> Iterator[Servers]:
    with tempfile.TemporaryDirectory(prefix="labkit-chaos-") as home:
        made = Servers(Path(home))
        yield made
        made.end()


@pytest.fixture
def engine(servers_of_our_own: Servers) -> Iterator[Engine]:
    made = create_engine(
        servers_of_our_own.stack.database_url, connect_args={"options": "-c statement_timeout=9s"}
    )
    yield made
    made.dispose()


@pytest.fixture
def valkey(servers_of_our_own: Servers) -> Iterator[redis.Redis]:
    made = redis.Redis.from_url(servers_of_our_own.stack.redis_url, socket_timeout=0.5, retry=None)
    yield made
    made.close()


def heal(servers: Servers, name: str) -> None:
    servers.heal(name)
    servers.wait_until_healed()


def test_a_killed_postgres_leaves_no_process_and_recovers_what_was_committed(
    servers_of_our_own: Servers, engine: Engine
) -> None:
    with engine.begin() as connection:
        connection.execute(text("create table kept as select 1 as n"))
    before = _family(servers_of_our_own._named["postgres"])

    servers_of_our_own.strike("postgres", "kill")
    assert len(before) > 1
    assert not [process for process in before if process.is_alive()]
    heal(servers_of_our_own, "postgres")

    engine.dispose()
    with engine.connect() as connection:
        assert connection.execute(text("select n from kept")).scalar() == 1


def test_after_a_crash_a_transaction_number_may_tell_of_another_transaction(
    servers_of_our_own: Servers, engine: Engine
) -> None:
    """Why `CommitUnknownError` asks to look for what was written."""
    told = [fate_of_a_lost_transaction(servers_of_our_own, engine) for _ in range(3)]

    assert ("committed", 0) in told


def fate_of_a_lost_transaction(servers: Servers, engine: Engine) -> tuple[str, int]:
    """Crash before COMMIT; return what its number says afterwards, and how many rows it left."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # Or its log might be on disk before we strike, and its number would be known.
        connection.execute(text("alter system set wal_writer_delay = '10s'"))
        connection.execute(text("select pg_reload_conf()"))
        connection.execute(text("create table if not exists lost (n int)"))
    begun = engine.connect()
    begun.execute(text("insert into lost values (1)"))
    xid = int(begun.execute(text("select pg_current_xact_id()::text")).scalar_one())
    servers.strike("postgres", "kill")
    heal(servers, "postgres")
    begun.invalidate()
    begun.close()
    engine.dispose()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as others:
        while int(others.execute(text("select pg_current_xact_id()::text")).scalar_one()) <= xid:
            pass
        said = others.execute(text(f"select pg_xact_status('{xid}')")).scalar_one()
        return said, others.execute(text("select count(*) from lost")).scalar_one()


def test_a_frozen_postgres_is_silent_until_it_is_woken(
    servers_of_our_own: Servers, engine: Engine
) -> None:
    url = servers_of_our_own.stack.database_url.replace("+psycopg", "")

    servers_of_our_own.strike("postgres", "freeze")
    frozen = _family(servers_of_our_own._named["postgres"])
    with pytest.raises(psycopg.OperationalError, match="timeout"):
        psycopg.connect(url, connect_timeout=2)
    heal(servers_of_our_own, "postgres")

    assert all(process.is_stopped for process in frozen)
    with engine.connect() as connection:
        assert connection.execute(text("select 1")).scalar() == 1


def test_cut_connections_are_gone_and_new_ones_are_welcome(
    servers_of_our_own: Servers, engine: Engine, valkey: redis.Redis
) -> None:
    valkey.ping()
    with engine.connect() as connection:
        connection.execute(text("select 1"))
        for name in ("postgres", "valkey"):
            servers_of_our_own.strike(name, "cut")

        with pytest.raises(DBAPIError, match="terminating connection"):
            connection.execute(text("select 1"))
    assert valkey.ping()


def test_a_killed_valkey_loses_its_last_second_and_keeps_the_rest(
    servers_of_our_own: Servers, valkey: redis.Redis
) -> None:
    valkey.set("old", "1")
    servers_of_our_own.sample()
    valkey.set("new", "1")

    servers_of_our_own.strike("valkey", "kill")
    heal(servers_of_our_own, "valkey")

    assert (valkey.get("old"), valkey.get("new")) == (b"1", None)


def test_an_emptied_valkey_comes_back_with_nothing(
    servers_of_our_own: Servers, valkey: redis.Redis
) -> None:
    valkey.set("old", "1")

    servers_of_our_own.strike("valkey", "empty")
    heal(servers_of_our_own, "valkey")

    assert valkey.dbsize() == 0


def test_only_our_own_children_are_in_the_family(servers_of_our_own: Servers) -> None:
    first, *others = _family(servers_of_our_own._named["postgres"])

    assert others
    assert {child.parent for child in others} == {first.pid}
    assert {child.pid for child in children(first)} == {child.pid for child in others}


@pytest.mark.slow
def test_ten_seconds_of_chaos_break_nothing() -> None:
    run = Chaos(7, 10.0, Console(quiet=True))

    result = run.run()

    assert {name: why for name, why in result.invariants.items() if why} == {}
    assert {name.split()[1] for name in result.struck} == {"kill", "freeze", "cut", "empty"}
    assert result.struck == {f"{kind} {action}": 1 for kind, action in sorted(KINDS)}
    assert result.orders > 0
    assert result.published >= result.events


def test_a_strike_is_a_fact_that_can_be_printed_and_compared() -> None:
    strike = plan(7, 10, LEASE_S)[0]

    assert Strike(**vars(strike)) == strike
