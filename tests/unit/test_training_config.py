"""Training configurations: the original's YAML as it is, and one line for what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from lsx.errors import UsageError
from lsx.models.unet_config import UNetConfig
from lsx.training.config import SyncNetSettings, UNetSettings, read_settings

STAGE_2 = """
data:
  syncnet_config_path: configs/syncnet/syncnet_16_pixel_attn.yaml
  train_output_dir: debug/unet
  train_fileslist: /data/train.txt
  train_data_dir: ""
  audio_embeds_cache_dir: /data/embeds
  audio_mel_cache_dir: /data/mel
  val_video_path: assets/demo1_video.mp4
  val_audio_path: assets/demo1_audio.wav
  batch_size: 4
  num_workers: 12
  num_frames: 16
  resolution: 256
  mask_image_path: latentsync/utils/mask.png
  audio_sample_rate: 16000
  video_fps: 25
  audio_feat_length: [2, 2]
ckpt:
  resume_ckpt_path: checkpoints/latentsync_unet.pt
  save_ckpt_steps: 500
run:
  pixel_space_supervise: true
  use_syncnet: true
  sync_loss_weight: 0.05
  perceptual_loss_weight: 0.1
  recon_loss_weight: 1
  guidance_scale: 1.5
  trepa_loss_weight: 10
  inference_steps: 20
  trainable_modules:
    - motion_modules.
    - attentions.
  seed: 1247
  use_mixed_noise: true
  mixed_noise_alpha: 1
  mixed_precision_training: true
  enable_gradient_checkpointing: true
  max_train_steps: 10000000
  max_train_epochs: -1
optimizer:
  lr: 1e-5
  scale_lr: false
  max_grad_norm: 1.0
  lr_scheduler: constant
  lr_warmup_steps: 0
model:
  use_motion_module: true
"""


@pytest.fixture
def stage_2(tmp_path: Path) -> Path:
    file = tmp_path / "stage2.yaml"
    file.write_text(STAGE_2)
    return file


def read(file: Path, *changes: str) -> UNetSettings:
    settings = read_settings("unet", file, changes)
    assert isinstance(settings, UNetSettings)
    return settings


def test_the_originals_file_is_read_as_it_is(stage_2: Path) -> None:
    settings = read(stage_2)
    assert (settings.batch_size, settings.workers, settings.resolution) == (4, 12, 256)
    assert (settings.lr, settings.max_grad_norm, settings.mixed_precision) == (1e-5, 1.0, "fp16")
    assert settings.trainable == ("motion_modules.", "attentions.")
    assert (settings.sync_loss_weight, settings.trepa_loss_weight, settings.mixed_noise_alpha) == (0.05, 10, 1)
    assert settings.motion
    assert settings.gradient_checkpointing


def test_stage_1_and_noise_that_is_not_mixed(stage_2: Path) -> None:
    settings = read(
        stage_2,
        "model.use_motion_module=false",
        "run.pixel_space_supervise=false",
        "run.use_mixed_noise=false",
        "run.trainable_modules=['']",
        "run.mixed_precision=bf16",
    )
    assert not settings.motion
    assert not settings.pixel_losses
    assert settings.mixed_noise_alpha is None
    assert settings.trainable == ("",)
    assert settings.mixed_precision == "bf16"


def test_syncnets_file(tmp_path: Path) -> None:
    file = tmp_path / "syncnet.yaml"
    file.write_text("data: {batch_size: 8, lower_half: true, num_val_samples: 64}\noptimizer: {lr: 1e-4}\n")
    settings = read_settings("syncnet", file)
    assert isinstance(settings, SyncNetSettings)
    assert (settings.batch_size, settings.num_val_samples, settings.lr) == (8, 64, 1e-4)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("optimizer.learning_rate=1e-4", "there is no optimizer.learning_rate"),
        ("optimizer.lr_=1e-4", "did you mean optimizer.lr?"),
        ("optimizer.lr=fast", "optimizer.lr is 'fast'; give a number"),
        ("optimizer.lr=0", "lr is 0; give a number over 0"),
        ("data.video_fps=30", "data.video_fps is 30; LatentSync is trained with 25"),
        ("data.num_frames=8", "num_frames is 8"),
        ("data.resolution=100", "resolution is 100; give a multiple of 64"),
        ("run.mixed_precision=fp8", "mixed_precision is fp8; choose one of no, fp16, bf16"),
        ("run.trainable_modules=attentions.", "give a list"),
        ("run.sync_loss_weight=-1", "sync_loss_weight is -1"),
        ("run.ema_decay=2", "ema_decay is 2"),
        ("run.lora_rank=0", "lora_rank is 0"),
        ("lr=3", "give section.name=value"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(change: str, told: str, stage_2: Path) -> None:
    with pytest.raises(UsageError) as raised:
        read(stage_2, change)
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [("a: [", "line 1: not YAML"), ("- 1\n", "holds no sections"), ("data: 3\n", "holds no sections")],
)
def test_files_that_are_no_configuration(content: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    with pytest.raises(UsageError) as raised:
        read_settings("unet", file)
    assert told in str(raised.value)
    with pytest.raises(UsageError, match="No such file"):
        read_settings("unet", tmp_path / "none.yaml")


@pytest.mark.parametrize("name", ["stage1", "stage2", "stage2_efficient", "syncnet"])
def test_the_examples_are_read(name: str) -> None:
    file = Path(__file__).parents[2] / "examples" / "training" / f"{name}.yaml"
    settings = read_settings("syncnet" if name == "syncnet" else "unet", file)
    assert settings.resolution == 256
    assert settings.lr == 1e-5


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(),
        UNetConfig(
            block_out_channels=(32, 64, 32, 32),
            heads=4,
            norm_groups=8,
            attention_levels=(True, False, True, False),
            motion_attentions=1,
        ),
    ],
)
def test_a_topology_is_written_as_it_is_read(config: UNetConfig) -> None:
    assert UNetConfig.from_mapping(config.as_mapping(), "model") == config


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("run.frames_per_clip=3",), "frames_per_clip is 3; give 16, 8, 4, 2 or 1"),
        (("run.frames_per_clip=4",), "motion modules and losses on pixels see all 16 frames"),
        (("run.frames_per_clip=4", "run.pixel_space_supervise=false"), "motion modules and losses on pixels"),
    ],
)
def test_fewer_frames_of_a_clip_are_for_stage_1(changes: tuple[str, ...], said: str, stage_2: Path) -> None:
    with pytest.raises(UsageError, match=said):
        read(stage_2, *changes)
    stage_1 = ("run.frames_per_clip=4", "run.pixel_space_supervise=false", "model.use_motion_module=false")
    assert read(stage_2, *stage_1).frames_per_clip == 4


def test_min_snr_is_off_unless_asked_for(stage_2: Path) -> None:
    assert read(stage_2).snr_gamma is None
    assert read(stage_2, "run.snr_gamma=5").snr_gamma == 5
    with pytest.raises(UsageError, match="snr_gamma is 0; give a number over 0, such as 5"):
        read(stage_2, "run.snr_gamma=0")
