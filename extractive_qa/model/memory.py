"""How much memory this process uses, and how much more there is. Needs psutil only."""

import os
import sys
from pathlib import Path


def process_memory(peak: bool = False) -> int:
    """Bytes resident in this process, now or at the peak."""
    import psutil

    memory = psutil.Process().memory_info()
    if not peak:
        return memory.rss
    if os.name == "nt":
        return memory.peak_wset
    if sys.platform == "linux":  # getrusage would give the parent's memory where that is larger
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS


# under /sys/fs/cgroup: a container's limit, what it uses, what else is known, and the part of it that can be freed
CONTAINER = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


def free_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that can still be taken without swapping: of the system's memory, or the container's if that is less."""
    import psutil

    free = psutil.virtual_memory().available
    for limit, used, stat, cache in CONTAINER:
        try:
            known = dict(line.split() for line in (cgroup / stat).read_text(encoding="ascii").splitlines())
            room = int((cgroup / limit).read_text(encoding="ascii")) - int((cgroup / used).read_text(encoding="ascii"))
            free = min(free, room + int(known[cache]))
        except (OSError, ValueError, KeyError):
            continue  # no such container, or one without a limit: "max"
    return max(0, free)
