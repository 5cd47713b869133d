"""A run's folder: identity, lock, database, run.json and what was last shown."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from certmix.errors import DataError, ModelError, ParameterError, RunError
from certmix.files import digest_of, parse_json, write_atomically
from certmix.runs.settings import Settings
from certmix.runs.store import Store

CERTIFY = "certify"


def command_of(study: str) -> str:
    """Return the command that makes the runs of a study, as it is typed."""
    if study == "nuts-certified":
        return "certmix nuts fit --certified"
    for prefix, words in (("certify-", "certify --certificate "), ("nuts-", "nuts ")):
        if study.startswith(prefix):
            return f"certmix {words}{study.removeprefix(prefix)}"
    return f"certmix {study}"


NOISE_VERSION = 2
"""Raised when the same key would draw other noise."""


class Identity(Settings, frozen=True):
    """What decides which samples are drawn: data and base classifier h by checksum, and how noise is made.

    Not part of it: alpha, certificates, radii, failure probability, the standard classifier, and which images
    are asked for.  `sigma` is the noise level, `seed` the key of all noise, `selection_samples` choose the
    class; `scores` is ``hard``, or ``soft`` with its temperature: what is kept of a sample.
    """

    data: str
    data_checksum: str
    robust: str
    robust_checksum: str
    sigma: float
    seed: int
    selection_samples: int
    precision: str
    scores: str = "hard"
    noise_version: int = NOISE_VERSION

    @property
    def study(self) -> str:
        """The command that makes such runs."""
        return CERTIFY

    def folder_name(self) -> str:
        """Return a readable and unique folder name: data and model count by checksum, not by name."""
        words = f"{self.data}-{self.robust}-sigma{self.sigma:g}-seed{self.seed}"
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
            texts = (" ".join(str(value).split()) for value in (stored.get(part), own[part]))
            there, asked = (text[:12] + "..." if len(text) >= 64 else text for text in texts)
            found.append(f"{part} is {there} there, {asked} asked")
    return found


def _folder_name(words: str, parts: dict[str, Any]) -> str:
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '_', words)}-{digest_of(parts)[:8]}"


ASIDE = ".earlier"
"""Folder, inside a run's own, that keeps what ``--fresh`` replaces until the new run has begun."""
FORMAT_VERSION = 2
DATABASE = "numbers.sqlite"
DESCRIPTION, LOCK = "run.json", "lock"
FILES = (*(f"{DATABASE}{end}" for end in ("", "-wal", "-shm")), DESCRIPTION)
"""What belongs to one run and goes with ``--fresh``."""


def set_aside(folder: Path) -> None:
    """Move the files of a run out of the way; whatever was set aside before is deleted.

    RunError if one cannot be moved; then all are where they were.
    """
    stuck = "{} cannot be deleted ({}): remove it, or name another --output"
    for name in FILES:
        if (folder / name).is_dir():
            raise RunError(stuck.format(folder / name, "it is a folder"))
    forget(folder)
    present = [name for name in FILES if os.path.lexists(folder / name)]
    if not present:
        return
    try:
        (folder / ASIDE).mkdir()
        for name in present:
            os.replace(folder / name, folder / ASIDE / name)
    except OSError as error:
        put_back(folder)
        raise RunError(stuck.format(error.filename, error.strerror)) from None


def put_back(folder: Path, delete: bool = False) -> None:
    """Move back what was set aside; first delete the new run's files, if they are to go."""
    if not (folder / ASIDE).is_dir():
        return
    for name in FILES if delete else ():
        (folder / name).unlink(missing_ok=True)
    for path in sorted((folder / ASIDE).iterdir()):
        os.replace(path, folder / path.name)
    (folder / ASIDE).rmdir()


def forget(folder: Path) -> None:
    """Delete what was set aside."""
    shutil.rmtree(folder / ASIDE, ignore_errors=True)


def default_folder(identity: Identity | StudyIdentity) -> Path:
    """Return ``runs/<identity>``, where a run goes unless ``--output`` names a folder."""
    return Path("runs") / identity.folder_name()


def read_run(folder: Path, study: str | None = None) -> dict[str, Any]:
    """Return the contents of a run's ``run.json``, of the command `study` if that is not None.

    RunError if it is missing, unreadable, of another format or of another study.
    """
    path = Path(folder) / DESCRIPTION
    try:
        description = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise RunError(f"{folder} holds no {DESCRIPTION}: name the folder of a certmix run") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is not readable ({error}): restore it or start over with --fresh") from None
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
    if study is not None and told != study:
        raise RunError(f"{folder} is a run of {command_of(told)}: name a run of {command_of(study)}")
    return description


class Run:
    """One run: its store, and its folder, made if missing and locked while open; in memory without `path`.

    A run that `fresh` replaces lies aside until the folder is closed; it is put back if by then nothing was
    kept of the new one, or a value, the data or a model of it was refused.  `classes` are those of a run that
    is sampled.  RunError if another process writes to the folder, or it holds a run of another identity.
    """

    def __init__(
        self,
        path: Path | None,
        identity: Identity | StudyIdentity,
        classes: int | None = None,
        *,
        fresh: bool = False,
    ) -> None:
        self.path, self.identity, self._fresh = path, identity, fresh
        self._described: dict[str, Any] | None = None
        if path is None:
            self.store = Store(None, classes)
            return
        for name in (LOCK, DATABASE, ASIDE):
            if (path / name).is_symlink():
                raise RunError(f"{path / name} is a link: a run writes only into its own folder; remove it")
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = open(path / LOCK, "a+")  # noqa: SIM115 - held while the folder is open
        except OSError as error:
            raise RunError(
                f"{path}: cannot be used as a run folder ({error.strerror}): choose another --output"
            ) from None
        _take_lock(self._lock, path)
        anew = "name another --output, or use --fresh to start over"
        try:
            if fresh:
                set_aside(path)
            if (path / DESCRIPTION).exists():
                stored = read_run(path)
                if (study := stored["identity"].get("study", CERTIFY)) != identity.study:
                    raise RunError(f"{path} holds a run of {command_of(study)}: {anew}")
                if differences := identity.differences(stored["identity"]):
                    raise RunError(
                        f"{path} holds another run ({'; '.join(differences)}): {anew} "
                        "(docs/runs.md#what-decides-which-samples-are-drawn)"
                    )
            elif (path / DATABASE).exists():
                raise RunError(
                    f"{path} holds records but no {DESCRIPTION}: restore it, or use --fresh to start over"
                )
            else:
                self.describe({})
            self.store = Store(path / DATABASE, classes)
        except BaseException:
            if fresh:
                put_back(path, delete=True)
            self._lock.close()
            raise

    def described(self) -> dict[str, Any]:
        """Return what ``run.json`` says now; nothing of a run in memory."""
        return {} if self.path is None else read_run(self.path)

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
        if self.path is not None:
            content = {"format_version": FORMAT_VERSION, "identity": self.identity.as_dict(), **description}
            write_atomically(self.path / DESCRIPTION, (json.dumps(content, indent=2) + "\n").encode())

    def publish(self, write: Callable[[Path], object], found: dict[str, Any] | None = None) -> None:
        """Have a table written into the folder, and ``run.json`` as this request has it.

        `found` is what only the samples showed; it is added to the description.
        """
        if self.path is None:
            return
        write(self.path)
        described = self._described
        if described is None and found:
            kept = ("format_version", "identity")
            described = {name: value for name, value in self.described().items() if name not in kept}
        if described is not None:
            self.describe({**described, **(found or {})})

    def close(self, *, keep: bool = True) -> None:
        """Close the database and release the lock; put back what `fresh` replaced if nothing was kept."""
        keep = keep and self.store.begun()
        self.store.close()
        if self.path is None:
            return
        try:
            if keep:
                forget(self.path)
            elif self._fresh:
                put_back(self.path, delete=True)
        finally:
            self._lock.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(keep=not isinstance(error, ParameterError | ModelError | DataError))


def _take_lock(handle: Any, folder: Path) -> None:
    """Lock an open file without waiting; the system releases it however the process ends."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        raise RunError(
            f"{folder} is in use by another process: wait for it, or name another --output"
        ) from None
