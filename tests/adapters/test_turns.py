"""Calls in turns: one at a time, in order of time, and no thread left behind."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from contextvars import ContextVar

import numpy as np
import pytest

from qml_plugin.adapters.turns import Stopped, Turns

colour: ContextVar[str] = ContextVar("colour", default="none")


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def through(moments, log, name):
    """A call that goes through moments, and notes each when it may."""

    def call(await_turn):
        for moment in moments:
            await_turn(moment)
            log.append((moment, name))
        return len(moments)

    return call


def test_moments_come_in_order_and_ties_by_name():
    rng = np.random.default_rng(0)
    moments = {name: sorted(rng.integers(0, 60, n).tolist()) for name, n in (("c", 40), ("a", 25), ("b", 0), ("d", 1))}
    log = []
    done = Turns().run({name: through(own, log, name) for name, own in moments.items()})
    assert log == sorted((moment, name) for name, own in moments.items() for moment in own)
    assert done == {"a": 25, "b": 0, "c": 40, "d": 1}


def test_only_one_runs_at_a_time_and_what_it_says_is_its_own():
    running, said = [], {"a": [], "b": []}

    def call(name):
        def through_moments(await_turn):
            for moment in range(20):
                running.append(name)
                sum(range(20_000))
                assert running == [name]
                warnings.warn(f"{name} {moment}", UserWarning, stacklevel=1)
                running.clear()
                await_turn(moment)

        return through_moments

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        def after_turn(name):
            said[name] += [str(one.message) for one in caught]
            caught.clear()

        Turns(after_turn).run({"a": call("a"), "b": call("b")})
    assert said == {name: [f"{name} {moment}" for moment in range(20)] for name in "ab"}


def test_calls_see_the_context_they_were_made_in():
    token = colour.set("blue")
    try:
        assert Turns().run({"a": lambda _: colour.get(), "b": lambda _: colour.get()}) == {"a": "blue", "b": "blue"}
    finally:
        colour.reset(token)


def test_an_error_names_its_call_and_ends_the_others():
    ended = []

    def failing(await_turn):
        await_turn(5)
        raise ValueError("no more")

    def waiting(await_turn):
        try:
            await_turn(3)
            await_turn(7)
        except Stopped:
            ended.append(True)
            raise

    with pytest.raises(ValueError, match="no more") as caught:
        Turns().run({"good": waiting, "bad": failing, "never": through([9], ended, "never")})
    assert caught.value.__notes__ == ["in bad"]
    assert ended == [True]


def test_ctrl_c_ends_a_call_that_asks_at_each_bar():
    """The signal reaches the main thread while a call runs; the call itself notices at its next bar."""
    turns = Turns()

    def busy(await_turn):
        await_turn(1)
        os.kill(os.getpid(), signal.SIGINT)
        while True:
            turns.stop_if_told()
            threading.Event().wait(0.001)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            turns.run({"a": busy, "b": through([2], [], "b")})
    finally:
        signal.signal(signal.SIGINT, before)
