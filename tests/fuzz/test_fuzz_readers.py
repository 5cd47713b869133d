"""Every reader gives a value or one line of certmix, warns of nothing, runs nothing and changes nothing."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from fuzz.harness import CASES, Payload, accepted, fuzz, judged, lay, one_odd
from fuzz.readers import READERS, saved
from hypothesis import given, settings

each = pytest.mark.parametrize("reader", READERS.values(), ids=READERS)


@each
def test_what_is_good_is_read(place: Path, reader) -> None:
    folder = lay(place, reader.made())
    for read in reader.reads:
        accepted(partial(read, folder), place)


@each
def test_odd_files(place: Path, reader) -> None:
    good, files = reader.made(), reader.damaged()

    @settings(fuzz, max_examples=max(1, int(CASES * len(files) / reader.slow)))
    @given(one_odd(files))
    def holds(odd: tuple[str, bytes]) -> None:
        folder = lay(place, reader.settle({**good, odd[0]: odd[1]}))
        for read in reader.reads:
            judged(partial(read, folder), place)

    holds()


@each
def test_cut_and_missing_files_folders_and_links(place: Path, reader) -> None:
    good = reader.made()
    for name, content in reader.damaged().items():
        ends = [content[:at] for at in {0, 1, len(content) // 2, len(content) - 1}]
        for way in (*ends, "missing", "folder", "loop", "dangling"):
            folder = lay(place, {**good, **({name: way} if isinstance(way, bytes) else {})})
            path = folder / name
            if not isinstance(way, bytes):
                path.unlink()
            if way == "folder":
                path.mkdir()
            elif way in ("loop", "dangling"):
                path.symlink_to(path if way == "loop" else folder / "nowhere")
            for read in reader.reads:
                judged(partial(read, folder), place)
            shutil.rmtree(path) if way == "folder" else path.unlink(missing_ok=True)


def programs(valid: bytes, witness: Path) -> Iterator[bytes]:
    """Yield files with a pickle that runs: alone, as torch has it, and in each member of an archive."""
    payload = Payload(witness)
    pickles = [payload.pickled(protocol) for protocol in range(5)]
    yield from pickles
    for protocol in (2, 4):
        yield from (saved({"weight": payload, "identity": payload}, old, protocol) for old in (False, True))
    if not zipfile.is_zipfile(io.BytesIO(valid)):
        return
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(io.BytesIO(valid)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    for name in members:
        for content in (pickles[2], array + pickles[2], array + pickles[4]):
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as file:
                for member, held in {**members, name: content}.items():
                    file.writestr(member, held)
            yield buffer.getvalue()


@each
def test_nothing_is_unpickled(place: Path, tmp_path: Path, reader) -> None:
    good, witness = reader.made(), tmp_path / "witness"
    for name, content in reader.damaged().items():
        for odd in programs(content, witness):
            folder = lay(place, reader.settle({**good, name: odd}))
            for read in reader.reads:
                judged(partial(read, folder), place)
            assert not witness.exists()
