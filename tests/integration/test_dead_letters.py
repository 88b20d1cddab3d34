"""The operator's verbs on dead letters, while the partition's owner works."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from labkit.consumer import Consumer
from labkit.dead_letters import DeadLetter, Wanted
from labkit.errors import RejectedError
from labkit.reports import ConsumerReport
from tests import toy
from tests.flow import Flow
from tests.toy import Happened, happen
from tests.waiting import until_it_waits

OTHER_CONTENT = """body = replace(body, '"n":1,', '"n":99,')"""
letters = toy.target.dead_letters


def found(flow: Flow, limit: int | None = None, **wanted: Any) -> list[DeadLetter]:
    with flow.target.connect() as connection:
        return letters.find(connection, Wanted(**wanted), limit)


def only(flow: Flow) -> DeadLetter:
    (letter,) = found(flow)
    return letter


def redrive(flow: Flow, position: int) -> None:
    with flow.target.begin() as connection:
        letters.redrive(connection, position)


def discard(flow: Flow, position: int, why: str = "a test") -> None:
    with flow.target.begin() as connection:
        letters.discard(connection, position, who="operator", why=why)


def discarded(flow: Flow) -> list[Any]:
    with flow.target.connect() as connection:
        query = "select * from discarded order by seq"
        return list(connection.execute(text(query)).mappings())


def inbox(flow: Flow) -> list[str]:
    with flow.target.connect() as connection:
        return list(connection.execute(text("select message_id from inbox_messages")).scalars())


def age(flow: Flow, seconds: float) -> None:
    with flow.target.begin() as connection:
        older = "update held set held_at = held_at - make_interval(secs => :s)"
        connection.execute(text(older), {"s": seconds})


@pytest.fixture
def consumer(flow: Flow) -> Consumer:
    """Return the owner: key a has a dead letter and two that wait, b and c have one each."""
    happen(flow.source, "a", 1, behaviour="permanent no")
    happen(flow.source, "a", 2, 3)
    happen(flow.source, "b", 1, behaviour="permanent out of 100% stock")
    happen(flow.source, "c", 1)
    with flow.source.begin() as connection:
        newer = """update outbox_messages set body = replace(body, '"version":1', '"version":9')
                   where key = 'c'"""
        connection.exec_driver_sql(newer)
    made = flow.consumer()
    flow.deliver(made)
    return made


def test_a_dead_letter_shows_what_it_is_and_how_many_wait_behind_it(
    flow: Flow, consumer: Consumer
) -> None:
    (letter,) = found(flow, key="a")

    assert (letter.consumer, letter.stream, letter.blocks) == ("target", toy.SOURCE.name, "a")
    assert (letter.attempts, letter.reason, letter.behind) == (1, "PermanentError: permanent no", 2)
    assert letter.envelope
    assert letter.envelope.message_id == letter.message_id
    assert 0 <= letter.held_s < 60


@pytest.mark.parametrize(
    ("wanted", "keys"),
    [
        ({}, ["a", "b", "c"]),
        ({"consumer": "target"}, ["a", "b", "c"]),
        ({"consumer": "other"}, []),
        ({"key": "b"}, ["b"]),
        ({"event_type": "Happened"}, ["a", "b", "c"]),
        ({"event_type": "Ignored"}, []),
        ({"reason": "100% STOCK"}, ["b"]),
        ({"reason": "1%k"}, []),
        ({"reason": "unknownevent"}, ["c"]),
        ({"held_for_s": 3600}, []),
        ({"limit": 2}, ["a", "b"]),
        ({"limit": 1, "key": "c"}, ["c"]),
    ],
)
def test_dead_letters_are_found_by_what_they_are(
    flow: Flow, consumer: Consumer, wanted: dict[str, Any], keys: list[str]
) -> None:
    assert sorted(letter.blocks or "" for letter in found(flow, **wanted)) == keys


def test_a_healthy_key_flows_and_a_redriven_one_comes_in_order(flow: Flow) -> None:
    (poison,) = happen(flow.source, "k1", 1, behaviour="permanent no")
    happen(flow.source, "k1", 2)
    happen(flow.source, "k2", 1, 2)
    consumer = flow.consumer()
    flow.deliver(consumer)
    assert (flow.effects("k1"), flow.effects("k2")) == ([], [1, 2])
    toy.repaired.add("permanent no")

    redrive(flow, only(flow).position)
    happen(flow.source, "k1", 3)
    flow.deliver(consumer)

    assert (flow.effects("k1"), flow.held()) == ([1, 2, 3], [])
    assert poison in inbox(flow)


def test_the_inbox_does_not_take_a_redriven_message_for_a_duplicate(flow: Flow) -> None:
    """Its failed attempt noted the id, and took the note back with the effect."""
    happen(flow.source, "a", 1, behaviour="permanent no")
    consumer = flow.consumer()
    flow.deliver(consumer)
    toy.repaired.add("permanent no")

    redrive(flow, only(flow).position)

    assert flow.deliver(consumer) == ConsumerReport(handled=1)
    assert flow.effects() == [1]


def test_a_redriven_message_has_all_its_attempts_again(flow: Flow) -> None:
    happen(flow.source, "a", 1, behaviour="fail always")
    consumer = flow.consumer()
    for _ in range(4):
        flow.deliver(consumer)
        flow.clock.advance(60)
    redrive(flow, only(flow).position)

    flow.deliver(consumer)

    assert flow.held() == [("retry", 1, "RuntimeError: fail always")]


def test_redriving_all_takes_what_is_wanted_and_leaves_the_rest(
    flow: Flow, consumer: Consumer
) -> None:
    with flow.target.begin() as connection:
        redriven = letters.redrive_all(connection, Wanted(reason="PermanentError"))

    asked = [letter.blocks or "" for letter in found(flow) if letter.redrive]
    assert (sorted(asked), len(redriven.flagged), redriven.too_old) == (["a", "b"], 2, [])


def test_what_the_inbox_may_have_forgotten_is_refused_and_not_tried(
    flow: Flow, consumer: Consumer
) -> None:
    age(flow, letters.window_s)
    toy.repaired.add("permanent no")

    with pytest.raises(RejectedError, match="longer than the inbox remembers"):
        redrive(flow, found(flow)[0].position)
    with flow.target.begin() as connection:
        redriven = letters.redrive_all(connection, Wanted())

    assert (redriven.flagged, len(redriven.too_old)) == ([], 3)
    assert (flow.deliver(consumer), flow.effects()) == (ConsumerReport(), [])


def test_what_the_inbox_still_remembers_is_redriven(flow: Flow, consumer: Consumer) -> None:
    age(flow, letters.window_s - 60)

    redrive(flow, found(flow)[0].position)

    assert found(flow)[0].redrive


def test_after_a_discard_the_key_goes_on_in_order_without_it(
    flow: Flow, consumer: Consumer
) -> None:
    discard(flow, found(flow, key="a")[0].position)
    happen(flow.source, "a", 4)

    flow.deliver(consumer)

    assert flow.effects("a") == [2, 3, 4]


def test_a_discard_in_a_long_line_frees_it_a_batch_at_a_time(flow: Flow) -> None:
    happen(flow.source, "a", 0, behaviour="permanent no")
    happen(flow.source, "a", *range(1, 8))
    consumer = flow.consumer(batch=3)
    flow.deliver(consumer)

    discard(flow, only(flow).position)

    assert [consumer.run_once().handled for _ in range(4)] == [3, 3, 1, 0]
    assert flow.effects("a") == list(range(1, 8))


def test_a_discard_keeps_the_whole_message_and_who_decided_why(
    flow: Flow, consumer: Consumer
) -> None:
    letter = found(flow, key="a")[0]

    discard(flow, letter.position, why="sent by mistake\0\ud800")

    (row,) = discarded(flow)
    assert (row["body"], row["reason"], row["held_at"]) == (
        letter.body,
        letter.reason,
        letter.held_at,
    )
    assert (row["message_id"], row["key"], row["position"]) == (
        letter.message_id,
        "a",
        letter.position,
    )
    assert (row["discarded_by"], row["why"]) == ("operator", "sent by mistake\\0\\ud800")
    assert found(flow, key="a") == []


@pytest.mark.parametrize(("who", "why"), [("", "because"), ("operator", " ")])
def test_a_discard_without_a_name_or_a_reason_is_refused(
    flow: Flow, consumer: Consumer, who: str, why: str
) -> None:
    position = found(flow)[0].position

    with flow.target.begin() as connection, pytest.raises(RejectedError, match="who discards"):
        letters.discard(connection, position, who=who, why=why)

    assert (len(found(flow)), discarded(flow)) == (3, [])


def test_a_discard_that_is_rolled_back_changes_nothing(flow: Flow, consumer: Consumer) -> None:
    with flow.target.connect() as connection:
        position = found(flow)[0].position
        letters.discard(connection, position, who="operator", why="a test")

    assert (len(found(flow)), discarded(flow), inbox(flow)) == (3, [], [])


def test_a_discarded_message_that_comes_again_is_a_duplicate(flow: Flow) -> None:
    happen(flow.source, "a", 1, behaviour="permanent no")
    consumer = flow.consumer()
    flow.deliver(consumer)
    discard(flow, only(flow).position)
    toy.repaired.add("permanent no")
    happen(flow.source, "a", 2)
    flow.publish_again()

    flow.deliver(consumer)

    assert (flow.effects("a"), flow.held()) == ([2], [])


def test_a_discarded_message_that_was_left_pending_is_not_handled_after_all(flow: Flow) -> None:
    happen(flow.source, "a", 1, behaviour="permanent no")
    flow.deliver(flow.consumer(owner="one"))
    discard(flow, only(flow).position)
    toy.repaired.add("permanent no")
    flow.expire_leases()
    flow.publish_again()
    flow.read_and_crash("a")

    flow.deliver(flow.consumer(owner="two"))

    assert (flow.effects(), flow.held(), flow.pending()) == ([], [], 0)


def test_a_message_that_nobody_can_read_yet_stays_discarded_when_it_can_be(
    flow: Flow, consumer: Consumer
) -> None:
    (letter,) = found(flow, key="c")

    discard(flow, letter.position)
    flow.publish_again()
    flow.deliver(consumer)

    assert found(flow, key="c") == []


def test_discarding_the_other_content_of_an_id_leaves_the_first_one_handled(flow: Flow) -> None:
    happen(flow.source, "a", 1)
    consumer = flow.consumer()
    flow.deliver(consumer)
    flow.publish_again(OTHER_CONTENT)
    flow.deliver(consumer)
    discard(flow, only(flow).position)

    flow.publish_again("""body = replace(body, '"n":99,', '"n":1,')""")

    assert flow.deliver(consumer) == ConsumerReport(duplicates=1)
    assert flow.effects() == [1]


def test_the_other_content_of_a_discarded_id_is_seen_and_not_handled(flow: Flow) -> None:
    happen(flow.source, "a", 1, behaviour="permanent no")
    consumer = flow.consumer()
    flow.deliver(consumer)
    flow.publish_again(OTHER_CONTENT)
    flow.deliver(consumer)
    first = only(flow)
    assert first.behind == 1

    discard(flow, first.position)
    toy.repaired.add("permanent no")
    happen(flow.source, "a", 2)
    flow.deliver(consumer)

    assert (flow.effects("a"), only(flow).reason.split(":")[0]) == ([2], "PayloadMismatchError")
    assert only(flow).message_id == first.message_id


def test_discarding_bytes_that_are_no_message_notes_no_id(flow: Flow) -> None:
    """A stranger may send a message whose id is the name that they were given."""
    stream = flow.transport.stream_key(toy.SOURCE, toy.SOURCE.partition_of("a"))
    flow.transport.client.xadd(stream, {"hello": "world"}, id="5-0")
    consumer = flow.consumer()
    flow.deliver(consumer)
    name = only(flow).message_id
    discard(flow, only(flow).position)
    with Session(flow.source) as session, session.begin():
        toy.source.outbox.add(session, Happened(key="a", n=1), key="a", message_id=name)

    assert flow.deliver(consumer) == ConsumerReport(handled=1)


def test_two_contents_of_one_id_are_told_apart_by_position(flow: Flow) -> None:
    happen(flow.source, "a", 1)
    consumer = flow.consumer()
    for other in (98, 99):
        flow.deliver(consumer)
        flow.publish_again(f"""body = regexp_replace(body, '"n":[0-9]+', '"n":{other}')""")
    flow.deliver(consumer)
    first, second = found(flow)

    with flow.target.connect() as connection:
        with pytest.raises(RejectedError, match=f"{first.position} .*{second.position} "):
            letters.one(connection, first.message_id)
        assert letters.one(connection, position=second.position).body == second.body
    discard(flow, first.position)

    assert only(flow).body == second.body


@pytest.mark.parametrize("act", [redrive, discard])
def test_what_is_no_dead_letter_is_refused(flow: Flow, consumer: Consumer, act: Any) -> None:
    waiting = found(flow, key="a")[0].position + 1

    for position in (waiting, 10**9):
        with pytest.raises(RejectedError, match="no dead letter at position"):
            act(flow, position)


def test_a_dead_letter_cannot_be_discarded_or_redriven_while_it_is_tried(flow: Flow) -> None:
    happen(flow.source, "a", 1, behaviour="permanent no")
    consumer, refused = flow.consumer(), list[str]()
    flow.deliver(consumer)
    position = only(flow).position

    def try_both(_session: Session) -> None:
        for act in (redrive, discard):
            with pytest.raises(RejectedError, match="being tried right now") as error:
                act(flow, position)
            refused.append(str(error))

    toy.hooks["permanent no"] = try_both
    redrive(flow, position)

    assert flow.deliver(consumer).handled == 1
    assert (flow.effects(), len(refused), discarded(flow)) == ([1], 2, [])


def test_a_dead_letter_that_is_discarded_just_before_its_turn_is_not_tried(flow: Flow) -> None:
    names = [f"k{n}" for n in range(20)]
    one, other = [k for k in names if toy.SOURCE.partition_of(k) == 0][:2]
    happen(flow.source, one, 1, behaviour="permanent first")
    happen(flow.source, other, 1, behaviour="permanent second")
    happen(flow.source, other, 2)
    consumer = flow.consumer()
    flow.deliver(consumer)
    first, second = found(flow)
    toy.hooks["permanent first"] = lambda _session: discard(flow, second.position)
    toy.repaired.add("permanent second")
    for letter in (first, second):
        redrive(flow, letter.position)

    flow.deliver(consumer)

    assert (flow.effects(one), flow.effects(other)) == ([1], [2])
    assert (len(discarded(flow)), flow.held()) == (1, [])


def test_of_a_redrive_and_a_discard_at_once_the_second_finds_what_the_first_left(
    flow: Flow, consumer: Consumer
) -> None:
    position = found(flow)[0].position
    with ThreadPoolExecutor() as pool, flow.target.begin() as connection:
        letters.discard(connection, position, who="operator", why="a test")
        late = pool.submit(redrive, flow, position)
        until_it_waits(flow.target, late)
        connection.commit()

        with pytest.raises(RejectedError, match="no dead letter"):
            late.result()


def test_a_key_that_was_freed_by_a_discard_is_not_taken_for_blocked_for_ever(flow: Flow) -> None:
    happen(flow.source, "a", 1, behaviour="permanent no")
    consumer = flow.consumer()
    flow.deliver(consumer)
    discard(flow, only(flow).position)
    flow.clock.advance(2.5)

    consumer.run_once()

    assert consumer._lanes.blocked[flow.lease(consumer, "a")] == set()
