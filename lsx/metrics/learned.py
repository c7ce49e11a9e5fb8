"""Networks that judge whole clips, where a folder with their weights is given."""

from __future__ import annotations

from pathlib import Path

from lsx.metrics.perceptual import Lpips, Trepa
from lsx.metrics.stable_sync import StableSync
from lsx.metrics.syncnet import SyncNet
from lsx.metrics.weight_files import LPIPS_FILES, SYNCNET_FILE, VIDEOMAE_FILE, check_weights
from lsx.models.stable_syncnet import STABLE_SYNCNET_FILE

__all__ = ["LearnedMetrics"]


class LearnedMetrics:
    """LPIPS, TREPA's VideoMAE, SyncNet and StableSyncNet, each None where its files are not in `folder`.

    Raises UsageError when the folder has none of them, CheckpointError for files that are damaged or of another form.
    """

    def __init__(self, folder: Path | None = None) -> None:
        if folder is not None:
            check_weights(folder)

        def there(*names: str) -> bool:
            return folder is not None and all((folder / name).is_file() for name in names)

        self.lpips = Lpips(folder) if folder is not None and there(*LPIPS_FILES) else None
        self.trepa = Trepa(folder) if folder is not None and there(VIDEOMAE_FILE) else None
        self.syncnet = SyncNet(folder) if folder is not None and there(SYNCNET_FILE) else None
        stable = None if folder is None else folder / STABLE_SYNCNET_FILE
        self.stable_sync = StableSync(stable) if stable is not None and there(STABLE_SYNCNET_FILE) else None
