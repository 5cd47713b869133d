"""A run's folder: identity, lock, database, run.json and what was last shown."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from certmix.errors import DataError, ModelError, ParameterError, RunError, brief
from certmix.files import (
    COPY_IT,
    DESCRIPTION,
    LINK_OUT,
    digest_of,
    leads_out,
    make_folder,
    named,
    parse_json,
    read_file,
    remedy_of,
    write_atomically,
)
from certmix.models.composed import paths_changed
from certmix.runs.database import moved, refuse_long
from certmix.runs.locking import HELD, LOCK, Lock
from certmix.runs.settings import Settings
from certmix.runs.store import WRITES, Store, is_look

CERTIFY = "certify"


def command_of(study: str) -> str:
    """Return the command that makes the runs of a study, as it is typed."""
    if study == "nuts-certified":
        return "certmix nuts fit --certified"
    if study == "certify-population":
        return "certmix certify --goal population"
    for prefix, words in (("certify-", "certify --certificate "), ("nuts-", "nuts ")):
        if study.startswith(prefix):
            return f"certmix {words}{study.removeprefix(prefix)}"
    return f"certmix {study}"


NOISE_VERSION = 2
"""Raised when the same key would draw other noise."""


class Identity(Settings, frozen=True):
    """What decides which samples are drawn: data and base classifier h by checksum, and how noise is made.

    Not part of it: alpha, certificates, radii, failure probability, the standard classifier, and which inputs
    are asked for.  `sigma` is the level of Gaussian noise, `noise` and `scale` say which other there is,
    `seed` is the key of all noise, `selection_samples` choose the class; `scores` is ``hard`` with
    what a gate asks of votes, or ``soft`` with its temperature.
    """

    data: str
    data_checksum: str
    robust: str
    robust_checksum: str
    sigma: float | None
    seed: int
    selection_samples: int
    precision: str
    scores: str = "hard"
    noise_version: int = NOISE_VERSION
    noise: str = "gaussian"
    scale: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for ``run.json``; Gaussian noise is said by its sigma alone."""
        left = ("noise", "scale") if self.noise == "gaussian" else ()
        return {name: value for name, value in super().as_dict().items() if name not in left}

    @property
    def study(self) -> str:
        """The command that makes such runs."""
        return CERTIFY

    def folder_name(self) -> str:
        """Return a readable and unique folder name: data and model count by checksum, not by name."""
        level = f"sigma{self.sigma:g}" if self.scale is None else f"{self.noise}{self.scale:g}"
        words = f"{self.data}-{self.robust}-{level}-seed{self.seed}"
        parts = {k: v for k, v in self.as_dict().items() if k not in ("data", "robust")}
        return _folder_name(words, parts)

    def differences(self, stored: dict[str, Any]) -> list[str]:
        """Return one phrase for each part in which a stored identity differs."""
        return _differences(stored, self.as_dict(), ("data", "robust"))


@dataclass(frozen=True)
class StudyIdentity:
    """What the records of an empirical study depend on, and nothing else.

    `study` is the command that makes such runs, `label` readable words for the folder's name; `parts` are
    plain data (JSON): checksums of data and models, attack, seed.
    """

    study: str
    label: str
    parts: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for ``run.json``."""
        return {"study": self.study, **json.loads(json.dumps(self.parts))}

    def folder_name(self) -> str:
        """Return a readable and unique folder name."""
        return _folder_name(f"{self.study}-{self.label}", self.as_dict())

    def differences(self, stored: dict[str, Any]) -> list[str]:
        """Return one phrase for each part in which a stored identity differs."""
        return _differences(stored, self.as_dict(), ())


def _differences(stored: dict[str, Any], own: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    found = []
    for part in own:
        if part not in names and stored.get(part) != own[part]:
            texts = (brief(value) for value in (stored.get(part), own[part]))
            there, asked = (text[:12] + "..." if len(text) >= 64 else text for text in texts)
            found.append(f"{part} is {there} there, {asked} asked")
    return found


def _folder_name(words: str, parts: dict[str, Any]) -> str:
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '_', words)}-{digest_of(parts)[:8]}"


BESIDE, ASIDE = ".fresh", ".earlier"
"""Folders in a run's own: of what ``--fresh`` makes until its first look, then of what that replaces."""
FORMAT_VERSION = 2
DATABASE = "numbers.sqlite"
FILES = (*(f"{DATABASE}{end}" for end in ("", "-wal", "-shm", WRITES)), DESCRIPTION)
"""What belongs to one run and goes with ``--fresh``."""


def swap(folder: Path) -> None:
    """Set a run's files aside and put those made beside them in their place; goes on where it was stopped."""
    beside, aside = folder / BESIDE, folder / ASIDE
    aside.mkdir(exist_ok=True)
    for last, *first in (FILES[:-1], FILES[-1:]):  # the first of each shows how far it came
        if (beside / last).exists():
            moves = (
                [(beside, folder)] if not (folder / last).exists() else [(folder, aside), (beside, folder)]
            )
            for source, target in moves:
                for name in (*first, last):
                    if os.path.lexists(source / name):
                        os.replace(source / name, target / name)
    shutil.rmtree(beside)


def put_back(folder: Path) -> None:
    """Delete a new run's files and move back what was set aside."""
    if (folder / ASIDE).is_dir():
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        for path in sorted((folder / ASIDE).iterdir()):
            os.replace(path, folder / path.name)
        (folder / ASIDE).rmdir()


def default_folder(identity: Identity | StudyIdentity) -> Path:
    """Return ``runs/<identity>``, where a run goes unless ``--output`` names a folder."""
    return Path("runs") / identity.folder_name()


PATHS = (
    "feature_scale", "standard_weights", "robust_weights", "standard_files", "robust_files",
)  # fmt: skip
"""What of a run's sources may be the path of a file."""
SPECS = ("data", "standard", "robust", "denoiser")
"""What of them may hold one."""


def with_paths(sources: Any, change: Callable[[str], str]) -> Any:
    """Return sources with paths changed, also those within specs such as ``file.py:factory``."""

    def changed(key: str, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [changed(key, one) for one in value]
        if not isinstance(value, str):
            return value
        return paths_changed(value, change) if key in SPECS else change(value) if key in PATHS else value

    if not isinstance(sources, dict):
        return sources
    return {key: changed(key, value) for key, value in sources.items()}


def _moved(before: Path | str, after: Path | str) -> Callable[[str], str]:
    """Return what makes a path that begins with ``./`` or ``../`` one that is seen from another folder."""
    there, here = os.path.realpath(before), os.path.realpath(after)

    def moved(path: str) -> str:
        if not path.startswith(("./", "../")):
            return path
        try:
            seen = os.path.relpath(os.path.join(there, path), here).replace(os.sep, "/")
        except ValueError:  # of another drive
            return os.path.normpath(os.path.join(there, path))
        return seen if seen.startswith("../") else f"./{seen}"

    return moved


def _refuse_name(folder: Path) -> None:
    """Refuse a path that is more than one line, which neither `Sources` nor a printed command can hold."""
    if len(f"{folder}.".splitlines()) > 1:
        raise RunError(f"{str(folder)!r} has a line end in its name: rename the folder, or name another")


def read_run(folder: Path, study: str | None = None, place: Path | None = None) -> dict[str, Any]:
    """Return the contents of a run's ``run.json``, of the command `study` if that is not None.

    Relative paths in its sources are then seen from the working folder; `place` is where the run's folder
    will lie, None where it is.  RunError if it is missing, unreadable, of another format or another study.
    """
    path = Path(folder) / DESCRIPTION
    _refuse_name(path.parent)
    if leads_out(folder, DESCRIPTION):
        raise RunError(f"{path} {LINK_OUT}: {COPY_IT}")
    try:
        description = parse_json(read_file(path))
    except FileNotFoundError:
        raise RunError(f"{folder} holds no {DESCRIPTION}: name the folder of a certmix run") from None
    except NotADirectoryError:
        raise RunError(f"{folder} is no folder: name the folder of a certmix run") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        remedy = remedy_of(error, "restore it or start over with --fresh")
        raise RunError(f"{named(path, error)} is not readable ({reason}): {remedy}") from None
    version = description.get("format_version") if isinstance(description, dict) else None
    if isinstance(version, bool) or not isinstance(version, int) or version != FORMAT_VERSION:
        found = f"format version {version!r:.20}, this certmix reads {FORMAT_VERSION}"
        old = isinstance(version, int) and version < FORMAT_VERSION
        remedy = "make the run again with --fresh or another --output" if old else "update certmix"
        raise RunError(f"{path}: {found}: {remedy}")
    identity = description.setdefault("identity", {})
    told = identity.get("study", CERTIFY) if isinstance(identity, dict) else None
    if not isinstance(told, str) or not told.isprintable():
        raise RunError(f"{path} has an identity that is no object: restore it or start over with --fresh")
    if "sources" in description:
        description["sources"] = with_paths(description["sources"], _moved(place or folder, ""))
    if study is not None and told != study:
        raise RunError(f"{folder} is a run of {command_of(told)}: name a run of {command_of(study)}")
    return description


class Run:
    """One run: its store, and its folder, made if missing and locked while open; in memory without `path`.

    A `fresh` run is made beside an earlier one and takes its place with its first look: until then the
    earlier one stays, and it comes back if a value, the data or a model of the new one is refused.  `classes`
    are those of a run that is sampled; `say` receives warnings.  RunError if another process writes to the
    folder, or it holds a run of another identity.
    """

    def __init__(
        self,
        path: Path | None,
        identity: Identity | StudyIdentity,
        classes: int | None = None,
        *,
        fresh: bool = False,
        say: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.path, self.identity, self._say = path, identity, say
        self._described: dict[str, Any] | None = None
        self._files, self._useful, self._swapped = path, False, False  # where the run's files lie now
        if path is None:
            self.store = Store(None, classes)
            return
        _refuse_name(path)
        try:
            for name in (LOCK, HELD, BESIDE, ASIDE, *FILES[:-1]):
                if (path / name).is_symlink():
                    told = "a run writes only into its own folder; remove it"
                    raise RunError(f"{path / name} is a link: {told}")
            refuse_long(path / BESIDE / DATABASE)
            make_folder(path)
            self._lock = Lock(path, say)
        except OSError as error:
            raise _unusable(path, error) from None
        anew = "name another --output, or use --fresh to start over"
        try:
            if (path / BESIDE).is_dir():  # its maker was killed
                if (path / ASIDE).is_dir():
                    swap(path)
                shutil.rmtree(path / BESIDE, ignore_errors=True)
            if fresh and any(os.path.lexists(path / name) for name in FILES):
                for name in FILES:
                    if (path / name).is_dir():
                        told = f"{path / name} cannot be deleted (it is a folder)"
                        raise RunError(f"{told}: remove it, or name another --output")
                    if not (path / DATABASE).exists() and name != DESCRIPTION:  # parts of none are of no use
                        (path / name).unlink(missing_ok=True)
                shutil.rmtree(path / ASIDE, ignore_errors=True)
                (path / BESIDE).mkdir()
                self._files = path / BESIDE
            assert self._files is not None
            database, earlier = self._files / DATABASE, {}
            if (self._files / DESCRIPTION).exists():
                earlier = read_run(path)
                if (study := earlier["identity"].get("study", CERTIFY)) != identity.study:
                    raise RunError(f"{path} holds a run of {command_of(study)}: {anew}")
                if differences := identity.differences(earlier["identity"]):
                    raise RunError(
                        f"{path} holds another run ({'; '.join(differences)}): {anew} "
                        "(docs/runs.md#what-decides-which-samples-are-drawn)"
                    )
            elif database.exists():
                raise RunError(
                    f"{path} holds records but no {DESCRIPTION}: restore it, or use --fresh to start over"
                )
            else:
                self.describe({})
            if "request" in earlier and not database.exists():
                say(f"{database} is missing: the run begins from nothing; restore it if there is a copy")
            try:
                self.store = Store(database, classes, alone=self._lock.lacking)
            except RunError:
                self._refuse_moved(self._files)
                raise
            if self.store.lost:
                say(
                    f"{database} lacks its last {self.store.lost} writes: {DATABASE}-wal is missing or old; "
                    "if the folder was copied, copy all of it again; the run goes on from what is there"
                )
            self.store.wrote = self._wrote
        except BaseException as error:
            if self._files != path:
                shutil.rmtree(path / BESIDE, ignore_errors=True)
            self._lock.release()
            if isinstance(error, OSError):
                raise _unusable(path, error) from None
            raise

    def _wrote(self, cells: set[str]) -> None:
        """Put a run that is made beside an earlier one in its place with its first look."""
        if self._files != self.path and any(map(is_look, cells)):
            self._take_place()

    def _take_place(self) -> None:
        self._useful = True
        try:
            self._move()
        except KeyboardInterrupt:
            self._move()
            raise

    def _move(self) -> None:
        """Close the database, move it with its description, and open it again; goes on where it stopped."""
        assert self.path is not None
        self.store.close()
        try:
            if (self.path / BESIDE).is_dir():
                swap(self.path)
        except OSError as error:
            raise _unusable(self.path, error) from None
        self._files, self._swapped = self.path, True
        self.store.open(self.path / DATABASE)

    def described(self) -> dict[str, Any]:
        """Return what ``run.json`` says now; nothing of a run in memory."""
        if self._files is None:
            return {}
        self._refuse_moved(self._files / DESCRIPTION)
        return read_run(self._files, place=self.path)

    def _refuse_moved(self, path: Path) -> None:
        """Refuse a run of which this is no longer where it was; a write would make its folder anew."""
        if not os.path.lexists(path):
            raise moved(path)

    def begin(self, description: dict[str, Any]) -> None:
        """Take what ``run.json`` is to say once this request publishes; write it now if none is there.

        Until then it tells of the request before, whose table lies in the folder.
        """
        if "request" in self.described():
            self._described = description
        else:
            self.describe(description)

    def describe(self, description: dict[str, Any]) -> None:
        """Write ``run.json``: the identity and whatever `description` adds."""
        self._described = None
        if self._files is not None:
            self._refuse_moved(self._files)
            content = {"format_version": FORMAT_VERSION, "identity": self.identity.as_dict(), **description}
            if self.path is not None and "sources" in content:  # seen from it, wherever it is opened
                content["sources"] = with_paths(content["sources"], _moved("", self.path))
            write_atomically(self._files / DESCRIPTION, (json.dumps(content, indent=2) + "\n").encode())

    def publish(self, write: Callable[[Path], object], found: dict[str, Any] | None = None) -> None:
        """Have a table written into the folder, and ``run.json`` as this request has it.

        `found` is what only the samples showed; it is added to the description.
        """
        if self.path is None:
            return
        self._refuse_moved(self.path)
        if self._files != self.path:
            self._take_place()
        write(self.path)
        described = self._described
        if described is None and found:
            kept = ("format_version", "identity")
            described = {name: value for name, value in self.described().items() if name not in kept}
        if described is not None:
            self.describe({**described, **(found or {})})
        self.store.gather()

    def close(self, *, keep: bool = True) -> None:
        """Close the database and release the lock; the earlier run stays, or comes back, unless `keep`."""
        try:
            if self.path is not None and self._files != self.path:
                if keep and (self._useful or any(map(is_look, self.store.cells()))):
                    self._take_place()
                else:
                    self._say(f"{self.path} keeps its earlier run: nothing of the new one was of use yet")
            self.store.close()
            if self.path is None:
                return
            if self._files != self.path:
                shutil.rmtree(self.path / BESIDE, ignore_errors=True)
            elif keep:
                shutil.rmtree(self.path / ASIDE, ignore_errors=True)
            elif self._swapped:
                put_back(self.path)
        finally:
            if self.path is not None:
                self._lock.release()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(keep=not isinstance(error, ParameterError | ModelError | DataError))


def _unusable(folder: Path, error: OSError) -> RunError:
    """Return the error of a folder that cannot be written to."""
    if error.errno == errno.ENAMETOOLONG:
        remedy = "choose a shorter --output"
    elif error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free space and repeat the command; all that was kept is there"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and os.path.exists(folder / DESCRIPTION):
        remedy = (
            "it is read-only: certmix show prints its table; to go on, copy it and name the copy by --output"
        )
    else:
        remedy = "choose another --output"
    return RunError(f"{named(folder, error)}: cannot be used as a run folder ({error.strerror}): {remedy}")
