"""What every benchmark shares: where it ran, with which versions, and where the result goes."""

import json
import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def hardware() -> dict[str, Any]:
    """The processor by its name, the cores that this process may use, and the system."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": name,
        "cores": cores,
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
