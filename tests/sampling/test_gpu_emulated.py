"""A GPU's way through the sampler on fake tensors, and the script that is run first where there is one."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from certmix.bounds.statistics import plan, start, to_vector, update
from certmix.certification import soft
from certmix.certification.soft import sums_of, take_sums
from certmix.errors import ModelError
from certmix.sampling import Draw, Sampler, sampler
from certmix.sampling.ablation import shown_pixels
from certmix.sampling.devices import fetch, send
from certmix.sampling.noise import Noise, NoiseKey, on_device
from certmix.sampling.packing import Part

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


def reduced(scores, parts):
    """The sums of scores of parts of which each follows two classes."""
    return sums_of(scores, parts, np.zeros((len(parts), 2), np.int64))


def test_no_line_of_a_round_waits_for_the_gpu(far, monkeypatch):
    from gpu_first import Waits

    made, draws = far
    monkeypatch.setattr(soft, "send", lambda values, device: torch.empty_like(values, device=device))
    with Waits() as found:
        made.submit(draws)
        made.submit_scores(draws, reduced)()
        assert shown_pixels(NoiseKey(0, 0), torch.arange(9, device=META), 12, 4).shape == (9, 12)
    assert not found.lines


class Launched(nn.Module):
    """Two classes; writes down that a batch has begun."""

    def __init__(self, events) -> None:
        super().__init__()
        self.events = events

    def forward(self, x):
        self.events.append("begun")
        return x[:, :2]


HOW = {
    "votes": lambda made, draws: made.submit(draws).result(),
    "sums of scores": lambda made, draws: made.submit_scores(draws, reduced)(),
    "scores": lambda made, draws: list(made.scores(draws)),
    "logits": lambda made, draws: list(made.logits(draws)),
}


@pytest.mark.parametrize("how", HOW)
def test_the_answers_of_a_batch_are_waited_for_once_the_next_has_begun(how, monkeypatch):
    events: list[str] = []

    def late(values):
        return lambda: events.append("waited") or values

    made = Sampler(Launched(events), 2, 0.5, batch_size=100)
    draws = [Draw(torch.zeros(4), k, (130, 250)) for k in range(3)]
    made.submit(draws[:1])  # rows are compared
    events.clear()
    monkeypatch.setattr(sampler, "fetch", late)
    HOW[how](made, draws)
    begun = np.cumsum([one == "begun" for one in events])[[one == "waited" for one in events]]
    assert begun[-1] == 8
    assert (begun >= np.minimum(np.arange(len(begun)) + 2, 8)).all()


def test_sums_made_on_the_device_are_those_of_the_scores():
    rng, counts = np.random.default_rng(0), (7, 1, 60)
    scores = rng.dirichlet(np.full(5, 0.3), sum(counts))
    scores[::9] = np.eye(5)[rng.integers(0, 5, len(scores[::9]))]
    scores[3] = [0.25, 0.25, 0.125, 0.25, 0.125]  # on edges of bins, and several are the largest
    before = [plan(update(start(5, 0), scores)), start(5, 2), start(5, 3, (1,))]
    parts = [Part(k, 0, 10, 0, count, True) for k, count in enumerate(counts)]
    followed = np.array([[one.selected, *one.rivals, one.selected][:2] for one in before])
    found, at = sums_of(torch.from_numpy(scores), parts, followed).numpy(), 0
    for one, row, count in zip(before, found, counts, strict=True):
        own, at = scores[at : at + count], at + count
        statistics, votes = take_sums(one, count, row)
        assert (to_vector(statistics) == to_vector(update(one, own))).all()
        assert (votes == np.bincount(own.argmax(1), minlength=5)).all()


@pytest.mark.parametrize("bad", [[np.nan] * 3, [0.5, 0.4, 0.0]])
def test_scores_that_are_none_are_refused_with_their_part_only(bad):
    parts = [Part(k, 0, 0, 0, 1, True) for k in range(2)]
    found = sums_of(torch.tensor([[0.5, 0.25, 0.25], bad]), parts, np.array([[0], [0]])).numpy()
    assert take_sums(start(3, 0), 1, found[0])[0].samples == 1
    with pytest.raises(ModelError, match="not finite"):
        take_sums(start(3, 0), 1, found[1])


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
