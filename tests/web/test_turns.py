"""One model, many who ask."""

import asyncio
import threading

import pytest

from extractive_qa.web.turns import BusyError, Turns


async def last_of(events):
    return [event async for event in events][-1]


def test_work_is_done_in_its_order_and_tells_how_far_it_is():
    order = []

    def work(number):
        def run(each_batch):
            each_batch(3, 7)
            order.append(number)
            return number, "result"

        return run

    async def ask():
        turns = Turns(8, 60)
        return await asyncio.gather(*(last_of(turns.take(work(number))) for number in range(8)))

    assert [number for number, _ in asyncio.run(ask())] == order == list(range(8))


def test_beyond_those_that_may_wait_the_next_is_refused_and_later_ones_are_taken():
    go_on = threading.Event()

    async def ask():
        turns = Turns(2, 60)
        taken = [asyncio.create_task(last_of(turns.take(lambda _: go_on.wait(60)))) for _ in range(3)]
        await asyncio.sleep(0.05)
        with pytest.raises(BusyError, match="2 questions wait already"):
            turns.take(lambda _: None)
        go_on.set()
        assert await asyncio.gather(*taken) == [True] * 3
        return turns.inside, await last_of(turns.take(lambda _: "again"))

    assert asyncio.run(ask()) == (0, "again")


def test_what_takes_too_long_is_stopped_and_its_place_is_free():
    stopped = threading.Event()

    def endless(each_batch):
        try:
            while True:
                each_batch(1, 2)
                stopped.wait(0.01)
        finally:
            stopped.set()

    async def ask():
        turns = Turns(1, 0.3)
        with pytest.raises(BusyError, match="more than 0 seconds"):
            await last_of(turns.take(endless))
        return await last_of(turns.take(lambda _: "free"))

    assert asyncio.run(ask()) == "free"
    assert stopped.is_set()


def test_whoever_stops_waiting_stops_the_work_also_before_it_began():
    go_on, began = threading.Event(), []

    async def ask():
        turns = Turns(4, 60)
        first, second = turns.take(lambda _: go_on.wait(60)), turns.take(lambda _: began.append(1))
        assert await anext(second) == (0, 0)
        await second.aclose()
        await asyncio.sleep(0.05)
        assert turns.inside == 1
        go_on.set()
        assert await last_of(first) is True

    asyncio.run(ask())
    assert began == []


def test_at_the_end_what_waits_is_told_and_nothing_new_is_taken():
    async def ask():
        turns = Turns(4, 60)
        go_on = threading.Event()

        def work(each_batch):
            go_on.wait(60)
            each_batch(1, 2)

        running = [asyncio.create_task(last_of(turns.take(work))) for _ in range(2)]
        await asyncio.sleep(0.05)
        turns.stop()
        go_on.set()
        for one in running:
            with pytest.raises(BusyError, match="about to end"):
                await one
        with pytest.raises(BusyError, match="about to end"):
            turns.take(work)

    asyncio.run(ask())
