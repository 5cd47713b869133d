"""A GPU's way through the sampler on fake tensors, and the script that is run first where there is one."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from certmix.sampling import Draw, Sampler, sampler
from certmix.sampling.devices import fetch, send
from certmix.sampling.noise import Noise, on_device

META = torch.device("meta")


@pytest.fixture(autouse=True)
def _found(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))


class OnMeta(Noise):
    """Noise by the operations of GPUs."""

    def __init__(self, *given) -> None:
        super().__init__(*given)
        self._table = on_device(self.law, self.device)


@pytest.fixture
def far(monkeypatch):
    """A sampler on tensors without values, which fail whoever reads one, and draws for it."""
    monkeypatch.setattr(sampler, "noise_of", OnMeta)
    monkeypatch.setattr(sampler, "arithmetic", lambda *given: nullcontext())
    monkeypatch.setattr(sampler, "is_independent_of_place", lambda call, batch: True)
    monkeypatch.setattr(sampler, "fetch", lambda values: lambda: values)
    made = Sampler(nn.Linear(12, 3, device=META), 3, 0.5, device=META, batch_size=100)
    point = torch.zeros(12, dtype=torch.int32, device=META)
    draws = [Draw(torch.zeros(12), k, (130, 250), point=point) for k in range(5)]
    made.submit(draws)  # tables go to the device
    return made, draws


def test_no_line_of_a_round_waits_for_the_gpu(far):
    from gpu_first import Waits

    made, draws = far
    with Waits() as found:
        made.submit(draws)
    assert not found.lines


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: torch.zeros(4).to(META), lambda x: x.copy_(torch.zeros(4)), lambda x: torch.equal(x, x),
        lambda x: torch.zeros(4).to(META, torch.float64),
    ],
    ids=["sent", "written", "compared", "cast"],
)  # fmt: skip
def test_what_waits_is_counted(wait):
    from gpu_first import Waits

    x = torch.zeros(4, device=META)
    with Waits() as found, suppress(NotImplementedError):
        wait(x)
    assert sum(found.lines.values()) == 1
    with Waits() as found:
        x.copy_(torch.zeros(4), non_blocking=True)
        x.to(torch.float64)
    assert not found.lines


def test_what_goes_to_a_gpu_and_back_is_pinned_and_not_waited_for(monkeypatch):
    events, event = [], SimpleNamespace(
        record=lambda stream: events.append("recorded"), synchronize=lambda: events.append("waited")
    )  # fmt: skip
    monkeypatch.setattr(torch.cuda, "Event", lambda: event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    with FakeTensorMode(), Moves() as moves:
        far = send(torch.zeros(4), torch.device("cuda:0"))
        back = fetch(far)
        assert events == ["recorded"]
        assert back().device.type == "cpu"
    assert events == ["recorded", "waited"]
    assert moves.pinned == 2
    assert moves.blocking == ["cpu to cpu"]  # into pinned memory


class Moves(TorchDispatchMode):
    """Counts pinned tensors, and copies that wait."""

    def __init__(self) -> None:
        super().__init__()
        self.pinned, self.blocking = 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        found, name = func(*args, **kwargs), func.overloadpacket.__name__
        self.pinned += bool(kwargs.get("pin_memory"))
        late = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
        if name in ("copy_", "_to_copy") and not late:
            source = args[1] if name == "copy_" else args[0]
            self.blocking.append(f"{source.device.type} to {found.device.type}")
        return found


def test_the_first_script_of_a_gpu_runs_all_its_steps(capsys):
    import gpu_first

    steps = ",".join(name for name in gpu_first.STEPS if name != "tests")
    assert gpu_first.main(["--device", "cpu", "--quick", "--steps", steps]) == 0
    told = capsys.readouterr().out
    assert "FAILED" not in told
    assert all(f"## {name}" in told for name in steps.split(","))
    assert "batches of 50 became 10, votes are the same" in told


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_line(capsys):
    import gpu_first

    assert gpu_first.main([]) == 2
    assert (
        capsys.readouterr().err
        == "gpu_first.py: device 'cuda' is not available here: use --device auto or cpu\n"
    )
