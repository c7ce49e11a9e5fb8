"""A prepared avatar: what of a video does not depend on the sound, in a folder that any number of runs read."""

from __future__ import annotations

import json
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import FileEntry
from lsx.core.atomic_files import sha256_of
from lsx.core.footage import FootageOptions
from lsx.core.keywords import check_kind, check_path, check_whole
from lsx.core.prepared_footage import check_fixed
from lsx.core.tensors import Frame
from lsx.errors import IntegrityError, MediaError, UsageError
from lsx.faces.alignment import Affine, AlignedFace
from lsx.faces.avatar_folder import AVATAR
from lsx.faces.avatar_manifest import AVATAR_SCHEMA, AvatarManifest, PlaceEntry, encoder_of
from lsx.faces.rows_file import RowsReader, RowsWriter

__all__ = ["Avatar", "AvatarWriter"]

_FACES = "faces.safetensors"


class Avatar:
    """An opened avatar. Its crops and moments stay in their files, which are mapped, and read frame by frame.

    Open one with `Avatar.open(path)`; give it, or its path, to `LipSync.run` in place of a video.

    Examples
    --------
    >>> from lsx import prepare_avatar
    >>> avatar = prepare_avatar(BUNDLE, VIDEO, "anna.avatar")
    >>> avatar.manifest.frames
    16
    """

    def __init__(self, path: Path, manifest: AvatarManifest) -> None:
        self.path = path
        self.manifest = manifest
        try:
            arrays = load_file(path / manifest.faces.path)
        except (SafetensorError, OSError) as error:
            raise MediaError(f"{path / manifest.faces.path}: cannot be read, or is damaged: {error}") from error
        self.mask: NDArray[np.float32] = arrays["mask"]
        """What of a latent is kept, 0..1: float32 [latent, latent]."""
        self._frames = [arrays[f"frames.{place}"] for place in range(len(manifest.places))]
        self._affines = [arrays[f"affines.{place}"] for place in range(len(manifest.places))]
        self._crops = [RowsReader(path / place.crops.path) for place in manifest.places]
        self._moments = [RowsReader(path / place.moments.path) for place in manifest.places]

    @classmethod
    def open(cls, path: Path | str) -> Avatar:
        """Open the avatar in the folder `path`.

        Raises MediaError when it is none, or a file of it is missing, UsageError for what is no path.

        Examples
        --------
        >>> from lsx.faces.avatar import Avatar
        >>> Avatar.open("nowhere")
        Traceback (most recent call last):
        ...
        lsx.errors.MediaError: nowhere: no avatar ...
        """
        check_path("avatar", path)
        path = Path(path)
        try:
            content = json.loads((path / AVATAR).read_text(encoding="utf-8"))
            version = content["schema_version"]
            if version != AVATAR_SCHEMA:
                raise MediaError(f"{path}: avatar schema {version} is not {AVATAR_SCHEMA}; prepare it again")
            manifest = AvatarManifest.model_validate(content)
        except OSError as error:
            raise MediaError(
                f"{path}: no avatar ({error.strerror}). Make one: lsx prepare BUNDLE VIDEO -o {path}"
            ) from error
        except (ValidationError, ValueError, KeyError, TypeError) as error:
            said = str(error).splitlines()[0]
            raise MediaError(f"{path / AVATAR}: damaged ({said}); prepare it again") from error
        for file in manifest.files():
            size = (path / file.path).stat().st_size if (path / file.path).is_file() else None
            if size != file.size:
                raise MediaError(
                    f"{path / file.path}: {'missing' if size is None else f'has {size} bytes, and had {file.size}'}; "
                    "prepare the avatar again"
                )
        return cls(path, manifest)

    @property
    def face_counts(self) -> tuple[int, ...]:
        """The number of frames in which each place has a face.

        Examples
        --------
        >>> from lsx import prepare_avatar
        >>> prepare_avatar(BUNDLE, VIDEO, "anna.avatar").face_counts
        (16,)
        """
        return tuple(len(frames) for frames in self._frames)

    @property
    def source(self) -> Path:
        """The video that it plays.

        Examples
        --------
        >>> from lsx import prepare_avatar
        >>> prepare_avatar(BUNDLE, VIDEO, "anna.avatar").source.stem
        'source'
        """
        return self.path / self.manifest.source.path

    def verify(self) -> None:
        """Hash every file. Raises IntegrityError.

        Examples
        --------
        >>> from lsx import prepare_avatar
        >>> prepare_avatar(BUNDLE, VIDEO, "anna.avatar").verify()
        """
        for file in self.manifest.files():
            if sha256_of(self.path / file.path) != file.sha256:
                raise IntegrityError(
                    f"{self.path / file.path}: has changed since it was written; prepare the avatar again"
                )

    def check(self, bundle: Bundle) -> None:
        """Raise MediaError unless the avatar was prepared with this bundle's VAE encoder.

        Examples
        --------
        >>> from lsx import Bundle, prepare_avatar
        >>> prepare_avatar(BUNDLE, VIDEO, "anna.avatar").check(Bundle.open(BUNDLE))
        """
        check_kind("bundle", bundle, Bundle)
        ours, theirs = (self.manifest.resolution, self.manifest.encoder), (bundle.model.resolution, encoder_of(bundle))
        if ours == theirs:
            return
        sizes = f" ({ours[0]} px, and the bundle has {theirs[0]})" if ours[0] != theirs[0] else ""
        raise MediaError(
            f"{self.path}: prepared with another VAE encoder than that of {bundle.path}{sizes}. Prepare it with this "
            f"bundle: lsx prepare {bundle.path} VIDEO -o {self.path}"
        )

    def footage(self, asked: FootageOptions) -> FootageOptions:
        """`asked`, with what the avatar was prepared with. Raises UsageError where it asks for something else.

        Examples
        --------
        >>> from lsx import FootageOptions, prepare_avatar
        >>> avatar = prepare_avatar(BUNDLE, VIDEO, "anna.avatar", speaker="left")
        >>> avatar.footage(FootageOptions(overlap=2)).speaker
        'left'
        """
        check_kind("asked", asked, FootageOptions)
        own = self.manifest
        fps: Any = own.fps if own.fps == "source" else Fraction(own.fps)
        prepared: dict[str, Any] = {"start": own.start, "end": own.end, "fps": fps, "speaker": own.speaker}
        check_fixed(asked, prepared)
        if asked.segments is not None and own.proxy is not None and own.proxy.has_sound:
            raise UsageError(
                "segments leave the video's own sound between them, and a proxy has none; prepare without proxy"
            )
        if own.proxy is not None:  # it has nothing but the part
            prepared |= {"start": 0.0, "end": None}
        return asked.model_copy(update=prepared)

    def faces(self, frame: int) -> dict[int, AlignedFace]:
        """The faces of the video's frame `frame`, by place; none where there is no face.

        Examples
        --------
        >>> from lsx import prepare_avatar
        >>> prepare_avatar(BUNDLE, VIDEO, "anna.avatar").faces(3)[0].crop.shape
        (64, 64, 3)
        """
        check_whole("frame", frame)
        found = {}
        for place, frames in enumerate(self._frames):
            row = int(np.searchsorted(frames, frame))
            if row < len(frames) and frames[row] == frame:
                crop, moments = self._crops[place].row(row), self._moments[place].row(row)
                found[place] = AlignedFace(self._affines[place][row], crop, moments)
        return found


class AvatarWriter:
    """Writes an avatar's faces into a folder as they come; none of them is held. Use as a context manager.

    Raises OSError as files do.
    """

    def __init__(self, folder: Path, resolution: int, latent: int) -> None:
        self._folder = folder
        self._crop, self._moments = (resolution, resolution, 3), (2, 2, 4, latent, latent)
        self._rows: list[tuple[RowsWriter, RowsWriter]] = []
        self._frames: list[list[int]] = []
        self._affines: list[list[Affine]] = []
        self._open = ExitStack()

    def add(self, frame: int, place: int, affine: Affine, crop: Frame, moments: NDArray[np.float32]) -> None:
        """The next frame's face at a place."""
        while place >= len(self._rows):
            number = len(self._rows)
            crops = RowsWriter(self._folder / f"crops.{number}.safetensors", "crops", self._crop, "uint8")
            rows = self._open.enter_context(crops)
            wide = RowsWriter(self._folder / f"moments.{number}.safetensors", "moments", self._moments, "float32")
            self._rows.append((rows, self._open.enter_context(wide)))
            self._frames.append([])
            self._affines.append([])
        crops, wide = self._rows[place]
        crops.append(crop)
        wide.append(moments)
        self._frames[place].append(frame)
        self._affines[place].append(affine)

    def finish(self, mask: NDArray[np.float32]) -> tuple[FileEntry, tuple[PlaceEntry, ...]]:
        """Write the rest. Returns the files: `faces`, and those of the places."""
        self._open.close()
        arrays: dict[str, NDArray[Any]] = {"mask": np.ascontiguousarray(mask)}
        for place, (frames, affines) in enumerate(zip(self._frames, self._affines, strict=True)):
            arrays[f"frames.{place}"] = np.array(frames, np.int32)
            arrays[f"affines.{place}"] = np.array(affines, np.float64)
        save_file(arrays, self._folder / _FACES)
        places = tuple(
            PlaceEntry(
                crops=FileEntry.of(self._folder, f"crops.{place}.safetensors"),
                moments=FileEntry.of(self._folder, f"moments.{place}.safetensors"),
            )
            for place in range(len(self._rows))
        )
        return FileEntry.of(self._folder, _FACES), places

    def __enter__(self) -> AvatarWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
