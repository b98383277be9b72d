"""Which model versions are held: BentoML's model store, with exact tags and signed manifests.

Layout (BentoML's): HOME/models/NAME/VERSION/…, HOME/models/NAME/latest; HOME is a BENTOML_HOME, or
the root of a built bento. Ours beside it: HOME/signer.pub, the pinned public key.
Source: bentoml 1.4 `ModelStore`.
Rule 1: exact tags only. The store itself resolves `digits:1` to `digits:10` and knows `latest`;
it is asked only for a tag whose folder exists.
Rule 2: a version becomes visible by one rename of a complete, synced folder on the same disk, so a
half-written or half-deleted one is never seen and two processes cannot mix their files.
Rule 3: nothing is opened before its signature and every hash agree (manifest.py).
Refusals: ModelNotFound, ArtefactCorrupt, RunnerError; they change nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from bentoml._internal.models import ModelStore
from bentoml.exceptions import BentoMLException
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from .errors import ArtefactCorrupt, ModelNotFound, RunnerError
from .manifest import MANIFEST, Manifest, check_files, key_id, parse
from .staging import rename_new, staging_folder, sync, sync_tree

__all__ = ["NETWORK_FOLDER", "SIGNER", "Artefact", "Registry"]

SIGNER: Final = "signer.pub"
NETWORK_FOLDER: Final = "network/"
_TAG_PART: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")


class Artefact(NamedTuple):
    """A version whose signature and every file were checked when it was opened."""

    path: Path
    manifest: Manifest

    def read(self, name: str) -> bytes:
        """The bytes of one file, checked again as read, so that no later change slips in.

        Raises:
            ArtefactCorrupt: the file is gone or is not what the manifest says.
        """
        where = f"{self.manifest.name}:{self.manifest.version}"
        try:
            data = (self.path / name).read_bytes()
        except OSError as exc:
            raise ArtefactCorrupt(f"could not open {where}: file '{name}' is missing") from exc
        if hashlib.sha256(data).hexdigest() != self.manifest.files.get(name):
            raise ArtefactCorrupt(f"could not open {where}: file '{name}' was changed")
        return data

    def network(self) -> list[str]:
        """The files of a registered model, sorted; a reference model has none of these."""
        return sorted(name for name in self.manifest.files if name.startswith(NETWORK_FOLDER))

    @contextlib.contextmanager
    def unpacked(self) -> Iterator[Path]:
        """A private copy of the registered model's folder, every byte of it checked; then gone.

        For runtimes that open files themselves: what they read is what the manifest says.

        Raises:
            ArtefactCorrupt: a file is gone or is not what the manifest says.
        """
        with tempfile.TemporaryDirectory(prefix="weighbridge-model-") as name:
            for file in self.network():
                path = Path(name) / file.removeprefix(NETWORK_FOLDER)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self.read(file))
            yield Path(name)


class Registry:
    """The versions held under one home folder; safe to use from several processes at once."""

    def __init__(self, home: Path, public_key: Ed25519PublicKey | None = None) -> None:
        """Look at `home`; nothing is read or made until it is needed.

        Args:
            home: a BENTOML_HOME, or the root of a built bento.
            public_key: the key to trust; without it, the one pinned in HOME/signer.pub.
        """
        self.home = home
        self._key = public_key
        self._models = home / "models"
        self._store = ModelStore(self._models)

    def public_key(self) -> Ed25519PublicKey:
        """The key that every manifest must be signed by.

        Raises:
            RunnerError: none was given and none is pinned, or the pinned file is not such a key.
        """
        if self._key is not None:
            return self._key
        path = self.home / SIGNER
        try:
            key = load_pem_public_key(path.read_bytes())
        except FileNotFoundError as exc:
            raise RunnerError(
                f"could not trust any model: no public key is pinned in {path}; train a model "
                "first, or place the signer's public key (PEM) there"
            ) from exc
        except (OSError, ValueError) as exc:
            raise RunnerError(f"could not read the pinned public key {path}: {exc}") from exc
        if not isinstance(key, Ed25519PublicKey):
            raise RunnerError(f"could not use the pinned public key {path}: it is not Ed25519")
        self._key = key
        return key

    def pin(self, key: Ed25519PublicKey) -> None:
        """Trust `key` from now on; does nothing when it is pinned already.

        Raises:
            RunnerError: another key is pinned.
        """
        path = self.home / SIGNER
        self.home.mkdir(parents=True, exist_ok=True)
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        with staging_folder(self.home) as folder:
            draft = folder / SIGNER
            draft.write_bytes(pem)
            sync(draft)
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)  # appears whole or not at all; never replaces another key
        pinned = load_pem_public_key(path.read_bytes())
        if not isinstance(pinned, Ed25519PublicKey) or key_id(pinned) != key_id(key):
            raise RunnerError(
                f"could not pin key {key_id(key)}: {path} holds another key; sign with that key, "
                "or remove the file and every model under it to start again"
            )
        self._key = key

    def names(self) -> tuple[str, ...]:
        """The models of which at least one version is held, sorted."""
        if not self._models.is_dir():
            return ()
        found = sorted(path.name for path in self._models.iterdir() if path.is_dir())
        return tuple(name for name in found if self.versions(name))

    def versions(self, name: str) -> tuple[str, ...]:
        """The versions held of `name`: numbers in order, then words; empty when unknown."""
        folder = self._models / name
        if not _TAG_PART.fullmatch(name) or not folder.is_dir():
            return ()
        found = [path.name for path in folder.iterdir() if (path / MANIFEST).is_file()]
        return tuple(sorted(found, key=_version_order))

    def holds(self, name: str, version: str) -> bool:
        """Whether exactly this tag is held; says nothing about its files."""
        return version in self.versions(name)

    def manifest(self, name: str, version: str) -> Manifest:
        """The signed manifest of one version; its files are not read.

        Raises:
            ModelNotFound: this exact tag is not held.
            ArtefactCorrupt: the manifest does not verify, or is another version's.
        """
        path = self._path(name, version) / MANIFEST
        try:
            data = path.read_bytes()
        except OSError as exc:
            raise ArtefactCorrupt(f"could not open {name}:{version}: {MANIFEST}: {exc}") from exc
        manifest = parse(data, self.public_key(), where=f"{name}:{version}/{MANIFEST}")
        if (manifest.name, manifest.version) != (name, version):
            raise ArtefactCorrupt(
                f"could not open {name}:{version}: its {MANIFEST} is the one of "
                f"{manifest.name}:{manifest.version}"
            )
        return manifest

    def open(self, name: str, version: str) -> Artefact:
        """Check the signature and every file of one version; O(bytes).

        Raises:
            ModelNotFound: this exact tag is not held.
            ArtefactCorrupt: names the file that is changed, missing or not in the manifest.
        """
        manifest = self.manifest(name, version)
        path = self._path(name, version)
        check_files(path, manifest)
        return Artefact(path, manifest)

    def add(self, folder: Path, manifest: Manifest) -> Artefact:
        """Hold a sealed artefact folder (see `manifest.seal`) from now on.

        Raises:
            ArtefactCorrupt: the folder is not what the manifest says, or the signer is not trusted.
            RunnerError: the tag is held already, or the disk refused; nothing is left behind.
        """
        tag = f"{manifest.name}:{manifest.version}"
        if not (_TAG_PART.fullmatch(manifest.name) and _TAG_PART.fullmatch(manifest.version)):
            raise RunnerError(f"could not add {tag!r}: use a-z, 0-9, '.', '_' and '-'")
        target = self._models / manifest.name / manifest.version
        try:
            with staging_folder(self.home) as staging:
                draft = staging / manifest.name / manifest.version
                shutil.copytree(folder, draft, symlinks=True)
                self._accept(staging, manifest)
                sync_tree(draft)
                # If we crash here, the version was never visible; staging is swept later.
                target.parent.mkdir(parents=True, exist_ok=True)
                rename_new(draft, target, tag)
                # If we crash here, the version is whole; `latest` is BentoML's hint, not ours.
                self._write_latest(staging, manifest)
        except OSError as exc:
            raise RunnerError(f"could not add {tag}: {exc}") from exc
        return Artefact(target, manifest)

    def delete(self, name: str, version: str) -> None:
        """Stop holding one version; it disappears in one rename.

        Raises:
            ModelNotFound: this exact tag is not held.
        """
        path = self._path(name, version)
        with staging_folder(self.home) as staging:
            path.rename(staging / version)
            (path.parent / "latest").unlink(missing_ok=True)  # BentoML finds it again when asked
        if not self.versions(name):
            with contextlib.suppress(OSError):
                path.parent.rmdir()

    def _path(self, name: str, version: str) -> Path:
        if not self.holds(name, version):
            held = ", ".join(f"'{item}'" for item in self.versions(name)) or "none"
            raise ModelNotFound(f"model '{name}' version '{version}' is not held (held: {held})")
        return self._models / name / version

    def _accept(self, staging: Path, manifest: Manifest) -> None:
        """The same checks as `open`, on the copy, before anyone can see it."""
        tag = f"{manifest.name}:{manifest.version}"
        draft = staging / manifest.name / manifest.version
        signed = parse((draft / MANIFEST).read_bytes(), self.public_key(), where=tag)
        if signed != manifest:
            raise ArtefactCorrupt(f"could not add {tag}: its {MANIFEST} says something else")
        check_files(draft, manifest)
        try:
            ModelStore(staging).get(tag)
        except BentoMLException as exc:
            raise ArtefactCorrupt(f"could not add {tag}: BentoML refuses it: {exc}") from exc

    def _write_latest(self, staging: Path, manifest: Manifest) -> None:
        latest = staging / "latest"
        latest.write_text(manifest.version, encoding="utf-8")
        latest.replace(self._models / manifest.name / "latest")


def _version_order(version: str) -> tuple[int, int, str]:
    return (0, int(version), version) if version.isdecimal() else (1, 0, version)
