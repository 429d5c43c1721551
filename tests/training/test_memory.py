"""The micro-batch that fits: found without harm, the same for all processes, under a cap that torch enforces.

No GPU is needed here: what fits is told by a stand-in, and running out of memory is raised by the model.
"""

import sys
from types import SimpleNamespace

import psutil
import pytest
import torch

from extractive_qa.errors import QAError
from extractive_qa.model.loading import load_model
from extractive_qa.training import memory as micro_batch
from extractive_qa.training.memory import (
    bytes_kept,
    cap_memory,
    choose_micro_batch,
    forward_and_backward,
    largest_that_fits,
    require_memory,
    step_fits,
)

CPU = torch.device("cpu")
GIB = 2**30


@pytest.mark.parametrize("windows", [1, 16, 18])
def test_the_largest_divisor_that_fits_is_found_and_memory_exceeded_at_most_once(windows):
    for room in range(20):
        tried = []

        def fits(size, room=room, tried=tried):
            tried.append(size)
            return size <= room

        expected = max((size for size in range(1, windows + 1) if windows % size == 0 and size <= room), default=0)
        assert largest_that_fits(windows, fits) == expected
        assert sum(size > room for size in tried) <= 1
        assert tried == sorted(set(tried))


def on_cuda(processes: int = 1) -> SimpleNamespace:
    return SimpleNamespace(device=torch.device("cuda"), num_processes=processes, unwrap_model=lambda model: model)


@pytest.mark.parametrize(("room", "expected"), [(1, (1, 16)), (5, (4, 4)), (9, (8, 2)), (100, (16, 1))])
def test_the_windows_of_a_step_stay_the_same(monkeypatch, room, expected):
    monkeypatch.setattr(micro_batch, "step_fits", lambda model, size, length: size <= room)
    assert choose_micro_batch(4, 4, on_cuda(), None, 384) == expected


def test_all_processes_take_what_fits_the_smallest_card(monkeypatch):
    monkeypatch.setattr(micro_batch, "step_fits", lambda model, size, length: size <= 16)
    monkeypatch.setattr(micro_batch, "gather_object", lambda found: [*found, 4, 8])
    assert choose_micro_batch(4, 8, on_cuda(3), None, 384) == (4, 8)
    monkeypatch.setattr(micro_batch, "gather_object", lambda found: [*found, 0])  # every process hears of it
    with pytest.raises(QAError, match="--gradient_checkpointing"):
        choose_micro_batch(4, 8, on_cuda(2), None, 384)


def test_not_even_one_window_says_what_to_do(monkeypatch):
    monkeypatch.setattr(micro_batch, "step_fits", lambda *_: False)
    with pytest.raises(QAError, match=r"1 window.*--gradient_checkpointing"):
        choose_micro_batch(4, 4, on_cuda(), None, 384)


def test_nothing_is_tried_out_elsewhere(monkeypatch):
    for name in ("step_fits", "bytes_kept"):
        monkeypatch.setattr(micro_batch, name, None)
    accelerator = SimpleNamespace(device=torch.device("mps"), num_processes=1, unwrap_model=lambda model: model)
    assert choose_micro_batch(4, 8, accelerator, None, 384) == (4, 8)


@pytest.mark.parametrize(("processes", "free", "expected"), [
    ("1", 100 * GIB, (16, 1)), ("1", 20 * GIB, (8, 2)), ("2", 20 * GIB, (4, 4)), ("1", GIB, (1, 16)),
])  # fmt: skip
def test_on_a_cpu_twice_the_least_has_to_be_free(monkeypatch, processes, free, expected):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    monkeypatch.setattr(micro_batch, "bytes_kept", lambda model, length: GIB)
    monkeypatch.setattr(micro_batch, "free_memory", lambda: free)
    accelerator = SimpleNamespace(device=CPU, num_processes=1, unwrap_model=lambda model: model)
    assert choose_micro_batch(4, 4, accelerator, torch.nn.Linear(8, 8), 384) == expected


@pytest.mark.parametrize("room", [3, 2])
def test_trying_out_leaves_weights_mode_gradients_and_random_state(tiny_model, monkeypatch, room):
    model = load_model(tiny_model).eval()
    forward, seen = model.forward, []

    def forward_with_room(input_ids, **inputs):
        gradients = sum(parameter.grad is not None for parameter in model.parameters())
        seen.append((tuple(input_ids.shape), model.training, gradients > 0, bool(inputs["attention_mask"].all())))
        torch.rand(1)  # as dropout does
        if len(input_ids) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(input_ids=input_ids, **inputs)

    monkeypatch.setattr(model, "forward", forward_with_room)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    assert step_fits(model, 3, 40) is (room == 3)
    # windows of full length, in training mode, the second time with gradients
    assert seen == [((3, 40), True, False, True), ((3, 40), True, True, True)][: len(seen)]
    assert len(seen) == (2 if room == 3 else 1)
    assert not model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_optimizers_state_has_its_place_while_trying(tiny_model, monkeypatch):
    """AdamW keeps two numbers for each weight; a micro-batch that fits only without them would fail at step 2."""
    model = load_model(tiny_model)
    forward, taken, zeros_like = model.forward, [], torch.zeros_like

    def counted(tensor, **settings):
        taken.append(tensor.numel())
        return zeros_like(tensor, **settings)

    def forward_when_taken(**inputs):
        assert sum(taken) >= 2 * sum(parameter.numel() for parameter in model.parameters())
        return forward(**inputs)

    monkeypatch.setattr(torch, "zeros_like", counted)
    monkeypatch.setattr(model, "forward", forward_when_taken)
    assert step_fits(model, 1, 40)


@pytest.mark.parametrize(("asked", "cap"), [(None, 0.85 * 3 * GIB), (3.5, 3.5 * GIB), (1, GIB)])
def test_the_cap_is_85_percent_of_what_is_free_or_what_was_asked_for(monkeypatch, caplog, asked, cap):
    fractions = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * GIB, 4 * GIB))
    # torch's own function runs, but for the driver: it refuses a device without a number, as accelerate gives it
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(
        torch._C, "_cuda_setMemoryFraction", lambda *arguments: fractions.append(arguments), raising=False
    )
    for device, number in (("cuda", 0), ("cuda:1", 1)):
        assert cap_memory(torch.device(device), asked) == pytest.approx(cap)
        assert fractions.pop() == (pytest.approx(cap / (4 * GIB)), number)
        assert ("3.0 GiB that other programs leave free" in caplog.text) == (asked == 3.5)
    with pytest.raises(QAError, match=r"--max_gpu_memory 5 .* 4.0 GiB"):
        cap_memory(torch.device("cuda"), 5)


def test_without_a_cuda_card_there_is_no_cap_and_who_asks_for_one_is_told(caplog):
    assert cap_memory(CPU, None) is None
    assert caplog.text == ""
    assert cap_memory(CPU, 2) is None
    assert "no effect" in caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card here")
def test_on_a_card_a_step_beyond_the_cap_does_not_fit_and_nothing_is_kept(tiny_model):
    model = load_model(tiny_model).cuda()
    device = next(model.parameters()).device
    before = torch.cuda.memory_allocated(device)
    cap_memory(device, 1)
    try:
        assert step_fits(model, 1, 384)
        assert not step_fits(model, 100_000, 384)
        assert torch.cuda.memory_allocated(device) == before
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


# a CPU's memory


def on_cpu() -> SimpleNamespace:
    return SimpleNamespace(device=CPU, is_main_process=True, unwrap_model=lambda model: model)


@pytest.fixture(scope="module")
def model(tiny_model):
    return load_model(tiny_model)


def test_what_a_window_keeps_grows_with_its_length_and_nothing_is_left_changed(model):
    model.eval()
    state = torch.get_rng_state()
    kept = [bytes_kept(model, length) for length in (32, 64, 128)]
    assert 1.9 * kept[0] < kept[1] < kept[2] / 1.9  # little does not grow with the length
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_a_window_keeps_is_less_than_what_a_step_takes(model):
    """A lower bound: nothing that fits may be refused. Twice of it is what the warning names."""
    hidden = model.config.num_hidden_layers * 128 * model.config.hidden_size * 4
    assert bytes_kept(model, 128) > 4 * hidden  # several tensors a layer
    with torch.profiler.profile(profile_memory=True) as profile:
        forward_and_backward(model, 1, 128)
    model.zero_grad()
    allocated = sum(max(0, event.self_cpu_memory_usage) for event in profile.events())
    assert bytes_kept(model, 128) < allocated


@pytest.mark.fault("too little memory")
def test_too_little_memory_is_said_before_the_training_starts(model, monkeypatch, caplog):
    state = 12 * sum(parameter.numel() for parameter in model.parameters())
    needed = state + 4 * bytes_kept(model, 64)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(free=1000))
    for free, warned in ((2 * needed, False), (2 * needed - 1, True), (needed - 1000, True)):
        monkeypatch.setattr(micro_batch, "free_memory", lambda free=free: free)
        require_memory(on_cpu(), model, 4, 64)
        assert ("--gradient_checkpointing" in caplog.text) == warned
        caplog.clear()
    monkeypatch.setattr(micro_batch, "free_memory", lambda: needed - 1001)
    with pytest.raises(QAError, match=r"GiB of memory are free here, .* 4 window\(s\) of 64 tokens.*--max_length"):
        require_memory(on_cpu(), model, 4, 64)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(micro_batch, "free_memory", lambda: 2 * needed - 1001)
    with pytest.raises(QAError):
        require_memory(on_cpu(), model, 4, 64)
    require_memory(on_cuda(), None, 4, 64)  # it says so itself
