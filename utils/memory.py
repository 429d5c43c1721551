"""How much memory this process uses. Needs psutil only."""

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
