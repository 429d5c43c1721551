"""Which device and precision are taken, and what is said where the one asked for is not there."""

import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from extractive_qa.errors import QAError
from extractive_qa.model import devices, memory
from utils.offline import PROJECT_ROOT

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")


@NO_GPU
def test_auto_takes_the_cpu_where_there_is_nothing_else():
    if not torch.backends.mps.is_available():
        assert devices.choose_device("auto") == CPU


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch is a CUDA build")
def test_a_card_that_a_cpu_build_can_not_use_is_named_with_the_command_that_fixes_it(monkeypatch, caplog):
    monkeypatch.setattr(devices.shutil, "which", lambda name: "/usr/bin/nvidia-smi" if name == "nvidia-smi" else None)
    devices.choose_device("auto")
    said = caplog.text
    assert "build for the CPU" in said
    assert "pip install" in said
    assert "--index-url https://download.pytorch.org/whl/cu" in said


def cards(monkeypatch, count=1, capability=(8, 6), kernels=("sm_75", "sm_86", "sm_90a", "compute_120"), cuda="13.0"):
    """What torch sees from now on: so many cards of that capability, by a build with those kernels."""
    monkeypatch.setattr(torch.version, "cuda", cuda)
    for name, value in {
        "is_available": count > 0, "device_count": count, "get_device_capability": capability,
        "get_arch_list": list(kernels), "get_device_name": "a card",
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(devices.shutil, "which", lambda name: f"/usr/bin/{name}")


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({"capability": (6, 1)}, r"no kernels for a card \(compute capability 6.1, expected 7.5 or more\).*whl/cu126"),
        ({"capability": (7, 0)}, r"no kernels for a card \(compute capability 7.0, expected 7.5 or more\).*whl/cu126"),
        ({"count": 0}, r"built for CUDA 13.0 and finds no card that it can use.*nvidia-smi.*580 or newer.*whl/cu126"),
        ({"count": 0, "cuda": None}, "build for the CPU.*whl/cu130"),
    ],
    ids=["old card", "older card", "old driver", "CPU build"],
)
def test_a_card_that_this_torch_can_not_use_is_named_with_what_to_do(monkeypatch, caplog, seen, words):
    cards(monkeypatch, **seen)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert devices.choose_device("auto") == CPU
    assert re.search(f"an NVIDIA driver is here, but torch .*{words}", caplog.text)
    with pytest.raises(QAError, match=f"device='cuda': torch .*{words}"):
        devices.choose_device("cuda")


@pytest.mark.parametrize("seen", [{}, {"capability": (7, 5)}, {"kernels": ()}, {"kernels": ("gfx90a",), "cuda": None}])
def test_a_card_that_this_torch_can_use_is_taken_without_a_word(monkeypatch, caplog, seen):
    cards(monkeypatch, **seen)
    assert devices.choose_device("auto") == CUDA
    assert caplog.text == ""


def test_memory_may_run_out_in_torch_or_in_the_driver():
    assert devices.out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert devices.out_of_memory(torch.AcceleratorError("CUDA error: out of memory"))
    assert not devices.out_of_memory(torch.AcceleratorError("CUDA error: an illegal memory access"))
    assert not devices.out_of_memory(RuntimeError("out of memory"))


@NO_GPU
@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps", "toaster"])
def test_a_device_that_is_not_there_is_refused(name):
    if name == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has an Apple GPU")
    with pytest.raises(QAError, match=name):
        devices.choose_device(name)


@pytest.mark.parametrize("name", ["xpu", "meta", "meta:0", "toaster", "cuda:x", "cpu:", ""])
def test_a_device_of_another_kind_is_not_known(name):
    with pytest.raises(QAError, match=f"{name}' is not known. Expected auto, cpu"):
        devices.choose_device(name)


@pytest.mark.parametrize(("cuda", "mps", "taken"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_takes_a_cuda_card_then_apples_gpu_then_the_cpu(monkeypatch, cuda, mps, taken):
    cards(monkeypatch, count=int(cuda))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert devices.choose_device("auto") == torch.device(taken)


def test_a_second_card_where_there_is_one_is_refused(monkeypatch):
    cards(monkeypatch)
    assert devices.choose_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(QAError, match=r"cuda:1'?: .* sees 1 GPUs.*nvidia-smi"):
        devices.choose_device("cuda:1")


def test_fp16_needs_a_gpu():
    with pytest.raises(QAError, match=r"fp16.* needs a CUDA GPU"):
        devices.choose_precision("fp16", CPU)


@pytest.mark.parametrize("has", [True, False])
def test_auto_takes_bf16_exactly_where_the_device_computes_in_it(monkeypatch, has):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has})
    assert devices.choose_precision("auto", CPU) == ("bf16" if has else "no")
    assert devices.choose_precision("no", CPU) == "no"


@pytest.mark.parametrize(("capability", "has"), [((7, 5), False), ((8, 0), True), ((12, 0), True)])
def test_a_card_computes_in_bf16_from_ampere_on(monkeypatch, capability, has):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert devices.choose_precision("auto", CUDA) == ("bf16" if has else "no")
    assert devices.choose_precision("fp16", CUDA) == "fp16"
    if has:
        assert devices.choose_precision("bf16", CUDA) == "bf16"
    else:
        with pytest.raises(QAError, match="Ampere"):
            devices.choose_precision("bf16", CUDA)


def test_apples_gpu_computes_in_fp32_unless_asked():
    assert devices.choose_precision("auto", torch.device("mps")) == "no"
    assert devices.choose_precision("bf16", torch.device("mps")) == "bf16"


def test_attention_is_plain_only_on_a_cpu_in_bf16():
    taken = {(d, p): devices.choose_attention(torch.device(d), p) for d in ("cpu", "cuda") for p in ("no", "bf16")}
    assert [place for place, attention in taken.items() if attention == "eager"] == [("cpu", "bf16")]
    assert set(taken.values()) == {"eager", None}


@pytest.mark.parametrize(
    ("precision", "dtype"), [("no", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_autocast_computes_in_the_precision_asked_for(precision, dtype):
    with devices.autocast(CPU, precision):
        assert (torch.ones(4, 4) @ torch.ones(4, 4)).dtype == dtype


def test_memory_is_counted_in_bytes_and_the_peak_is_not_below_what_is_used():
    used, peak = devices.used_memory(CPU), devices.used_memory(CPU, peak=True)
    assert 50e6 < used <= peak * 1.01 < 1e12


def test_a_card_is_described_and_counted_by_its_own_memory(monkeypatch):
    card = SimpleNamespace(name="A Card", total_memory=4 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 3)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5)
    assert devices.describe(CUDA) == "A Card, 4.0 GiB"
    assert (devices.used_memory(CUDA), devices.used_memory(CUDA, peak=True)) == (3, 5)
    assert devices.describe(torch.device("mps")) == "Apple GPU"
    assert f"{torch.get_num_threads()} threads" in devices.describe(CPU)


def test_windows_and_macos_tell_the_peak_in_their_own_ways(monkeypatch):
    told = SimpleNamespace(rss=3, peak_wset=7)
    monkeypatch.setattr("psutil.Process", lambda: SimpleNamespace(memory_info=lambda: told))
    with monkeypatch.context() as on_windows:
        on_windows.setattr(memory, "os", SimpleNamespace(name="nt"))
        assert (memory.process_memory(), memory.process_memory(peak=True)) == (3, 7)
    resource = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: SimpleNamespace(ru_maxrss=9))
    monkeypatch.setattr(memory, "os", SimpleNamespace(name="posix"))
    monkeypatch.setattr(memory, "sys", SimpleNamespace(platform="darwin"))
    monkeypatch.setitem(sys.modules, "resource", resource)
    assert (memory.process_memory(), memory.process_memory(peak=True)) == (3, 9)


@pytest.mark.skipif(sys.platform != "linux", reason="how Linux counts")
def test_the_peak_is_the_own_one_and_not_that_of_a_large_parent():
    """getrusage hands a parent's peak on to its children: a training would seem to need what its starter used."""
    large = np.ones(2**27)  # 1 GiB
    code = (
        "import torch; from extractive_qa.model import devices; print(devices.used_memory(torch.device('cpu'), True))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=PROJECT_ROOT)
    assert int(done.stdout) < large.nbytes
