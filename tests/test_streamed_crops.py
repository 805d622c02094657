"""Data module ``streamed_crops``: what a process and a worker see of folders and shards, and a training on them."""

from __future__ import annotations

import gc
import io
import itertools
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset

from pscx.cli.main import main
from pscx.data import CropData, FolderData, StreamedCropData, WebDatasetData, streamed_crops
from pscx.data.base import Photo, PhotoData, Portioned
from pscx.data.streamed_crops import CropStream, mixed
from pscx.errors import ImageError, PscxError
from pscx.training import TrainDDPM

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
@pytest.mark.parametrize("shares", [1, 2, 3])
def test_a_turn_holds_every_photograph_once(
    photos: Any, shares: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one of the processes, each for two crops; next time in another order, and some in another process."""
    data = module(photos(tmp_path / "a"), tmp_path / "v", shuffle_buffer=1)
    turns = []
    for turn in range(8):
        monkeypatch.setattr(streamed_crops, "count", partial(range, turn, turn + 1))
        seen = [images_of(iter(CropStream(data, 0, shares, share))) for share in range(shares)]
        assert [part[::2] for part in seen] == [part[1::2] for part in seen]
        assert sorted(number for part in seen for number in part[::2]) == list(range(IMAGES))
        turns.append(seen)
    assert len({tuple(parts[0]) for parts in turns}) > 2
    assert shares == 1 or len({frozenset(parts[0]) for parts in turns}) > 1


@both
def test_no_photograph_comes_again_before_all_have_come(photos: Any, tmp_path: Path) -> None:
    data = module(photos(tmp_path / "a"), tmp_path / "v", crops_per_epoch=6 * IMAGES, shuffle_buffer=1)
    found = images_of(iter(CropStream(data, 0, 1, 0)))
    assert found[::2] == found[1::2]
    turns = [found[::2][start : start + IMAGES] for start in range(0, 3 * IMAGES, IMAGES)]
    assert [sorted(turn) for turn in turns] == [list(range(IMAGES))] * 3
    assert turns[0] != turns[1] or turns[1] != turns[2]


@both
@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_go_on_where_the_last_one_ended(photos: Any, workers: int, tmp_path: Path) -> None:
    """Epochs of two photographs see them all, and are the crops of a longer epoch."""
    short, long = (
        module(photos(tmp_path / "a"), tmp_path / "v", crops_per_epoch=size, num_workers=workers, shuffle_buffer=3)
        for size in (4, 32)
    )
    parts = [torch.cat(list(short.train_dataloader())) for _ in range(8)]
    whole = torch.cat(list(long.train_dataloader()))
    assert torch.equal(torch.cat(parts), whole)
    assert set(images_of(list(whole))) == set(range(IMAGES))
    short.setup("fit")
    assert torch.equal(torch.cat(list(short.train_dataloader())), parts[0])


@both
def test_crops_are_a_function_of_seed_start_and_process(photos: Any, tmp_path: Path) -> None:
    def crops(start: int, share: int = 0, **options: Any) -> Tensor:
        data = module(photos(tmp_path / "a"), tmp_path / "v", crops_per_epoch=28, **options)
        return torch.stack(list(CropStream(data, start, 2, share)))

    first = crops(3)
    assert first.shape == (14, 3, 16, 16)
    assert torch.equal(first, crops(3))
    for other in (crops(4), crops(3, 1), crops(3, seed=1), crops(3, scales=[0.6, 0.7])):
        assert not torch.equal(first, other)


def test_crops_of_the_only_photograph_differ(tmp_path: Path) -> None:
    """From start to start, seed to seed, and between processes that see nothing else."""
    loose(tmp_path / "a")
    data = [module(FolderData(str(tmp_path / "a"), subset=1), tmp_path / "v", seed=seed) for seed in (0, 1)]
    found = [next(iter(CropStream(data[seed], start, 1, 0))) for seed, start in ((0, 0), (0, 1), (1, 0))]
    for folder, number in (("b", 0), ("c", 1)):  # two images that are the same
        (tmp_path / "two").mkdir(exist_ok=True)
        (tmp_path / "two" / f"{folder}{number}.png").write_bytes(png(0))
    two = module(FolderData(str(tmp_path / "two")), tmp_path / "v")
    found += [next(iter(CropStream(two, 5, 2, share))) for share in range(2)]
    for one, other in itertools.combinations(found, 2):
        assert not torch.equal(one, other)


def test_scales_are_those_that_were_given(tmp_path: Path) -> None:
    """Of noise, a crop that was shrunk has less than one that was not."""
    loose(tmp_path / "a")
    photos = FolderData(str(tmp_path / "a"), subset=1)
    whole, shrunk = (module(photos, tmp_path / "v", scales=pair) for pair in ([1.0, 1.0], [0.67, 0.67]))
    spread = [float(next(iter(CropStream(data, 0, 1, 0))).std()) for data in (whole, shrunk)]
    assert spread[1] < 0.8 * spread[0]


@both
@pytest.mark.parametrize(("crops", "batches"), [(1, 1), (8, 4), (23, 12)])
def test_workers_share_the_batches_of_a_process(photos: Any, crops: int, batches: int, tmp_path: Path) -> None:
    data = module(photos(tmp_path / "a"), tmp_path / "v", crops_per_epoch=crops, num_workers=2, shuffle_buffer=1)
    loader = data.train_dataloader()
    found = list(loader)
    assert len(loader) == len(found) == batches
    assert all(batch.shape == (2, 3, 16, 16) for batch in found)
    if batches == 4:  # two photographs each: none has come twice
        assert len(set(images_of([crop for batch in found for crop in batch]))) == 4


@pytest.mark.parametrize("buffer", [1, 2, 10, 1000])
def test_mixing_repeats_nothing_and_lets_few_wait(buffer: int) -> None:
    drawn: list[int] = []

    def source() -> Iterator[Tensor]:
        for number in range(500):
            drawn.append(number)
            yield torch.tensor(number)

    given: list[int] = []
    for crop in mixed(source(), buffer, np.random.default_rng(0)):
        given.append(int(crop))
        waiting = set(drawn) - set(given)
        assert len(waiting) < buffer
        assert len(given) >= len(drawn) // 2
    assert len(set(given)) == len(given) >= 500 - buffer
    assert (given == list(range(500))) == (buffer == 1)


@both
def test_what_cannot_be_read_is_left_out(photos: Any, tmp_path: Path) -> None:
    data = module(photos(tmp_path / "a", broken=4), tmp_path / "v", crops_per_epoch=30, shuffle_buffer=1)
    with pytest.warns(UserWarning, match="left out of the training: .*4"):
        assert set(images_of(iter(CropStream(data, 0, 1, 0)))) == set(range(IMAGES)) - {4}


@pytest.mark.filterwarnings("ignore:left out of the training")
def test_a_process_may_find_nothing_in_a_turn(tmp_path: Path) -> None:
    """One of three shards is damaged: each process has it in some turns, and goes on with the next."""
    data = module(shards(tmp_path / "a"), tmp_path / "v", crops_per_epoch=120)
    (tmp_path / "a" / "s-1.tar").write_bytes(b"no shard")
    for share in range(3):
        assert set(images_of(iter(CropStream(data, 0, 3, share)))) == {0, 1, 2, 5, 6}


@both
@pytest.mark.filterwarnings("ignore:left out of the training")
def test_a_part_without_photographs_is_refused(photos: Any, tmp_path: Path) -> None:
    data = module(photos(tmp_path / "a"), tmp_path / "v")
    for file in (tmp_path / "a").iterdir():
        file.write_bytes(b"")
    with pytest.raises(ImageError, match="for each of 2 processes and workers, but number 2 found none"):
        next(iter(CropStream(data, 0, 2, 1)))


def test_fewer_photographs_than_processes_are_refused(tmp_path: Path) -> None:
    data = module(loose(tmp_path / "a"), tmp_path / "v")
    with pytest.raises(ImageError, match="for each of 8 processes and workers, but number 8 found none"):
        next(iter(CropStream(data, 0, 8, 7)))


def test_the_first_so_many_images_of_shards_stay_the_first(tmp_path: Path) -> None:
    shards(tmp_path / "a")
    photos = WebDatasetData(str(tmp_path / "a" / "s-*.tar"), subset=4, crop=20)
    data = module(photos, tmp_path / "v", crops_per_epoch=40)
    assert set(images_of(iter(CropStream(data, 0, 1, 0)))) == set(range(4))


def test_shards_in_another_order_are_cut_as_before(tmp_path: Path) -> None:
    shards(tmp_path / "a")
    photos = WebDatasetData(str(tmp_path / "a" / "s-*.tar"), crop=20)
    photos.setup("fit")
    assert isinstance(photos.photos, Portioned)
    found = list(photos.photos.shuffled(np.random.default_rng(0)))
    assert [tuple(item["pixels"].shape) for item in found] == [(3, 20, 20)] * IMAGES


def test_a_program_that_writes_a_shard_may_be_left(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its pipe breaks, which is no error of the training."""
    shards(tmp_path / "a")
    writer = tmp_path / "writer.py"
    writer.write_text(
        "import signal, sys; signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
        "data = open(sys.argv[1], 'rb').read()\n"
        "sys.stdout.buffer.write(data + data * 1000)"
    )
    photos = WebDatasetData(f"pipe:{sys.executable} {writer} {tmp_path}/a/s-0.tar")
    photos.setup("fit")
    images = iter(photos.photos)
    next(images)
    del images
    gc.collect()
    assert capfd.readouterr().err == ""


class Endless(PhotoData):
    """Photographs of a kind that no part can be taken of."""

    def setup(self, stage: str) -> None:
        self.photos = Stream()


class Stream(IterableDataset[Photo]):
    def __iter__(self) -> Iterator[Photo]:
        return iter([])


def test_photographs_must_be_of_a_kind_that_is_shared_out() -> None:
    with pytest.raises(PscxError, match="must have a length or be a Portioned stream, but its photos are a Stream"):
        StreamedCropData(Endless(None, None, 0), "v").setup("fit")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"crops_per_photo": 0}, "data.crops_per_photo must be at least 1, got 0"),
        ({"shuffle_buffer": 0}, "data.shuffle_buffer must be at least 1, got 0"),
        ({"seed": -1}, "data.seed must be at least 0, got -1"),
        ({"scales": [0.5]}, r"data.scales must be two increasing factors in \(0, 1\], got \[0.5\]"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        StreamedCropData(FolderData(), "v", **options)


@pytest.mark.parametrize(("option", "got"), [("num_workers", "1 and 1"), ("batch_size", "0 and 2")])
def test_photographs_have_no_loader_of_their_own(option: str, got: str) -> None:
    options: dict[str, Any] = {option: int(got[0] if option == "num_workers" else got[-1])}
    with pytest.raises(ValueError, match=rf"data.photos must not set num_workers or batch_size .*, got {got}"):
        StreamedCropData(FolderData(**options), "v")


def test_photographs_are_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[object] = []
    monkeypatch.setattr(FolderData, "prepare_data", lambda self: prepared.append(self))
    data = module(loose(tmp_path / "a"), tmp_path / "v")
    assert prepared == [data.source]
    same = CropData(str(tmp_path / "v"), str(tmp_path / "v"), crop=16)
    same.setup("fit")
    assert all(torch.equal(data.val_set[index], same.val_set[index]) for index in range(5))


def test_each_process_of_a_trainer_has_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = module(shards(tmp_path / "a"), tmp_path / "v", crops_per_epoch=9)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    monkeypatch.setattr(type(trainer), "world_size", 2)
    monkeypatch.setattr(type(trainer), "global_rank", 1)
    data.trainer = trainer
    loader = data.train_dataloader()
    stream = loader.dataset
    assert isinstance(stream, CropStream)
    assert (stream.shares, stream.share, len(loader)) == (2, 1, 3)


def fit(data: str, root: Path, *options: str) -> int:
    sizes = ["--data.crop", "16", "--data.crops_per_epoch", "4", "--data.batch_size", "2", "--data.val_crops", "2"]
    network = ["--model.network.block_out_channels", "[8, 16, 16]", "--model.network.blocks", "[1, 1, 1]"]
    steps = ["--trainer.log_every_n_steps", "1", "--trainer.enable_progress_bar", "false"]
    where = ["--config", "configs/fit_ddpm.yaml", "--trainer.default_root_dir", str(root)]
    return main(["fit", *where, "--data", data, *sizes, *network, *steps, *options])


def test_a_prior_is_trained_on_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs are one stream; the one that is resumed with begins another."""
    shards(tmp_path / "a")
    loose(tmp_path / "v")
    made: list[int] = []
    batches: list[Tensor] = []
    plain, step = CropStream.__init__, TrainDDPM.training_step

    def watched(self: CropStream, data: StreamedCropData, start: int, shares: int, share: int) -> None:
        made.append(start)
        plain(self, data, start, shares, share)

    def kept(self: TrainDDPM, batch: Tensor, batch_idx: int) -> Tensor:
        batches.append(batch)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(CropStream, "__init__", watched)
    monkeypatch.setattr(TrainDDPM, "training_step", kept)
    photos = f"{{name: webdataset, urls: '{tmp_path}/a/s-*.tar'}}"
    data = f"{{name: streamed_crops, photos: {photos}, val_root: '{tmp_path}/v'}}"
    root = tmp_path / "run"
    assert fit(data, root, "--trainer.max_steps", "4") == 0
    assert made == [0]
    same = module(WebDatasetData(f"{tmp_path}/a/s-*.tar"), tmp_path / "v", crops_per_epoch=8, crops_per_photo=4)
    assert torch.equal(torch.cat(batches), torch.cat(list(same.train_dataloader())))
    checkpoint = str(next(root.rglob("last.ckpt")))
    assert fit(data, root, "--trainer.max_steps", "6", "--ckpt_path", checkpoint) == 0
    assert made == [0, 0, 4]  # the second is the one that is compared with
    assert (root / "prior" / "unet").is_dir()


CHOICE = "choose from folder, huggingface, webdataset"


@pytest.mark.parametrize(
    ("photos", "sentence"),
    [
        (
            "photos: {name: webdatset}, ",
            f"--data: data.photos: unknown data module 'webdatset' (did you mean 'webdataset'?); {CHOICE}",
        ),
        ("photos: {name: crops, root: a}, ", f"--data: data.photos cannot be 'crops': {CHOICE}"),
        ("photos: {root: a}, ", f"--data: data.photos needs the name of a data module: {CHOICE}"),
        ("", f"configs/fit_ddpm.yaml: data.photos is missing: {CHOICE.replace('choose', 'choose a data module')}"),
        (
            "photos: {name: folder, root: nonesuch}, ",
            "data.root must be a folder of images or an image, but 'nonesuch' does not exist",
        ),
    ],
)
def test_photographs_that_cannot_be_had(
    photos: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loose(tmp_path / "v")
    assert fit(f"{{name: streamed_crops, {photos}val_root: '{tmp_path}/v'}}", tmp_path / "run") == 2
    assert capsys.readouterr().err == f"pscx: {sentence}\n"


def test_what_a_worker_raises_is_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    photos = f"{{name: folder, root: '{tmp_path}/a', subset: 1}}"
    loose(tmp_path / "a")
    loose(tmp_path / "v")
    data = f"{{name: streamed_crops, photos: {photos}, val_root: '{tmp_path}/v'}}"
    assert fit(data, tmp_path / "run", "--trainer.max_steps", "2", "--data.num_workers", "2") == 2
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert said.endswith("\n")
    assert said.splitlines()[-1] == (
        "pscx: data.photos must have at least one readable photograph for each of 2 processes and workers, but "
        "number 2 found none"
    )


def test_nothing_to_validate_on_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.val_root must not be empty"):
        StreamedCropData(FolderData(), [])
