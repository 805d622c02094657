"""Data modules ``webdataset`` and ``huggingface``, on shards and datasets that the real libraries wrote."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import write_codec

from pscx.cli.main import main
from pscx.data import HuggingFaceData, WebDatasetData
from pscx.data.base import Portioned
from pscx.data.webdataset import shard_names
from pscx.errors import ImageError, PscxError
from pscx.runtime.extras import required

pytestmark = pytest.mark.usefixtures("meeting_point")

IMAGES = 7


def png(value: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(value).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels // 8 + 16 * value).save(file, "PNG")
    return file.getvalue()


def write_shards(folder: Path, sizes: tuple[int, ...] = (3, 2, 2), broken: int | None = None) -> str:
    """Tar files with images of those numbers; one may be no image. Returns their pattern."""
    import webdataset

    folder.mkdir(exist_ok=True)
    number = 0
    for shard, size in enumerate(sizes):
        with webdataset.TarWriter(str(folder / f"s-{shard}.tar")) as writer:
            for _ in range(size):
                data = b"no image" if number == broken else png(number)
                writer.write({"__key__": f"in/{number}", "png": data, "json": {"number": number}})
                number += 1
    return str(folder / f"s-{{0..{len(sizes) - 1}}}.tar")


def save_dataset(folder: Path, broken: int | None = None) -> str:
    from datasets import Dataset, Features, Value
    from datasets import Image as Column

    rows = [{"bytes": b"no image" if i == broken else png(i), "path": None} for i in range(IMAGES)]
    features = Features({"image": Column(decode=False), "number": Value("int64")})
    columns = {"image": rows, "number": list(range(IMAGES))}
    Dataset.from_dict(columns, features=features).cast_column("image", Column()).save_to_disk(folder)
    return str(folder)


def write_folder(folder: Path) -> str:
    (folder / "test").mkdir(parents=True)
    for i in range(IMAGES):
        (folder / "test" / f"{i}.png").write_bytes(png(i))
    return str(folder)


def items(data: Any, shares: int = 1) -> list[list[Any]]:
    data.setup("test")
    return [list(data.photos.portion(shares, share)) for share in range(shares)]


def pixels_of(item: Any) -> np.ndarray[Any, Any]:
    pixels: np.ndarray[Any, Any] = item["pixels"].permute(1, 2, 0).numpy()
    return pixels


def is_image(item: Any, number: int) -> bool:
    with Image.open(io.BytesIO(png(number))) as image:
        return np.array_equal(pixels_of(item), np.array(image))


def test_shards_are_read_in_order(tmp_path: Path) -> None:
    (found,) = items(WebDatasetData(write_shards(tmp_path)))
    assert [item["name"] for item in found] == [f"s-{s}__in__{i}" for i, s in enumerate((0, 0, 0, 1, 1, 2, 2))]
    assert all(is_image(item, number) for number, item in enumerate(found))
    (again,) = items(WebDatasetData([str(tmp_path / "*.tar")]))
    assert [item["name"] for item in again] == [item["name"] for item in found]
    (piped,) = items(WebDatasetData(f"pipe:cat {tmp_path}/s-1.tar"))
    assert [pixels_of(item).tolist() for item in piped] == [pixels_of(item).tolist() for item in found[3:5]]


@pytest.mark.parametrize("shares", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("subset", [None, 4])
def test_portions_hold_every_image_once(shares: int, subset: int | None, tmp_path: Path) -> None:
    parts = items(WebDatasetData(write_shards(tmp_path), subset=subset), shares)
    names = [item["name"] for part in parts for item in part]
    assert sorted(name.rpartition("_")[2] for name in names) == [str(i) for i in range(subset or IMAGES)]


def test_a_portion_of_enough_shards_reads_no_others(tmp_path: Path) -> None:
    data = WebDatasetData(write_shards(tmp_path))
    data.setup("test")
    (tmp_path / "s-1.tar").unlink()
    assert isinstance(data.photos, Portioned)
    assert all(not item["error"] for item in data.photos.portion(2, 0))
    (lost,) = data.photos.portion(2, 1)
    assert "the shard 's-1' cannot be read beyond its first 0 images: " in lost["error"]


def test_workers_divide_a_portion(tmp_path: Path) -> None:
    data = WebDatasetData(write_shards(tmp_path), num_workers=2)
    data.setup("test")
    names = [item["name"] for item in data.test_dataloader()]
    assert sorted(name.rpartition("_")[2] for name in names) == [str(i) for i in range(IMAGES)]


@pytest.mark.parametrize("damage", ["header", "cut", "cut between files"])
@pytest.mark.parametrize("shares", [1, 2])
def test_a_damaged_shard_is_told_and_costs_no_other(damage: str, shares: int, tmp_path: Path) -> None:
    urls = write_shards(tmp_path, (4, 2))
    shard = tmp_path / "s-0.tar"
    data = bytearray(shard.read_bytes())
    # The first block of the third image's first file: WebDataset writes an extended header before each file's own.
    place = data.rindex(b"././@PaxHeader", 0, data.index(b"in/2."))
    if damage == "header":
        data[place : place + 512] = b"\xa5" * 512
    shard.write_bytes(data if damage == "header" else data[: place + (700 if damage == "cut" else 0)])
    first, second, bad, *rest = items(WebDatasetData(urls))[0]
    assert [item["error"] for item in [first, second, *rest]] == [""] * 4
    assert bad["name"] == "s-0"
    assert bad["error"].startswith("the shard 's-0' cannot be read beyond its first 2 images: ReadError: ")
    names = [item["name"] for part in items(WebDatasetData(urls), shares) for item in part]
    assert sorted(names) == ["s-0", "s-0__in__0", "s-0__in__1", "s-1__in__4", "s-1__in__5"]


def test_names_of_shards_are_unique() -> None:
    urls = ["a/x.tar", "b/X.tar", "https://h/x.tar?k=1", "a__b_.tar.gz", "s3://h/.tar"]
    assert shard_names(urls) == ["x", "X_2", "x_3", "a_b", "shard"]


def test_images_of_the_same_path_have_names_of_their_own(tmp_path: Path) -> None:
    import webdataset

    with webdataset.TarWriter(str(tmp_path / "s.tar")) as writer:
        for key in ("a", "A", "a"):
            writer.write({"__key__": key, "png": png(0)})
    assert [item["name"] for item in items(WebDatasetData(str(tmp_path / "s.tar")))[0]] == ["s__a", "s__A_2", "s__a_3"]


def test_rows_of_a_saved_dataset(tmp_path: Path) -> None:
    data = HuggingFaceData(save_dataset(tmp_path / "saved"), subset=5, crop=16)
    data.setup("test")
    found = list(data.test_dataloader())
    assert [item["name"] for item in found] == [f"test-{i:06d}" for i in range(5)]
    assert {tuple(item["pixels"].shape) for item in found} == {(3, 16, 16)}


@pytest.mark.parametrize("streaming", [False, True])
def test_a_dataset_that_is_loaded_by_name(streaming: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = HuggingFaceData("imagefolder", data_dir=write_folder(tmp_path / "files"), streaming=streaming)
    data.prepare_data()
    data.setup("test")
    found = list(data.test_dataloader())
    assert len({item["name"] for item in found}) == IMAGES
    assert all(is_image(item, number) for number, item in enumerate(found))
    if streaming:
        names = [item["name"] for part in items(data, 3) for item in part]
        assert sorted(names) == sorted(item["name"] for item in found)


def test_a_dataset_that_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"the split 'test' of the dataset '.*gone' cannot be loaded: "):
        HuggingFaceData(str(tmp_path / "gone")).setup("test")
    saved = save_dataset(tmp_path / "saved")
    with pytest.raises(ImageError, match=r"data.column must be an image column, got 'number': .* has image$"):
        HuggingFaceData(saved, column="number").setup("test")
    with pytest.raises(
        ImageError, match=r"the split 'test\[:2\]' of .* it was saved without splits, so data.split must"
    ):
        HuggingFaceData(saved, split="test[:2]").setup("test")
    with pytest.raises(ValueError, match="must not be given with a saved dataset"):
        HuggingFaceData(saved, streaming=True)


def test_a_shard_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"data.urls must name tar files, but '.*s-3.tar' does not exist"):
        WebDatasetData(write_shards(tmp_path).replace("0..2", "0..3")).setup("test")


@pytest.mark.parametrize(
    ("library", "data"),
    [("webdataset", "{name: webdataset, urls: a.tar}"), ("datasets", "{name: huggingface, dataset: a}")],
)
def test_without_the_library(
    library: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    assert main(["test", "--config", write_codec(tmp_path), "--data", data]) == 2
    error = capsys.readouterr().err
    assert error.endswith(f"needs the library {library}: pip install 'pscx[data]'\n")
    assert error.count("\n") == 1


def test_a_library_that_is_there_and_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torn_library.py").write_text("from os import nothing_of_that_name")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PscxError, match=r"^it needs the library torn_library, which cannot be imported: cannot import"):
        required("torn_library", "data", "it")


@pytest.mark.parametrize("kind", ["webdataset", "huggingface"])
def test_two_processes_read_their_parts_and_a_broken_image_is_counted(kind: str, tmp_path: Path) -> None:
    if kind == "webdataset":
        data = f"{{name: webdataset, urls: '{write_shards(tmp_path / 'shards', broken=3)}'}}"
    else:
        data = f"{{name: huggingface, dataset: {save_dataset(tmp_path / 'saved', broken=3)}}}"
    common = ["test", "--config", write_codec(tmp_path), "--data", data]
    parallel = ["--trainer.accelerator", "cpu", "--trainer.strategy", "ddp", "--trainer.devices", "2"]
    tables = []
    assert main([*common, "--trainer.default_root_dir", str(tmp_path / "one")]) == 2
    call = [*common, *parallel, "--trainer.default_root_dir", str(tmp_path / "two")]
    done = subprocess.run([sys.executable, "-m", "pscx.cli.main", *call], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2, done.stderr
    assert "one of the images could not be coded, all others are done: " in done.stderr
    for root in ("one", "two"):
        with (tmp_path / root / "images.csv").open(newline="") as file:
            tables.append([(row["name"], row["bytes"], row["psnr"]) for row in csv.DictReader(file)])
        assert (tmp_path / root / "summary.csv").read_text().splitlines()[1].endswith(",1")
    assert len(tables[0]) == IMAGES - 1
    assert tables[0] == tables[1]


def test_a_codec_is_calibrated_on_shards(tmp_path: Path) -> None:
    data = f"{{name: webdataset, urls: '{write_shards(tmp_path / 'shards')}'}}"
    where = ["--trainer.default_root_dir", str(tmp_path / "run")]
    assert main(["fit", "--config", write_codec(tmp_path), "--data", data, *where]) == 0
    assert len(list((tmp_path / "run" / "observations").iterdir())) == IMAGES
