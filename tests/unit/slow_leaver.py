"""A process that has something to end when it is asked to stop, for as long as its environment says."""

from __future__ import annotations

import asyncio
import os

from services.chassis.process import Process, run


async def main() -> None:
    async with Process("leaver", "127.0.0.1:0", drain_s=float(os.environ["DRAIN_S"])) as process:
        process.announce()
        await process.until_stopped()
        await process.finish(asyncio.sleep(float(os.environ["TAKES_S"])))


if __name__ == "__main__":
    run(main)
