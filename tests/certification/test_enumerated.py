"""Votes on all cases, from a run to its table and back: verify, falsify, other alphas; what is refused."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from certmix.certification.analysis.trade_off import trade_off
from certmix.certification.request.proved import Enumerated
from certmix.certification.request.reading import request_of
from certmix.certification.request.shard import Shard
from certmix.certification.run import run_certify
from certmix.certification.shards import merge
from certmix.certification.stored import recertify
from certmix.errors import CertmixError, DataError, ModelError, ParameterError, RunError
from certmix.files import digest_of
from certmix.radii.counted import EXACT, THEOREM, Counted, votes_ahead
from certmix.runs import Store
from certmix.runs.folder import DATABASE
from certmix.runs.sources import Sources
from certmix.verification.falsify.falsify import attack_claims, falsify, read_claims, replay
from certmix.verification.guarantees.guarantee import parse_guarantee
from certmix.verification.proofs import check_votes
from certmix.verification.request import FalsifyRequest, VerifyRequest
from certmix.verification.verify import verify

LEVEL, SIDE = 131, 8
REACH = {"bands": 1.0, "splitting": 3 / 255}
"""What alpha = 0.76 certifies of `Brightest` and `Darkest`: of 8 votes 3 must be ahead, of 10 votes 4."""
SCALE = {"bands": 2.0, "splitting": 5 / 255}


class Brightest(nn.Module):
    """Class 1 while no pixel shown is bright: a bright one changes every vote that it is seen in."""

    def forward(self, shown):
        most = 8 * (shown[:, :-1].amax((1, 2, 3)) - 0.8)
        return torch.stack([most, -most, torch.full_like(most, -9)], 1)


class Darkest(nn.Module):
    """Class 1 while no coordinate lies 5.2 levels below the usual one: a level crossed changes one vote."""

    def forward(self, shown):
        low = -torch.logsumexp(-2000 * (shown.flatten(1) - (LEVEL - 5.2) / 255), 1)
        return torch.stack([-low, low, torch.full_like(low, -99)], 1)


NETS = {"bands": Brightest, "splitting": Darkest}


@pytest.fixture
def sources(tmp_path, request):
    levels = np.full((4, 3, SIDE, SIDE), LEVEL, np.uint8)
    levels[2:, :, 5, 3] += 2  # not all the same input
    np.savez(tmp_path / "data.npz", inputs=levels, labels=[1, 1, 1, 2])
    return lambda kind: Sources(data=str(tmp_path / "data.npz"), robust=NETS[kind]().eval(), standard=None)


def asked(kind: str, **settings) -> Enumerated:
    return Enumerated(noise=kind, **{"alpha": 0.76, "scale": SCALE[kind], "inputs": "all", **settings})


@pytest.mark.parametrize("kind", NETS)
def test_a_run_is_verified_attacked_in_vain_and_caught_where_it_claims_more(sources, tmp_path, kind):
    given, folder = sources(kind), tmp_path / "run"
    found = run_certify(asked(kind), given, output=folder)
    alone, mixed, theorem = found.outcomes.radii
    assert (mixed.certificate, theorem.certificate) == (EXACT, THEOREM)
    assert mixed.radius[:2].tolist() == [REACH[kind]] * 2 == theorem.radius[:2].tolist()
    assert (alone.radius > mixed.radius).all()
    assert found.summary.rows[1].certified_accuracy[0] == 0.75, "one label is another"
    checks = verify(folder, VerifyRequest(new_seed=1), sources=given)
    assert not [str(one) for one in checks.checks if one.outcome == "fails"]
    attack = FalsifyRequest(inputs="all", steps=3, restarts=2)
    honest = falsify(folder, attack, sources=given)
    assert len(honest.attacked) == 4 and not honest.findings

    claims = read_claims(folder, attack)
    more = 1.0 if kind == "bands" else 1 / 255
    lies = claims._replace(
        claims=tuple(one.__class__(one.index, one.predicted, one.radius + more) for one in claims.claims)
    )
    from certmix.verification.falsify.falsify import _input_of, _load_target

    target, dataset = _load_target(folder, claims, given, False, "cpu", print)
    caught = attack_claims(target, lies, lambda claim: _input_of(dataset, claim), attack)
    assert all(one.found and one.distance <= one.claim.radius for one in caught[:2])

    with closing(Store(folder / DATABASE, 3)) as store:  # votes that nobody cast
        cell = asked(kind).cell
        told = store.read(cell, [0])
        told[0, :5] = 2 * 20 + 19
        store.write(cell, [0], told)
    checks = {
        one.check: one for one in verify(folder, VerifyRequest(resample=4, new_seed=1), sources=given).checks
    }
    assert checks["radii again"].outcome == "fails" and 0 in checks["radii again"].inputs
    assert checks["published files"].outcome == "fails"
    assert [one.claim.index for one in falsify(folder, attack, sources=given).attacked] == [1, 2, 3]


@pytest.mark.parametrize("gate", [0.0, 0.5])
@pytest.mark.parametrize("kind", NETS)
def test_the_script_proves_votes_and_notices_a_change_of_any_number(sources, tmp_path, kind, gate):
    given, path, lines = sources(kind), tmp_path / "proof.json", Path(check_votes.__file__).read_text()
    run_certify(asked(kind, gate=gate), given, output=tmp_path / "run")
    told = verify(tmp_path / "run", VerifyRequest(resample=0, proof=str(path)), sources=given)
    assert "check_votes.py" in next(one.message for one in told.checks if one.check == "proof file")
    assert len(lines.splitlines()) <= 150 and "certmix" not in lines.partition("import hashlib")[2]
    script = [sys.executable, "-I", "-S", "-W", "error", check_votes.__file__, path]
    assert subprocess.run(script, capture_output=True, text=True, check=True).stdout == "proved\n"
    proof = json.loads(path.read_text())
    assert not list(check_votes.fails(proof)) and all(proof["inputs"][0]["radii"])

    changes: dict[str, dict] = {}

    def changed(what):
        return changes.setdefault(what, copy.deepcopy(proof))

    step = 1 if kind == "bands" else 1 / 255
    for row, radius in enumerate(proof["inputs"][0]["radii"]):
        for more in (radius + step, 1e9, float("nan"), -1.0):
            changed(f"radius {row}: {more}")["inputs"][0]["radii"][row] = more
        changed(f"certified of row {row}")["rows"][row]["certified"][0] -= 1
        changed(f"alpha of row {row}")["rows"][row]["alpha"] = 0.51
        changed(f"columns of row {row}")["rows"][row]["columns"][0] = 9.0
    for case in range(len(proof["inputs"][0]["answers"])):  # exact: each vote counts
        changed(f"answer {case}")["inputs"][0]["answers"][case] = 2 * 20 + 19
    for what, value in (("scale", proof["scale"] * 2), ("level", 20), ("noise", "none")):
        changed(what)[what] = value
    for what in ("selected", "label"):
        changed(what)["inputs"][0][what] = 2
    changed("no class")["inputs"][0]["selected"] = -1
    changed("an answer less")["inputs"][0]["answers"].pop()
    for what, one in changes.items():
        assert [text for _, text in check_votes.fails(one)][:1] == ["the file was changed"], what
        one["digest"] = digest_of({name: part for name, part in one.items() if name != "digest"})
        assert list(check_votes.fails(one)), what


def test_the_script_decides_as_the_product_does():
    """Random votes: the largest radius holds, the next does not, for both kinds, with abstentions."""
    rng = np.random.default_rng(3)
    votes = np.where(rng.random((60, 9)) < 0.8, 1, rng.integers(-1, 3, (60, 9)))
    for kind, scale in (("bands", 2.0), ("splitting", 9 / 510)):
        counted = Counted.of(votes, 3)
        for alpha in (0.6, 0.76, 0.9, 1.0):
            radii = counted.radii(kind, scale, [(EXACT, alpha)])[0].radius * (1 if kind == "bands" else 255)
            for own, label, size in zip(votes.tolist(), counted.selected.tolist(), radii, strict=True):
                ahead = votes_ahead(alpha, 9)
                margins = [
                    check_votes.least_margin(kind, own, label, int(scale) or 1, k) for k in range(10)
                ] if label >= 0 else []  # fmt: skip
                assert sum(one >= ahead for one in margins) == (round(size) + 1 if size else
                    int(bool(margins) and margins[0] >= ahead))  # fmt: skip


def test_a_finding_is_judged_again(sources, tmp_path):
    """Votes of another network: what they certify is wrong, and a patch shows it."""
    given, folder = sources("bands"), tmp_path / "run"
    run_certify(asked("bands", scale=1.0), given, output=folder)
    with closing(Store(folder / DATABASE, 3)) as store:
        cell = asked("bands", scale=1.0).cell
        store.write(cell, [0], np.full((1, SIDE), 2 * 20 + 19, np.int64))
    found = falsify(folder, FalsifyRequest(inputs="all", steps=1, restarts=1), sources=given)
    assert found.falsified and [one.claim.index for one in found.findings] == [0]
    again = replay(found.files[0], sources=given)
    assert again.stands


@pytest.mark.parametrize("gate, reach", [(0.0, 1.0), (0.95, 0.0)])
def test_votes_behind_a_gate_abstain(sources, tmp_path, gate, reach):
    """Two of eight bands show both of the first columns, and are not sure of their class."""

    class Unsure(Brightest):
        def forward(self, shown):
            return super().forward(shown) * torch.where(shown[:, -1:, 0, :2].amin((1, 2)) > 0, 0.1, 1.0)

    given = sources("bands").replace(robust=Unsure().eval())
    found = run_certify(asked("bands", gate=gate, scale=3.0, alpha=1.0), given, in_memory=True)
    assert found.outcomes.radii[1].radius[0] == reach


def test_what_a_kind_says_nothing_of_is_refused(sources, tmp_path):
    np.savez(tmp_path / "data.npz", inputs=np.full((2, 3, 4, 4), 0.3217, np.float32), labels=[0, 2])
    with pytest.raises(DataError, match=r"other than k/255.*8-bit images alone: give such images"):
        run_certify(asked("splitting"), sources("splitting"), in_memory=True)
    with pytest.raises(ParameterError, match="scale = 9: bands are 1 to 4 whole columns wide"):
        run_certify(asked("bands", scale=9.0), sources("bands"), in_memory=True)
    for wrong, told in (
        ({"scale": 1.5}, "of bands it is columns of a band: give a whole number such as 4"),
        ({"radii": (1.5,)}, "whole numbers of pixels"),
    ):
        with pytest.raises(ParameterError, match=told):
            asked("bands", **wrong)


def test_a_patch_wider_than_the_input_is_refused(sources, tmp_path):
    told = "a patch of 9 columns does not lie within images of 8: give --patch 8 or less"
    with pytest.raises(ParameterError, match=told):
        run_certify(asked("bands", radii=(1.0, 9.0)), sources("bands"), in_memory=True)
    run_certify(asked("bands", patch=8), sources("bands"), output=tmp_path / "run")
    with pytest.raises(ParameterError, match=told):
        recertify(tmp_path / "run", radii=(9.0,))


def test_a_tie_of_all_votes_is_no_class_to_verify_either(sources, tmp_path):
    """Half of the bands answer the label, half another: h is wrong there, and its clean accuracy says so."""

    class Halves(Brightest):
        def forward(self, shown):
            left = shown[:, -1, 0, :4].amax(1)
            return torch.stack([0 * left, 3 * left, 3 - 3 * left], 1)

    given = sources("bands").replace(robust=Halves().eval())
    found = run_certify(asked("bands", scale=1.0), given, output=tmp_path / "run")
    assert found.outcomes.robust.tolist() == [-1] * 4 and found.summary.clean_accuracy.robust == 0
    checks = verify(tmp_path / "run", VerifyRequest(resample=0), sources=given).checks
    assert not [str(one) for one in checks if one.outcome == "fails"]


def test_a_model_whose_answers_depend_on_other_cases_is_refused(sources):
    class Mixing(Brightest):
        def forward(self, shown):
            return super().forward(shown) + shown[:, :-1].mean()

    with pytest.raises(ModelError, match="change when other inputs of its batch do"):
        run_certify(asked("bands"), sources("bands").replace(robust=Mixing().eval()), in_memory=True)


def test_other_weights_and_gates_need_no_votes_anew(sources, tmp_path):
    given = sources("bands")
    run_certify(asked("bands"), given, output=tmp_path / "run")
    for changes in ({"alpha": 1.0}, {"alpha": 0.6}, {"gate": 0.95, "radii": (1.0, 2.0)}):
        told = recertify(tmp_path / "run", **changes)
        whole = run_certify(asked("bands", **changes), given, in_memory=True).summary
        assert told.rows == whole.rows and told.radii == whole.radii
    with pytest.raises(ParameterError, match="bound = betting: .* has all votes of each input"):
        recertify(tmp_path / "run", bound="betting")


def test_shards_are_merged_into_the_run_that_they_are_shares_of(sources, tmp_path):
    given, found = sources("splitting"), []
    for number in (1, 2):
        shard = Shard(number, 2)
        run_certify(asked("splitting"), given, output=tmp_path / str(number), shard=shard)
        found.append(tmp_path / str(number))
    with pytest.raises(
        RunError, match="2 of 4 inputs are missing or unfinished .*name the folder of shard 2/2"
    ):
        merge(found[:1], tmp_path / "half")
    whole = run_certify(asked("splitting"), given, in_memory=True)
    for _ in range(2):  # once more goes on
        assert merge(found, tmp_path / "merged").summary.rows == whole.summary.rows
    with closing(Store(found[1] / DATABASE, 3)) as store:
        cell = asked("splitting").cell
        store.write(cell, [1], np.zeros((1, 10), np.int64))
    with pytest.raises(RunError, match="holds a run already"):
        merge(found, tmp_path / "merged")


def test_python_and_the_command_line_name_a_kind_by_its_noise():
    given = {"noise": "bands", "alpha": 0.76, "patch": 3}
    made = request_of(dict(given), lambda names, why: None)
    assert made == Enumerated(noise="bands", alpha=0.76, patch=3) and made.radii == (1.0, 2.0, 3.0)
    told = []
    request_of({"noise": "splitting", "alpha": 0.76, "patch": 3}, lambda names, why: told.extend(names))
    assert "patch" in told
    with pytest.raises(ParameterError, match="splitting gives radii in l1 alone"):
        request_of({"noise": "splitting", "alpha": 0.76, "norm": "l2"}, lambda names, why: None)
    usual = Enumerated(noise="splitting", alpha=0.76)
    assert usual.scale == 0.5 and usual.radii[1:] == tuple(k / 255 for k in (20, 40, 60, 80, 100, 120))


def test_a_trade_off_has_the_figures_of_the_tables(sources, tmp_path):
    run_certify(asked("bands"), sources("bands"), output=tmp_path / "run")
    found = trade_off(tmp_path / "run", at_radius=1.0)
    assert (found.norm, found.certificates) == ("patch", (EXACT, THEOREM))
    for mix in found.sweeps[0].mixes[::25]:
        table = recertify(tmp_path / "run", alpha=mix.alpha, radii=(1.0,))
        assert [share.accuracy for share in mix.certified] == [
            row.certified_accuracy[0] for row in table.rows[1:]
        ]


def test_a_guarantee_names_a_kind_and_is_read_back():
    text = """version = 1
requirements = ["certified_accuracy@3 >= 0.2"]
[data]
inputs = 10
[robust]
model = "cifar10-splitting-0.50"
[certificate]
name = "enumerated"
noise = "bands"
alpha = 0.76
[sampling]
gate = 0.3
"""
    found = parse_guarantee(text)
    assert found.asked == Enumerated(noise="bands", alpha=0.76, gate=0.3, inputs=10)
    for old, new, told in (
        ('noise = "bands"\n', "", "no kind of smoothing is named: give noise splitting or bands"),
        ("gate = 0.3", "samples = 100", "certificate enumerated draws no samples"),
        ('noise = "bands"', 'noise = "bands"\nnorm = "l2"', "norm l2: bands gives radii in patch"),
    ):
        with pytest.raises(CertmixError, match=told):
            parse_guarantee(text.replace(old, new))
