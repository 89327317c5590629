"""The faults. Each brings its own about and ends it, as an operator would; what it returns is a note."""

import asyncio
import hashlib
import random
import re
import shutil
import signal
import struct
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from data_plane.egress.service import ledger_folder
from tests.chaos.fleet import START_S, ChaosNode, Fleet, Process
from tests.chaos.schedule import Fault, Kind

CLOCK_S = 1.5  # until a program believes its new clock


class ViolatedError(Exception):
    """Something was promised, and is not so."""


Strike = Callable[[Fleet, ChaosNode, random.Random], Awaitable[str]]


async def strike(fleet: Fleet, fault: Fault) -> str:
    """Returns when the fault is over and everything was started again. Raises ViolatedError, DiedError."""
    return await STRIKES[fault.kind](fleet, fleet.nodes[fault.node], fault.chance())


async def kill_node(fleet: Fleet, node: ChaosNode, chance: random.Random) -> str:
    await node.process.kill()
    await asyncio.sleep(chance.choice((0.0, 0.5)))
    await node.process.start()
    return ""


async def kill_starting_node(fleet: Fleet, node: ChaosNode, chance: random.Random) -> str:
    await node.process.kill()
    node.process.launch()
    alive_s = chance.uniform(0.2, 3.0)
    await asyncio.sleep(alive_s)
    await node.process.kill()
    await node.process.start()
    return f"after {alive_s:.1f} s"


async def kill_cloud(fleet: Fleet, node: ChaosNode, chance: random.Random) -> str:
    await fleet.cloud.kill()
    await asyncio.sleep(chance.choice((0.0, 1.0)))
    await fleet.cloud.start()
    return ""


async def kill_both(fleet: Fleet, node: ChaosNode, chance: random.Random) -> str:
    await asyncio.gather(*(process.kill() for process in fleet.processes()))
    await asyncio.gather(*(process.start() for process in fleet.processes()))
    return ""


async def pause_node(fleet: Fleet, node: ChaosNode, chance: random.Random) -> str:
    return await pause(node.process, chance)


async def pause_cloud(fleet: Fleet, node: ChaosNode, chance: random.Random) -> str:
    return await pause(fleet.cloud, chance)


async def pause(process: Process, chance: random.Random) -> str:
    """Short ones go unnoticed; long ones are longer than three heartbeats."""
    paused_s = chance.choice((0.5, 2.0, 5.0))
    process.signal(signal.SIGSTOP)
    await asyncio.sleep(paused_s)
    process.signal(signal.SIGCONT)
    return f"{paused_s} s"


async def cut(fleet: Fleet, node: ChaosNode, chance: random.Random) -> str:
    return await unplug(node, "node", chance)


async def silence(fleet: Fleet, node: ChaosNode, chance: random.Random) -> str:
    return await unplug(node, "cloud", chance)


async def unplug(node: ChaosNode, end: str, chance: random.Random) -> str:
    gone_s = chance.choice((0.5, 2.0, 5.0))
    node.set_cable(end=end, is_up=False)
    await asyncio.sleep(gone_s)
    node.set_cable(end=end, is_up=True)
    return f"{gone_s} s"


async def disk_full(fleet: Fleet, node: ChaosNode, chance: random.Random) -> str:
    """Sometimes the node is killed on its full disk, and has to wait for room to start."""
    is_killed = chance.random() < 0.3
    node.disk.fill()
    await asyncio.sleep(chance.uniform(1.0, 3.0))
    if is_killed:
        await node.process.kill()
    else:
        node.process.check_alive()
    node.disk.free()
    if is_killed:
        await node.process.start()
    return "killed meanwhile" if is_killed else ""


async def clock_node(fleet: Fleet, node: ChaosNode, chance: random.Random) -> str:
    began_s, lives = time.monotonic(), node.process.lives
    note = await set_clock(node.process, chance)
    if node.process.lives > lives:
        node.redated_s.append(began_s)
    return note


async def clock_cloud(fleet: Fleet, node: ChaosNode, chance: random.Random) -> str:
    return await set_clock(fleet.cloud, chance)


async def set_clock(process: Process, chance: random.Random) -> str:
    """It jumps, and jumps back; sometimes the program is started again between the two."""
    offset, is_killed = chance.choice(("+1d", "-1d")), chance.random() < 0.5
    process.set_clock(offset)
    if is_killed:
        await process.kill()
        await process.start()
    await asyncio.sleep(CLOCK_S + chance.uniform(0.0, 1.5))
    process.set_clock("+0")
    await asyncio.sleep(CLOCK_S)
    return offset + (", killed meanwhile" if is_killed else "")


async def corrupt_config(fleet: Fleet, node: ChaosNode, chance: random.Random) -> str:
    """One file of the cache; the node starts all the same, or says what to type, and that is typed."""
    await node.process.kill()
    folder = node.data_dir / "config"
    file = chance.choice(sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()))
    how = damage(file, chance)
    what = f"{how} {file.relative_to(folder).parts[0]}"
    said = await start_or_refuse(node.process)
    if not said:
        return f"{what}: started"
    advice = re.search(r"mv (\S+) (\S+\.damaged)", said)
    if not advice or (str(file) not in said and "state.json" not in said):
        raise ViolatedError(f"{what}: refused without saying what to type:\n{said[-1500:]}")
    shutil.rmtree(advice[2], ignore_errors=True)
    Path(advice[1]).rename(advice[2])
    await node.process.start()
    return f"{what}: refused, put aside"


def damage(file: Path, chance: random.Random) -> str:
    data = bytearray(file.read_bytes())
    how = chance.choice(("flipped", "cut", "emptied"))
    if how == "flipped":
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif how == "cut":
        del data[chance.randrange(len(data)) :]
    else:
        data.clear()
    file.write_bytes(data)
    return how


async def start_or_refuse(process: Process) -> str:
    """Empty when it started; what it said when it ended by itself. Raises ViolatedError for a hang or a traceback."""
    life = process.launch()
    give_up_s = time.monotonic() + START_S
    while process.ready not in life.text:
        if life.process.poll() is not None:
            said = await process.ended()
            if not all(part in said for part in ("error: ", "why: ", "next: ")):
                raise ViolatedError(f"{process.name} refused without three sentences:\n{said[-2000:]}")
            return said
        if time.monotonic() > give_up_s:
            raise ViolatedError(f"{process.name} neither starts nor says why:\n{life.text[-2000:]}")
        await asyncio.sleep(0.05)
    return ""


async def torn_ledger(fleet: Fleet, node: ChaosNode, chance: random.Random) -> str:
    """What a power loss leaves of a record that nobody was told of: cut off at the start, with a warning."""
    await node.process.kill()
    segment = sorted(ledger_folder(node.data_dir).glob("*.seg"))[-1]
    record = struct.pack(">III", 300, 200, chance.getrandbits(32)) + chance.randbytes(300 + 200)
    torn_bytes = chance.randrange(1, len(record))
    with segment.open("ab") as file:
        file.write(record[:torn_bytes])
    await node.process.start()
    assert node.process.life
    if "ledger.unfinished_record_cut_off" not in node.process.life.text:
        raise ViolatedError("an unfinished tail of the ledger was cut off without a word")
    return f"{torn_bytes} bytes"


async def damaged_ledger(fleet: Fleet, node: ChaosNode, chance: random.Random) -> str:
    """Found at the start, said plainly, left as it is; the operator restores a copy."""
    await node.process.kill()
    folder = ledger_folder(node.data_dir)
    copy = node.folder / "ledger-copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    file = chance.choice(sorted([*folder.glob("*.seg"), folder / "head"]))
    data = bytearray(file.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    file.write_bytes(data)
    before = contents(folder)
    said = await start_or_refuse(node.process)
    if not said:
        raise ViolatedError(f"the ledger was damaged in {file.name}, and the node started")
    if "ledger" not in said or contents(folder) != before:
        raise ViolatedError(f"the ledger was damaged in {file.name}, and was changed or not named:\n{said[-1500:]}")
    shutil.rmtree(folder)
    shutil.copytree(copy, folder)
    await node.process.start()
    return file.suffix or file.name


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


async def database_gone(fleet: Fleet, node: ChaosNode, chance: random.Random) -> str:
    gone_s = chance.choice((0.0, 1.0, 4.0))
    await asyncio.to_thread(fleet.database.stop)
    await asyncio.sleep(gone_s)
    await asyncio.to_thread(fleet.database.start)
    return f"{gone_s} s"


STRIKES: dict[Kind, Strike] = {
    Kind.KILL_NODE: kill_node,
    Kind.KILL_STARTING_NODE: kill_starting_node,
    Kind.KILL_CLOUD: kill_cloud,
    Kind.KILL_BOTH: kill_both,
    Kind.PAUSE_NODE: pause_node,
    Kind.PAUSE_CLOUD: pause_cloud,
    Kind.CUT: cut,
    Kind.SILENCE: silence,
    Kind.DISK_FULL: disk_full,
    Kind.CLOCK_NODE: clock_node,
    Kind.CLOCK_CLOUD: clock_cloud,
    Kind.CORRUPT_CONFIG: corrupt_config,
    Kind.TORN_LEDGER: torn_ledger,
    Kind.DAMAGED_LEDGER: damaged_ledger,
    Kind.DATABASE_GONE: database_gone,
}
