"""Two machines, as far as one can have them: a torchrun each, which meet over the loopback."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
from scripts import PROJECT_ROOT


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start_node(rank: int, port: int, folder: Path, script: str, *args: object, nodes: int = 2) -> subprocess.Popen:
    """Starts `torchrun --nnodes N --node_rank RANK ... script args` with one process of one thread, as a user does on
    one of the machines. What it prints goes to the file node-RANK in `folder`."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", nodes, "--node_rank", rank, "--nproc_per_node", 1,
        "--master_addr", "127.0.0.1", "--master_port", port, script, *args,
    ]  # fmt: skip
    with (folder / f"node-{rank}").open("wb") as file:
        return subprocess.Popen(
            [*map(str, command)], cwd=PROJECT_ROOT, stdout=file, stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
        )  # fmt: skip


def said(folder: Path, rank: int) -> str:
    return (folder / f"node-{rank}").read_text(encoding="utf-8")


def run_nodes(folder: Path, script: str, *args: object, code: int = 0) -> list[str]:
    """What both nodes print until they end, each with the exit code `code`."""
    port = free_port()
    nodes = [start_node(rank, port, folder, script, *args) for rank in range(2)]
    try:
        codes = [node.wait(timeout=300) for node in nodes]
    finally:
        for node in nodes:
            lose(node)
    printed = [said(folder, rank) for rank in range(2)]
    assert codes == [code, code], "\n".join(printed)
    return printed


def lose(node: subprocess.Popen) -> None:
    """As when a machine loses its power: torchrun and its processes are killed."""
    try:
        family = psutil.Process(node.pid)
        family = [family, *family.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    node.wait(timeout=60)
