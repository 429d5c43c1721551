"""Which device and precision are taken, and what is said where the one asked for is not there."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from utils import devices
from utils.console import PROJECT_ROOT, UserError

CPU = torch.device("cpu")
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")


@NO_GPU
def test_auto_takes_the_cpu_where_there_is_nothing_else():
    if not torch.backends.mps.is_available():
        assert devices.choose_device("auto") == CPU


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch is a CUDA build")
def test_a_card_that_a_cpu_build_can_not_use_is_named_with_the_command_that_mends_it(monkeypatch, capsys):
    monkeypatch.setattr(devices.shutil, "which", lambda name: "/usr/bin/nvidia-smi" if name == "nvidia-smi" else None)
    devices.choose_device("auto")
    said = capsys.readouterr().err
    assert "build for the CPU" in said
    assert "pip install" in said
    assert "--index-url https://download.pytorch.org/whl/cu" in said


@NO_GPU
@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps", "toaster"])
def test_a_device_that_is_not_there_is_refused(name):
    if name == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has an Apple GPU")
    with pytest.raises(UserError, match=name):
        devices.choose_device(name)


def test_fp16_needs_a_gpu():
    with pytest.raises(UserError, match="fp16 needs a CUDA GPU"):
        devices.choose_precision("fp16", CPU)


@pytest.mark.parametrize("has", [True, False])
def test_auto_takes_bf16_exactly_where_the_device_computes_in_it(monkeypatch, has):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has})
    assert devices.choose_precision("auto", CPU) == ("bf16" if has else "no")
    assert devices.choose_precision("no", CPU) == "no"


@pytest.mark.parametrize(("precision", "dtype"), [("no", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_computes_in_the_precision_asked_for(precision, dtype):
    with devices.autocast(CPU, precision):
        assert (torch.ones(4, 4) @ torch.ones(4, 4)).dtype == dtype


def test_memory_is_counted_in_bytes_and_the_peak_is_not_below_what_is_used():
    used, peak = devices.used_memory(CPU), devices.used_memory(CPU, peak=True)
    assert 50e6 < used <= peak * 1.01 < 1e12


@pytest.mark.skipif(sys.platform != "linux", reason="how Linux counts")
def test_the_peak_is_the_own_one_and_not_that_of_a_large_parent():
    """getrusage hands a parent's peak on to its children: a training would seem to need what its starter used."""
    large = np.ones(2**27)  # 1 GiB
    code = "import torch; from utils.devices import used_memory; print(used_memory(torch.device('cpu'), peak=True))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=PROJECT_ROOT)
    assert int(done.stdout) < large.nbytes
