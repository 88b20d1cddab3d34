"""Process manager: decides what comes next, from what it remembers and what it hears.

| | saga | process manager |
|---|---|---|
| its course | a list of steps, the same each time | decided in code, with branches |
| begins | with its first step | when somebody starts it, under an id |
| waits | for the answer to its step | for several things, each with a deadline of its own |
| ends | COMPLETED or COMPENSATED | with a result that you name |

If a flow needs an `if` to choose its course, it is a process manager.

    manager = ProcessManager("trip", service, data=Trip)

    @manager.on_start
    def begin(process: Process[Trip]) -> Next:
        return Next(state="asking", send=[RoomAsked(...)], deadlines={"hotel": 3600.0})

    @manager.on(RoomGiven, source=HOTEL, when=["asking"])
    def room(process: Process[Trip], event: RoomGiven) -> Next:
        return Next(end="BOOKED")

    @manager.on_deadline("hotel")
    def silent(process: Process[Trip]) -> Next:
        return Next(end="NO_ROOM")

    manager.start(session, "TRIP-1", Trip(...))

Guarantee: state, data, history, deadlines and messages of a process commit together with what
caused them, or not at all. What comes twice, late, or when it makes no sense changes nothing and
is in the history. A deadline fires also after every process was stopped for as long as you like.
Not guaranteed: that anything is made good. What a process gives up, your code takes back.

Rows and history are those of `labkit.saga`, and so is the worker: `labkit.saga.deadlines`.

Crash windows: those of `labkit.consumer`; a process manager does nothing outside its transaction.

Pattern: Hohpe and Woolf, *Enterprise Integration Patterns*: "Process Manager"; Khononov,
*Learning Domain-Driven Design*, ch. 9; Vernon, *Implementing Domain-Driven Design*, ch. 13.
"""

from labkit.process_manager.rules import Next, Process
from labkit.process_manager.runner import ProcessManager

__all__ = ["Next", "Process", "ProcessManager"]
