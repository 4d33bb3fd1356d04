"""What every benchmark shares: processes that take turns, and a record of what they measured.

Each competitor lives in a process of its own, so that no framework's threads disturb another's;
while one is timed, the others wait on a pipe and use no processor. A competitor is a function
`build(*case) -> {variant: Work}`. Its process builds every variant, returns the answers of each to
be compared with the other competitors', keeps the variant that is the fastest here, and then times
a block of calls whenever it is asked to.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

RESULTS = Path(__file__).parent / "results"
OURS = "trivium"
# Seconds that a block of calls should last, and those of rest before the next competitor's:
# threads of the last one may still be looking for work.
BLOCK, REST = 0.15, 0.02
# Relative to the largest number of the array.
TOLERANCE = 1e-4


class Work(NamedTuple):
    """One variant of a competitor.

    answers: arrays that must agree with every other competitor's.
    call: does the work once, and returns when it is done.
    """

    answers: list[np.ndarray]
    call: Callable[[], Any]


class Target(NamedTuple):
    """What a ratio, the fastest of some competitors' time by ours, should reach."""

    against: tuple[str, ...]
    floor: float
    aim: float


class Case(NamedTuple):
    """One piece of work: its name, the arguments of `build`, and its targets."""

    name: str
    arguments: tuple[Any, ...]
    targets: tuple[Target, ...]


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def hardware() -> dict[str, Any]:
    """The processor by its name, the cores that this process may use, and the system."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return {
        "processor": name,
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions(*packages: str) -> dict[str, str]:
    """Exact versions of Python and of the packages named."""
    return {"python": platform.python_version()} | {
        package: metadata.version(package) for package in packages
    }


def write(name: str, result: dict[str, Any], *, packages: tuple[str, ...]) -> Path:
    """Write `results/NAME.json`: the result, with date, hardware and versions."""
    record = {
        "name": name,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "hardware": hardware(),
        "versions": versions(*packages),
        **result,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    return path


def block(call: Callable[[], Any], count: int) -> float:
    """Seconds a call takes, over a block of them; a short block starts with one untimed."""
    if count > 1:
        call()
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def _serve(pipe, build, arguments):
    """A competitor's process: build, choose the fastest variant, time blocks until told to end."""
    try:
        works = build(*arguments)
        pipe.send({variant: work.answers for variant, work in works.items()})
        found = {}
        for variant, work in works.items():
            work.call()
            found[variant] = block(work.call, 1)
            # A single call says too little of a short one, or where there is a choice.
            for _ in range(3 if len(works) > 1 else 1):
                seconds = block(work.call, _count(found[variant]))
                found[variant] = min(found[variant], seconds)
        best = min(found, key=found.__getitem__)
        call, count = works[best].call, _count(found[best])
        pipe.send((best, found[best] * count))
        while pipe.recv():
            pipe.send(block(call, count))
    except Exception:
        pipe.send(traceback.format_exc())


def _count(seconds):
    return max(1, round(BLOCK / max(seconds, 1e-9)))


class _Competitor:
    """The near end of a competitor's process."""

    def __init__(self, name, build, arguments):
        self.name = name
        context = multiprocessing.get_context("spawn")
        self.pipe, far = context.Pipe()
        self.process = context.Process(target=_serve, args=(far, build, arguments), daemon=True)
        self.process.start()
        far.close()

    def receive(self):
        try:
            answer = self.pipe.recv()
        except EOFError:
            raise SystemExit(f"{self.name}: the process ended without a word") from None
        if isinstance(answer, str):
            raise SystemExit(f"{self.name} failed:\n{answer}")
        return answer

    def end(self):
        if self.process.is_alive():
            self.pipe.send(False)
        self.process.join(10)
        self.process.kill()


def race(
    competitors: Mapping[str, Callable], arguments: Sequence[Any], *, seconds: float
) -> dict[str, dict[str, Any]]:
    """Time the competitors in alternating order for about so many seconds, 5 to 40 rounds.

    Returns name -> variant, median and quartiles in seconds, and the time of every block.
    Raises SystemExit where one fails or computes something else than the others.
    """
    running = []
    try:
        answers = {}
        # One at a time: two that compile side by side would choose their variants in a noise.
        for name, build in competitors.items():
            running.append(_Competitor(name, build, arguments))
            answers[name] = running[-1].receive()
            running[-1].variant, running[-1].seconds = running[-1].receive()
        agree(answers)
        round_seconds = sum(each.seconds + REST for each in running)
        rounds = min(max(round(seconds / round_seconds), 5), 40)
        blocks: dict[str, list[float]] = {name: [] for name in competitors}
        for order in itertools.islice(itertools.cycle((running, running[::-1])), rounds):
            for each in order:
                time.sleep(REST)
                each.pipe.send(True)
                blocks[each.name].append(each.receive())
        return {each.name: summary(blocks[each.name], each.variant) for each in running}
    finally:
        for each in running:
            each.end()


def summary(seconds: Sequence[float], variant: str) -> dict[str, Any]:
    """Median and quartiles of some times."""
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return {"variant": variant, "median": median, "quartiles": [low, high], "blocks": seconds}


def agree(answers: Mapping[str, Mapping[str, list[np.ndarray]]]) -> None:
    """Check that every variant of every competitor computes what the first does."""
    flat = [(f"{name} ({v})", a) for name, each in answers.items() for v, a in each.items()]
    (reference, expected), *others = flat
    for name, given in others:
        for place, (a, b) in enumerate(zip(given, expected, strict=True)):
            apart = float(np.abs(np.asarray(a) - b).max() / np.abs(b).max())
            if np.shape(a) != np.shape(b) or not apart <= TOLERANCE:
                raise SystemExit(
                    f"{name} computes something else than {reference}: answer {place} has shape "
                    f"{np.shape(a)} against {np.shape(b)} and is {apart:.1e} apart"
                )


def ratio(times: Mapping[str, Mapping[str, Any]], target: Target) -> dict[str, Any]:
    """The target, with the fastest competitor it names and the ratio of the medians."""
    peer = min(target.against, key=lambda name: times[name]["median"])
    return {
        **target._asdict(),
        "fastest": peer,
        "ratio": times[peer]["median"] / times[OURS]["median"],
    }


def options(
    description: str | None, *, seconds: float, only: bool = True
) -> argparse.ArgumentParser:
    """The options that the benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seconds", type=float, default=seconds, help="for the blocks of a case")
    parser.add_argument("--case", default="", help="only cases whose name contains this")
    if only:
        parser.add_argument("--only", nargs="+", help="only these competitors")
    return parser


def main(
    name: str,
    question: str,
    unit: str,
    *,
    competitors: Mapping[str, Callable],
    cases: Sequence[Case],
    packages: tuple[str, ...],
    description: str | None,
    seconds: float = 15,
) -> None:
    """Time every case, print a line for each competitor, and write the record if all were run."""
    chosen = options(description, seconds=seconds).parse_args()
    names = chosen.only or list(competitors)
    some = {each: competitors[each] for each in names}
    results = []
    for case in cases:
        if chosen.case not in case.name:
            continue
        print(case.name, flush=True)
        times = race(some, case.arguments, seconds=chosen.seconds)
        for each, time_ in times.items():
            low, high = (1e3 * q for q in time_["quartiles"])
            print(
                f"  {each:20} {1e3 * time_['median']:9.3f} ms  ({low:.3f} to {high:.3f}; "
                f"{len(time_['blocks'])} blocks; {time_['variant']})"
            )
        ratios = [
            ratio(times, target) for target in case.targets if {OURS, *target.against} <= {*some}
        ]
        for each in ratios:
            print("  {ratio:.2f} against {fastest}, floor {floor}, aim {aim}".format(**each))
        results.append({"case": case.name, "times": times, "targets": ratios})
    if len(results) < len(cases) or len(some) < len(competitors):
        print("not written: not every case and competitor was run")
        return
    result = {"question": question, "unit": unit, "cases": results}
    print("written to", write(name, result, packages=packages))
