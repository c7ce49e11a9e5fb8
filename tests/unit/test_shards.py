"""Data sets from arrays: what goes in comes out, by offsets and through webdataset; damage is said on one line."""

from __future__ import annotations

import gc
import hashlib
import io
import pickle
import tarfile
import wave
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lsx.errors import MediaError, OutputError, UsageError
from lsx.training.shards import DataSet, DroppedRow, SegmentMeta, ShardWriter, encode_segment
from tests.seeded_inputs import picture, waveform

SIZE = 64


def faces_of(count: int, phase: float = 0.0) -> NDArray[np.uint8]:
    return np.stack([picture(SIZE, SIZE, phase + i / 10) for i in range(count)])


def write(folder: Path, lengths: tuple[int, ...] = (20, 33, 17), **options: object) -> Path:
    given = {"resolution": SIZE, "samples_per_shard": 2} | options
    with ShardWriter(folder, **given) as writer:  # type: ignore[arg-type]
        for number, length in reversed([*enumerate(lengths)]):
            meta = SegmentMeta(source=f"{number}.mp4", start=number, face_height=200.5, sync_offset=number or None)
            writer.add(f"k{number}", faces_of(length, number), waveform(640 * length, number), meta)
        writer.drop([DroppedRow(source="x.mp4", sha256="0", start=0.0, stop=1.5, reason="no face at 0.00 s")])
    return folder


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "set")


def test_what_goes_in_comes_out(data: Path) -> None:
    opened = DataSet.open(data)
    assert (opened.info.resolution, opened.info.fps, opened.info.sample_rate) == (SIZE, 25, 16000)
    assert opened.info.codec == "webp lossless"
    assert [row.key for row in opened.rows] == ["k0", "k1", "k2"]
    assert [row.shard for row in opened.rows] == ["000001.tar", "000000.tar", "000000.tar"]
    for number, (row, length) in enumerate(zip(opened.rows, (20, 33, 17), strict=True)):
        assert (row.frames, row.seconds, row.source) == (length, length / 25, f"{number}.mp4")
        assert row.sync_offset == (number or None)
        expected = faces_of(length, number)
        for frames in (range(length), range(1), range(length - 16, length), range(3, 4)):
            np.testing.assert_array_equal(opened.faces(row, frames), expected[frames.start : frames.stop])
        np.testing.assert_array_equal(opened.samples(row), waveform(640 * length, number))
    assert [row.reason for row in opened.dropped()] == ["no face at 0.00 s"]


def test_workers_may_have_it(data: Path) -> None:
    opened = pickle.loads(pickle.dumps(DataSet.open(data)))  # noqa: S301
    np.testing.assert_array_equal(opened.faces(opened.rows[1], range(5, 21)), faces_of(33, 1)[5:21])


def test_the_same_bytes_again(data: Path, tmp_path: Path) -> None:
    again = write(tmp_path / "set")
    assert digests(again) == digests(data)
    assert sorted(digests(again)) == [
        "data.json",
        "dropped.parquet",
        "index.parquet",
        "shards/000000.tar",
        "shards/000001.tar",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    write(again, (16,))
    assert len(DataSet.open(again).rows) == 1
    assert len(list((again / "shards").iterdir())) == 1


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset's own
def test_webdataset_reads_it(data: Path) -> None:
    wds = pytest.importorskip("webdataset")
    shards = [str(path) for path in sorted((data / "shards").glob("*.tar"))]
    samples = {s["__key__"]: s for s in wds.WebDataset(shards, shardshuffle=False)}
    gc.collect()
    assert set(samples) == {"k0", "k1", "k2"}
    with wave.open(io.BytesIO(samples["k1"]["wav"])) as sound:
        assert (sound.getnframes(), sound.getframerate(), sound.getnchannels()) == (33 * 640, 16000, 1)
    shown = cv2.imdecodeanimation(np.frombuffer(samples["k1"]["webp"], np.uint8))
    assert len(shown[1].frames) == 33
    np.testing.assert_array_equal(shown[1].frames[7][:, :, 2::-1], faces_of(33, 1)[7])
    with tarfile.open(shards[0]) as tar:
        assert {member.mtime for member in tar} == {0}


def test_near_lossless_is_near(tmp_path: Path) -> None:
    folder = write(tmp_path / "near", (16,), quality="near")
    opened = DataSet.open(folder)
    assert opened.quality == "near"
    difference = np.abs(opened.faces(opened.rows[0], range(16)).astype(int) - faces_of(16))
    assert difference.mean() < 3
    assert (folder / "shards" / "000000.tar").stat().st_size < 200_000


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with ShardWriter(tmp_path / "set", resolution=SIZE) as writer:
            writer.add("one", faces_of(1), np.zeros(640, np.int16))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not list(tmp_path.iterdir())


def test_a_generator_of_faces_will_do(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "set", resolution=SIZE) as writer:
        writer.add("one", iter(faces_of(3)), np.zeros(3 * 640, np.int16))
    assert DataSet.open(tmp_path / "set").rows[0].sync_confidence is None


def test_a_truncated_shard_is_noticed(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    opened = DataSet.open(folder)
    shard = folder / "shards" / "000000.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MediaError, match=r"000000\.tar: cut off: \d+ of \d+ bytes are there\. Copy it again") as error:
        DataSet.open(folder)
    assert "\n" not in str(error.value)
    with pytest.raises(MediaError, match="cut off in k1"):
        opened.faces(opened.rows[1], range(16))
    shard.unlink()
    with pytest.raises(MediaError, match="is not there"):
        DataSet.open(folder)


def test_damage_inside_a_shard_is_noticed(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", (20,))
    row = DataSet.open(folder).rows[0]
    shard = folder / "shards" / "000000.tar"
    content = bytearray(shard.read_bytes())
    content[row.video_offset + row.video_size // 2] ^= 1
    content[row.audio_offset] ^= 1
    shard.write_bytes(content)
    opened = DataSet.open(folder)
    opened.faces(row, range(2))
    with pytest.raises(MediaError, match=r"k0 is damaged\. See what else is"):
        opened.faces(row, range(20))
    with pytest.raises(MediaError, match="k0 has damaged sound"):
        opened.samples(row)


@pytest.mark.parametrize("name", ["index.parquet", "data.json"])
def test_a_damaged_index_is_noticed(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "set", (2,))
    (folder / name).write_bytes((folder / name).read_bytes()[:40])
    with pytest.raises(MediaError, match="damaged"):
        DataSet.open(folder)


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no data set .data\.json is not there"):
        DataSet.open(tmp_path)
    silence = np.zeros(640, np.int16)
    cases: list[tuple[str, NDArray[np.uint8], Any, str]] = [
        ("a.b", faces_of(1), silence, "ends at a dot"),
        ("a", faces_of(1)[:, :32], silence, "every face must be uint8"),
        ("a", faces_of(2), silence, r"2 frames need int16 \[1280\]"),
        ("a", faces_of(1), silence.astype(np.float32), "samples are float32"),
        ("a", faces_of(1)[:0], silence[:0], "no faces"),
    ]
    for key, faces, samples, message in cases:
        with pytest.raises(UsageError, match=message):
            encode_segment(key, faces, samples, SegmentMeta(), resolution=SIZE)
    with pytest.raises(UsageError, match="quality is best"):
        encode_segment("a", faces_of(1), silence, SegmentMeta(), resolution=SIZE, quality="best")  # type: ignore[arg-type]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(OutputError, match="is not a data set"):
        ShardWriter(tmp_path / "other", resolution=SIZE)
    with ShardWriter(tmp_path / "set", resolution=SIZE) as writer:
        writer.add("a", faces_of(1), silence)
        with pytest.raises(UsageError, match="there already"):
            writer.add("a", faces_of(1), silence)
        with pytest.raises(UsageError, match="no faces"):
            writer.add("b", faces_of(1)[:0], silence)
    opened = DataSet.open(write(tmp_path / "set", (4,)))
    for frames in (range(0), range(2, 5), range(0, 4, 2), range(-1, 2)):
        with pytest.raises(UsageError, match="give consecutive ones"):
            opened.faces(opened.rows[0], frames)


def test_ffmpegs_webp_encoder_is_there() -> None:
    assert "libwebp" in av.codecs_available
