"""Load on a server in one of two ways: as fast as it answers, or as fast as callers come, whether it answers or not.

The second is how overload is met: a caller who waits for an answer before asking again can never ask too much.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import TypeAlias

import grpc
import grpc.aio

METHOD = "/inference.GRPCInferenceService/ModelInfer"
CHANNELS = 8
DETAILS = "grpc-status-details-bin"
RETRY_INFO = b"google.rpc.RetryInfo"
Call: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"


@dataclass
class Outcomes:
    """What became of the callers who came. Seconds are from the moment each one came."""

    seconds: float
    statuses: Counter[str] = field(default_factory=Counter)
    answered_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    late_s_max: float = 0  # how far the load itself fell behind its own plan

    @property
    def told_when_to_retry(self) -> int:
        return len(self.refused_s)

    def goodput(self, deadline_s: float) -> float:
        """Answers a second that came before their deadline."""
        return sum(took <= deadline_s for took in self.answered_s) / self.seconds


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0


@asynccontextmanager
async def _calls(port: int) -> AsyncIterator[list[Call]]:
    """Callers on connections of their own, on the loopback listener."""
    async with AsyncExitStack() as stack:
        options = [("grpc.use_local_subchannel_pool", 1)]
        opened = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) for _ in range(CHANNELS)]
        yield [(await stack.enter_async_context(channel)).unary_unary(METHOD) for channel in opened]


async def closed_loop(port: int, messages: Sequence[bytes], callers: int, seconds: float) -> float:
    """Answers a second, while so many callers ask again as soon as they are answered."""
    answered = 0
    async with _calls(port) as calls:
        begin = perf_counter()

        async def loop(caller: int) -> None:
            nonlocal answered
            while perf_counter() < begin + seconds:
                await calls[caller % CHANNELS](messages[caller % len(messages)])
                answered += 1

        await asyncio.gather(*map(loop, range(callers)))
        return answered / (perf_counter() - begin)


async def open_loop(
    port: int, messages: Sequence[bytes], rate: float, seconds: float, deadline_s: float, seed: int
) -> Outcomes:
    """Callers who come at random, ``rate`` of them a second, and go when their deadline has passed."""
    chance, outcomes = random.Random(seed), Outcomes(seconds)

    async def one(call: Call, asked: bytes, came: float) -> None:
        status = "OK"
        try:
            await call(asked, timeout=max(0.001, came + deadline_s - perf_counter()))
            outcomes.answered_s.append(perf_counter() - came)
        except grpc.aio.AioRpcError as error:
            status = error.code().name
            details = dict(error.trailing_metadata() or ())
            if RETRY_INFO in bytes(details.get(DETAILS) or b""):
                outcomes.refused_s.append(perf_counter() - came)
        outcomes.statuses[status] += 1

    async with _calls(port) as calls, asyncio.TaskGroup() as group:
        came = begin = perf_counter()
        while came < begin + seconds:
            await asyncio.sleep(max(0.0, came - perf_counter()))
            outcomes.late_s_max = max(outcomes.late_s_max, perf_counter() - came)
            group.create_task(one(chance.choice(calls), chance.choice(messages), came))
            came += chance.expovariate(rate)
    return outcomes
