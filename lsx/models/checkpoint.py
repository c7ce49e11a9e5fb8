"""Checkpoints: where their files are, what they say, and the modules they hold. Nothing in them is executed."""

from __future__ import annotations

import hashlib
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lsx.core.model_spec import ModelSpec
from lsx.errors import CheckpointError
from lsx.models.checkpoint_files import RELEASED, CheckpointFiles, read_config, section, stated_model, stated_resolution
from lsx.models.mask import mask_at, mask_raster
from lsx.models.unet import UNet3D
from lsx.models.unet_config import UNetConfig
from lsx.models.vae import VAE_WEIGHTS, Vae, VaeConfig, present_names

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lsx.models.whisper import AudioEncoder

__all__ = ["Checkpoint", "load_strict", "read_tensors"]

_SAFE = ".safetensors"


class Checkpoint:
    """A LatentSync checkpoint: its description, and its modules loaded one at a time.

    Parameters
    ----------
    files : where its parts are.
    model : `latentsync-1.5` or `latentsync-1.6`; needed where there is no YAML, recorded as the version otherwise.
    resolution : pixels; must agree with the YAML where there is one.

    Raises
    ------
    CheckpointError : a file is missing, damaged or of another form.
    UsageError : neither YAML nor `model`, or a resolution that contradicts them.
    """

    def __init__(self, files: CheckpointFiles, *, model: str | None = None, resolution: int | None = None) -> None:
        stated = stated_resolution(files, model=model, resolution=resolution)
        model = stated_model(files, model)
        self.files = files
        self.yaml = read_config(files)
        where = str(files.config)
        self.unet_config = (
            UNetConfig.from_mapping(section(self.yaml, "model", where), where) if self.yaml else UNetConfig()
        )
        self.spec = self._model_spec(model, stated)

    def _model_spec(self, model: str | None, stated: int) -> ModelSpec:
        data = section(self.yaml, "data", str(self.files.config)) if self.yaml else {}
        released = {size: name for name, size in RELEASED.items()}
        dims = self.whisper_dims
        try:
            window = tuple(int(n) for n in data.get("audio_feat_length", (2, 2)))
            if len(window) != 2:
                raise ValueError(f"audio_feat_length {window}")
            return ModelSpec(
                version=model or (released.get(int(stated), "custom") if self._is_released_size else "custom"),
                resolution=int(stated),
                frames=int(data.get("num_frames", 16)),
                video_fps=int(data.get("video_fps", 25)),
                sample_rate=int(data.get("audio_sample_rate", 16000)),
                audio_window=(window[0], window[1]),
                audio_states=int(dims["n_audio_layer"]) + 1,
                audio_dim=int(dims["n_audio_state"]),
                max_frames=self.unet_config.max_frames,
            )
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{self.files.config}: the data section misstates {error}") from error

    @property
    def _is_released_size(self) -> bool:
        return self.unet_config == UNetConfig()

    @cached_property
    def whisper_dims(self) -> dict[str, int]:
        """The Whisper checkpoint's `dims`."""
        dims = read_tensors(self.files.whisper).get("dims")
        if not isinstance(dims, dict) or "n_audio_state" not in dims:
            raise CheckpointError(f"{self.files.whisper}: no `dims` in it; this is not OpenAI's Whisper checkpoint")
        return {str(k): int(v) for k, v in dims.items()}

    @cached_property
    def mask_file(self) -> Path | None:
        """The mask image: the given one, else the YAML's where that exists, else None (the released outline)."""
        if self.files.mask is not None or self.files.config is None:
            return self.files.mask
        named = self.yaml.get("data", {}).get("mask_image_path")
        candidates = [Path(named), self.files.config.parent / named] if isinstance(named, str) else []
        return next((path for path in candidates if path.is_file()), None)

    def mask(self) -> NDArray[np.float32]:
        """The mask at the model's resolution, float32 [resolution, resolution], 1 = keep."""
        return mask_at(mask_raster(self.mask_file), self.spec.resolution)

    def unet(self) -> UNet3D:
        """The U-Net in float32, its weights memory-mapped from the file."""
        path = self.files.unet
        state = read_tensors(path).get("state_dict")
        if not isinstance(state, dict):
            raise CheckpointError(f"{path}: no `state_dict` in it; this is not latentsync_unet.pt")
        with torch.device("meta"):
            unet = UNet3D(self.unet_config)
        load_strict(unet, state, path)
        return unet

    @property
    def vae_config(self) -> VaeConfig:
        """The VAE's configuration. Raises CheckpointError."""
        return VaeConfig.from_file(self.files.vae / "config.json")

    def vae(self) -> Vae:
        """The VAE in float32, from one of diffusers' folders."""
        folder = self.files.vae
        with torch.device("meta"):
            vae = Vae(self.vae_config)
        path = next((folder / name for name in VAE_WEIGHTS if (folder / name).is_file()), None)
        if path is None:
            raise CheckpointError(f"{folder}: no {' or '.join(VAE_WEIGHTS)} in it; this is not a VAE's folder")
        load_strict(vae, present_names(read_safetensors(path) if path.suffix == _SAFE else read_tensors(path)), path)
        return vae

    def audio_encoder(self) -> AudioEncoder:
        """The Whisper encoder in float32."""
        from lsx.models.whisper import AudioEncoder, encoder_state

        path = self.files.whisper
        state = read_tensors(path).get("model_state_dict")
        if not isinstance(state, dict):
            raise CheckpointError(f"{path}: no `model_state_dict` in it; this is not OpenAI's Whisper checkpoint")
        encoder = AudioEncoder(self.whisper_dims)
        load_strict(encoder, encoder_state(state), path)
        return encoder.eval().requires_grad_(False)

    def check(self) -> None:
        """Load every part once and let it go: damage is refused before any work. Raises CheckpointError."""
        self.mask()
        self.unet()
        self.audio_encoder()
        self.vae()

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every file of the checkpoint, by its component: unet, whisper, vae/<file>, config, mask,
        sampling.
        """
        parts = {"unet": self.files.unet, "whisper": self.files.whisper}
        parts |= {f"vae/{p.name}": p for p in sorted(self.files.vae.iterdir()) if _is_vae_file(p)}
        optional = {"config": self.files.config, "mask": self.mask_file, "sampling": self.files.sampling}
        parts |= {name: path for name, path in optional.items() if path is not None}
        hashes = {}
        for name, path in parts.items():
            with path.open("rb") as file:
                hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
        return hashes


def load_strict(module: nn.Module, state: Mapping[str, Tensor], where: Path) -> None:
    """Give `module` the tensors of `state` as float32, without a copy where they are that already.

    Raises CheckpointError naming up to five missing, unknown or mis-shaped keys; the module is then unchanged.
    """
    expected = module.state_dict()
    mismatched = [
        (key, tuple(state[key].shape), tuple(expected[key].shape))
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    _refuse(where, [k for k in expected if k not in state], [k for k in state if k not in expected], mismatched)
    module.load_state_dict({key: value.float() for key, value in state.items()}, strict=True, assign=True)
    module.eval().requires_grad_(False)


def _refuse(where: Path, missing: Any, unexpected: Any, mismatched: Any) -> None:
    faults = [f"{key} is missing" for key in missing]
    faults += [f"{key} is {list(is_)}, not {list(ought)}" for key, is_, ought in mismatched]
    faults += [f"{key} is unknown" for key in unexpected]
    if faults:
        more = f" (and {len(faults) - 5} more)" if len(faults) > 5 else ""
        raise CheckpointError(
            f"{where}: the weights do not fit the configuration: {'; '.join(faults[:5])}{more}. "
            "Check that checkpoint and config.yaml belong together"
        )


def read_tensors(path: Path) -> dict[str, Any]:
    """A `torch.save` file, memory-mapped, tensors and plain values only."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: what matters is refused below
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        blamed = str(error).split("GLOBAL ")[-1].split()[0] if "GLOBAL" in str(error) else "something"
        raise CheckpointError(
            f"{path}: refused, because it holds {blamed}, not only tensors: loading it could run code"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: not a whole PyTorch checkpoint. Fetch it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a dictionary of tensors")
    return content


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, float as they are. Raises CheckpointError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file: {error}. Fetch it again") from error


def _is_vae_file(path: Path) -> bool:
    return path.suffix in (".json", _SAFE, ".bin")
