"""Guarantee files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz.harness import accepted, fuzz, judged, mutated, raw, refused, scratch
from hypothesis import given
from hypothesis import strategies as st

from certmix.verification.guarantee import Guarantee, read_guarantee

TEXT = b"""version = 1
requirements = [
    "certified_accuracy@0.5 >= 0.4",
    "robust.clean_accuracy >= 0.7 on value",
]

[data]
name = "cifar10-sample"
images = 100
input_range = [0, 1]

[standard]
model = "cifar10-standard"

[robust]
model = "nets.py:robust"
checksum = "%s"
pin = true

[sampling]
samples = 10000
seed = 0

[certificate]
name = "exact"
alpha = 0.76
sigma = 0.5
failure_probability = 0.001
radii = [0, 0.25, "1/2", 0.75]
""" % (b"a" * 64)

odd_toml = st.sampled_from(
    [
        "", "true", "-1", "0", "1.5", "nan", "inf", "-inf", "1e400", "9" * 30, "9" * 5000, '""', '"x"', '"a\\nb"',
        '"\\u001b[31m"', "'''a\nb'''", '"' + "x" * 5000 + '"', "[]", "{}", "[[]]", "[1, [2]]", "{a = 1}", "1979-05-27",
        "[" * 5000 + "]" * 5000, "{a=" * 500 + "1" + "}" * 500, '"../../../etc/passwd"', '"~\\u0000"', '"1/0"', '"8/255"',
        '["a >= 1"]', '["clean_accuracy >= 1e400"]', '["clean_accuracy >= 0.5", "clean_accuracy >= 0.5"]',
        '["clean_accuracy@0.5 >= 0.1 on lower bound"]', '["certified_accuracy@9e999 >= 0.1"]', "0x10", "1_000", "none",
    ]
)  # fmt: skip


@st.composite
def odd_lines(draw: st.DrawFn) -> bytes:
    """A guarantee with one to three values replaced, lines removed, repeated or added."""
    lines = TEXT.decode().splitlines()
    for _ in range(draw(st.integers(1, 3))):
        at, kind = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, 6))
        if kind <= 3 and "=" in lines[at]:
            lines[at] = lines[at].partition("=")[0] + "= " + draw(odd_toml)
        elif kind == 4:
            lines[at] = ""
        elif kind == 5:
            lines.insert(
                at,
                draw(
                    st.sampled_from(
                        [lines[at], "[extra]", "[[data]]", "[data.x]", "a.b.c = 1", '"a\\nb" = 1']
                    )
                ),
            )
        else:
            lines.insert(at, draw(st.text(max_size=10)))
    end = draw(st.sampled_from(["\n", "\n", "\r\n", "\r"]))
    return draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf"])) + end.join(lines).encode(
        "utf-8", "surrogatepass"
    )


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


def test_the_guarantee_is_good_to_begin_with(place: Path) -> None:
    (place / "guarantee.toml").write_bytes(TEXT)
    assert len(accepted(lambda: read_guarantee(place / "guarantee.toml"), place).requirements) == 2


@given(odd_lines() | mutated(TEXT) | raw)
@fuzz
def test_guarantees(place: Path, content: bytes) -> None:
    (place / "guarantee.toml").write_bytes(content)
    found = judged(lambda: read_guarantee(place / "guarantee.toml"), place)
    if isinstance(found, Guarantee):
        assert found.requirements
        judged(lambda: found.asked)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff\xfe", b"[" * 100_000, b"a = " + b"[" * 100_000, b"version = 1\nversion = 1\n", b"x" * (1 << 21),
        b"version = 2\n" + TEXT[12:], TEXT.replace(b"0.76", b"nan"), TEXT.replace(b"10000", b"1e400"),
        TEXT.replace(b"[data]", b"[data]\nrun = 'rm'"), b"\0" * 64,
    ],
    ids=range(11),
)  # fmt: skip
def test_guarantees_that_are_none(place: Path, content: bytes) -> None:
    (place / "guarantee.toml").write_bytes(content)
    refused(lambda: read_guarantee(place / "guarantee.toml"), place)


def test_guarantees_that_are_folders_or_missing(tmp_path: Path) -> None:
    refused(lambda: read_guarantee(tmp_path), tmp_path)
    refused(lambda: read_guarantee(tmp_path / "none"), tmp_path)
