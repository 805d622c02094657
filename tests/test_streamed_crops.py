"""Data module ``streamed_crops``: what a process and a worker see of folders and shards, and a training on them."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from torch import Tensor

from pscx.cli import main
from pscx.data import FolderData, StreamedCropData, WebDatasetData
from pscx.data.base import PhotoData
from pscx.data.streamed_crops import CropStream, mixed, portion
from pscx.errors import ImageError

IMAGES, SIZES = 7, (3, 2, 2)


def png(number: int) -> bytes:
    """Grey levels from ``32 number + 8`` to ``32 number + 23``, so that a crop tells which image it is of."""
    file = io.BytesIO()
    noise = np.random.default_rng(number).integers(0, 16, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(noise + np.uint8(32 * number + 8)).save(file, "PNG")
    return file.getvalue()


def images_of(crops: Iterator[Tensor] | list[Tensor]) -> list[int]:
    return [int((float(crop.mean()) + 1) * 127.5) // 32 for crop in crops]


def shards(folder: Path, broken: int | None = None) -> PhotoData:
    import webdataset

    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for shard, size in enumerate(SIZES):
        with webdataset.TarWriter(str(folder / f"s-{shard}.tar")) as writer:
            for _ in range(size):
                writer.write({"__key__": str(number), "png": b"no image" if number == broken else png(number)})
                number += 1
    return WebDatasetData(str(folder / "s-*.tar"))


def loose(folder: Path, broken: int | None = None) -> PhotoData:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(IMAGES):
        (folder / f"{number}.png").write_bytes(b"no image" if number == broken else png(number))
    return FolderData(str(folder))


both = pytest.mark.parametrize("photos", [shards, loose])


def module(photos: PhotoData, val_root: Path, **options: Any) -> StreamedCropData:
    loose(val_root)
    data = StreamedCropData(photos, str(val_root), crop=16, **{"batch_size": 2, "crops_per_photo": 2, **options})
    data.prepare_data()
    data.setup("fit")
    return data


@both
@pytest.mark.parametrize("shares", [1, 2, 3, 5])
def test_each_process_reads_its_own_part(photos: Any, shares: int, tmp_path: Path) -> None:
    """All photographs are read once by one of them; in another order, the next time, and by another."""
    data = module(photos(tmp_path / "a"), tmp_path / "v")
    orders = []
    for turn in range(6):
        parts = []
        for share in range(shares):
            order = np.random.default_rng(turn)
            parts.append([item["name"] for item in portion(data.source.photos, order, shares, share, shares, share)])
        names = [name for part in parts for name in part]
        assert len(names) == len(set(names)) == IMAGES
        orders.append(tuple(names))
    assert len(set(orders)) > 2


@both
def test_a_photograph_that_is_read_gives_so_many_crops(photos: Any, tmp_path: Path) -> None:
    """And none comes again before all have come."""
    data = module(photos(tmp_path / "a"), tmp_path / "v", crops_per_epoch=6 * IMAGES, shuffle=1)
    found = images_of(iter(CropStream(data, 0, 1, 0)))
    assert found[::2] == found[1::2]
    for start in range(0, 3 * IMAGES, IMAGES):
        assert sorted(found[::2][start : start + IMAGES]) == list(range(IMAGES))


@both
def test_crops_are_a_function_of_seed_epoch_and_process(photos: Any, tmp_path: Path) -> None:
    def crops(epoch: int, share: int = 0, **options: Any) -> Tensor:
        data = module(photos(tmp_path / "a"), tmp_path / "v", crops_per_epoch=28, **options)
        return torch.stack(list(CropStream(data, epoch, 2, share)))

    first = crops(3)
    assert first.shape == (14, 3, 16, 16)
    assert torch.equal(first, crops(3))
    for other in (crops(4), crops(3, 1), crops(3, seed=1)):
        assert not torch.equal(first, other)
    orders = {tuple(images_of(iter(crops(epoch, shuffle=1)))) for epoch in range(8)}
    assert len(orders) > 2


def test_crops_of_the_only_photograph_differ(tmp_path: Path) -> None:
    loose(tmp_path / "a")
    photos = FolderData(str(tmp_path / "a"), subset=1)
    data = [module(photos, tmp_path / "v", crops_per_epoch=4, seed=seed) for seed in (0, 1)]
    found = [torch.stack(list(CropStream(data[seed], epoch, 1, 0))) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for one, other in itertools.combinations(found, 2):
        assert not torch.equal(one, other)


@both
@pytest.mark.parametrize(("crops", "batches"), [(1, 1), (8, 4), (23, 12)])
def test_workers_share_the_batches_of_a_process(photos: Any, crops: int, batches: int, tmp_path: Path) -> None:
    data = module(photos(tmp_path / "a"), tmp_path / "v", crops_per_epoch=crops, num_workers=2, shuffle=1)
    loader = data.train_dataloader()
    found = list(loader)
    assert len(loader) == len(found) == batches
    assert all(batch.shape == (2, 3, 16, 16) for batch in found)
    if batches == 4:  # two photographs each: none has come twice
        assert len(set(images_of([crop for batch in found for crop in batch]))) == 4


@pytest.mark.parametrize("held", [1, 2, 10, 1000])
def test_mixing_loses_and_repeats_nothing(held: int) -> None:
    drawn: list[int] = []
    source: Any = map(drawn.append, range(500))
    source = (torch.tensor(drawn[-1]) for _ in source)
    given: list[int] = []
    for crop in mixed(source, held, np.random.default_rng(0)):
        given.append(int(crop))
        waiting = set(drawn) - set(given)
        assert len(waiting) < held
        assert len(given) >= len(drawn) // 2
    assert len(given) == len(set(given)) >= 500 - held
    assert (given == list(range(500))) == (held == 1)


@both
def test_what_cannot_be_read_is_left_out(photos: Any, tmp_path: Path) -> None:
    data = module(photos(tmp_path / "a", broken=4), tmp_path / "v", crops_per_epoch=30, shuffle=1)
    with pytest.warns(UserWarning, match="left out of the training: .*4"):
        assert set(images_of(iter(CropStream(data, 0, 1, 0)))) == set(range(IMAGES)) - {4}


@both
@pytest.mark.filterwarnings("ignore:left out of the training")
def test_a_part_without_photographs_is_refused(photos: Any, tmp_path: Path) -> None:
    data = module(photos(tmp_path / "a"), tmp_path / "v")
    with pytest.raises(ImageError, match="for each of 8 processes and workers, but number 8 has none"):
        list(itertools.islice(CropStream(data, 0, 8, 7), 1))
    for file in (tmp_path / "a").iterdir():
        file.write_bytes(b"")
    with pytest.raises(ImageError, match="for each of 1 processes and workers, but number 1 has none"):
        list(itertools.islice(CropStream(data, 0, 1, 0), 1))


def test_the_first_so_many_images_stay_the_first(tmp_path: Path) -> None:
    photos = WebDatasetData(shards(tmp_path / "a").urls, subset=4)  # type: ignore[attr-defined]
    data = module(photos, tmp_path / "v", crops_per_epoch=40)
    assert set(images_of(iter(CropStream(data, 0, 1, 0)))) == set(range(4))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"crops_per_photo": 0}, "data.crops_per_photo must be at least 1, got 0"),
        ({"shuffle": 0}, "data.shuffle must be at least 1, got 0"),
        ({"scales": [0.5]}, r"data.scales must be pairs of rising factors in \(0, 1\], got \[0.5\]"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        StreamedCropData(FolderData(), "v", **options)
    for own in ({"num_workers": 1}, {"batch_size": 2}):
        with pytest.raises(ValueError, match=r"data\.photos must not have num_workers or batch_size"):
            StreamedCropData(FolderData(**own), "v")


def fit(data: str, root: Path, *options: str) -> int:
    sizes = ["--data.crop", "16", "--data.crops_per_epoch", "4", "--data.batch_size", "2", "--data.val_crops", "2"]
    network = ["--model.network.block_out_channels", "[8, 16, 16]", "--model.network.blocks", "[1, 1, 1]"]
    steps = ["--trainer.max_steps", "3", "--trainer.log_every_n_steps", "1", "--trainer.enable_progress_bar", "false"]
    where = ["--trainer.default_root_dir", str(root)]
    return main(
        ["fit", "--config", "configs/fit_ddpm.yaml", "--data", data, *sizes, *network, *steps, *where, *options]
    )


def test_a_prior_is_trained_on_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two epochs of two batches, of which the second stops after one; each reads the next epoch's crops."""
    shards(tmp_path / "a")
    loose(tmp_path / "v")
    made: list[tuple[int, int]] = []
    plain = CropStream.__init__

    def watched(self: CropStream, data: StreamedCropData, epoch: int, shares: int, share: int) -> None:
        made.append((epoch, shares))
        plain(self, data, epoch, shares, share)

    monkeypatch.setattr(CropStream, "__init__", watched)
    photos = f"{{name: webdataset, urls: '{tmp_path}/a/s-*.tar'}}"
    data = f"{{name: streamed_crops, photos: {photos}, val_root: '{tmp_path}/v'}}"
    assert fit(data, tmp_path / "run") == 0
    assert made == [(0, 1), (1, 1)]
    assert (tmp_path / "run" / "prior" / "unet").is_dir()
    capsys.readouterr()
    assert fit(data, tmp_path / "two", "--trainer.reload_dataloaders_every_n_epochs", "0") == 2
    assert "reload_dataloaders_every_n_epochs must be 1 with data 'streamed_crops'" in capsys.readouterr().err
    assert fit(data.replace("name: webdataset", "name: webdatset"), tmp_path / "two") == 2
    error = capsys.readouterr().err
    assert error.startswith("pscx: --data: data.photos: unknown data module 'webdatset'")
    assert error.count("\n") == 1
    crops = f"{{name: crops, root: {tmp_path}, val_root: {tmp_path}}}"
    assert fit(f"{{name: streamed_crops, photos: {crops}, val_root: '{tmp_path}/v'}}", tmp_path / "two") == 2
    error = capsys.readouterr().err
    choice = "choose a data module from folder, huggingface, webdataset"
    assert error == f"pscx: --data: data.photos cannot be 'crops': {choice}\n"
    assert fit(f"{{name: streamed_crops, val_root: '{tmp_path}/v'}}", tmp_path / "two") == 2
    assert capsys.readouterr().err == f"pscx: configs/fit_ddpm.yaml: data.photos is missing: {choice}\n"


def test_each_process_of_a_trainer_has_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = module(shards(tmp_path / "a"), tmp_path / "v", crops_per_epoch=9)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, reload_dataloaders_every_n_epochs=1)
    monkeypatch.setattr(type(trainer), "world_size", 2)
    monkeypatch.setattr(type(trainer), "global_rank", 1)
    data.trainer = trainer
    loader = data.train_dataloader()
    stream = loader.dataset
    assert isinstance(stream, CropStream)
    assert (stream.shares, stream.share, len(loader)) == (2, 1, 3)
