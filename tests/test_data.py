"""pscx.data: which images are found, under which names, and what a data loader gives of them."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image

from pscx.data import CropData, FolderData
from pscx.data.files import image_files
from pscx.data.folder import BUNDLED, unique_names
from pscx.errors import ImageError, PscxError
from pscx.images import read_image


def photos(**options: Any) -> list[dict[str, Any]]:
    data = FolderData(**options)
    data.setup("test")
    return list(data.test_dataloader())


def test_files_are_found_below_the_root_in_order(image_folder: Path) -> None:
    (image_folder / "notes.txt").write_text("not an image")
    found = [str(file.relative_to(image_folder)) for file in image_files(image_folder)]
    assert found == ["a.png", "b.webp", "sub/a.png"]


def test_hidden_files_and_folders_of_a_picture_name_are_no_images(image_folder: Path) -> None:
    (image_folder / "._a.png").write_bytes(b"what a Mac leaves behind")
    (image_folder / "c.png").mkdir()
    assert len(image_files(image_folder)) == 3


def test_a_root_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"data.root must be a folder of images or an image, but '.*gone' does not"):
        photos(root=str(tmp_path / "gone"))


def test_a_root_without_images(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"data.root must hold images \(\.png, \.jpg, .*\.bmp\), but '.*' holds none$"):
        photos(root=str(tmp_path))


def test_photos_come_whole_one_at_a_time(image_folder: Path) -> None:
    items = photos(root=str(image_folder))
    assert [item["name"] for item in items] == ["a", "b", "sub__a"]
    assert [tuple(item["pixels"].shape) for item in items] == [(3, 32, 32), (3, 32, 48), (3, 24, 40)]
    for item, file in zip(items, image_files(image_folder), strict=True):
        assert item["pixels"].dtype == torch.uint8
        np.testing.assert_array_equal(item["pixels"].permute(1, 2, 0), read_image(file))


def test_one_file_as_root(image_folder: Path) -> None:
    (item,) = photos(root=str(image_folder / "sub" / "a.png"))
    assert (item["name"], tuple(item["pixels"].shape)) == ("a", (3, 24, 40))


def test_subset_takes_the_first(image_folder: Path) -> None:
    assert [item["name"] for item in photos(root=str(image_folder), subset=2)] == ["a", "b"]
    assert len(photos(root=str(image_folder), subset=99)) == 3


def test_crop_is_central(image_folder: Path) -> None:
    for item in photos(root=str(image_folder), crop=20):
        file = image_folder / {"a": "a.png", "b": "b.webp", "sub__a": "sub/a.png"}[item["name"]]
        with Image.open(file) as image:
            left, top = (image.width - 20) // 2, (image.height - 20) // 2
            expected = np.array(image.crop((left, top, left + 20, top + 20)))
        np.testing.assert_array_equal(item["pixels"].permute(1, 2, 0), expected)


def test_crop_larger_than_an_image(image_folder: Path) -> None:
    *others, last = photos(root=str(image_folder), crop=30)
    assert [item["error"] for item in others] == ["", ""]
    assert re.fullmatch(r"data.crop must fit into every image, but 30 exceeds '.*a\.png' of 40x24", last["error"])


def test_fit_checks_the_crop_before_anything_is_read(image_folder: Path) -> None:
    data = FolderData(root=str(image_folder), crop=30)
    with pytest.raises(ImageError, match=r"data.crop must fit into every image, but 30 exceeds '.*a\.png' of 40x24"):
        data.setup("fit")
    FolderData(root=str(image_folder), crop=30, subset=2).setup("fit")  # what is left out need not fit
    (image_folder / "sub" / "a.png").write_bytes(b"no image")
    data.setup("fit")  # what is no image is said when it is read
    assert "is not a PNG" in data.photos[2]["error"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subset": 0}, "data.subset must be at least 1, or none for all images, got 0"),
        ({"crop": 15}, "data.crop must be at least 16, or none for whole images, got 15"),
        ({"num_workers": -1}, "data.num_workers must be at least 0, got -1"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FolderData(**options)


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a.jpg", "a.png", "a.webp"], ["a", "a_2", "a_3"]),
        (["A.png", "a.png"], ["A", "a_2"]),
        (["Ab.png", "aB.png"], ["Ab", "aB_2"]),
        (["a.jpg", "a.png", "a_2.png"], ["a", "a_2", "a_2_2"]),
        (["s/a.png", "s/t/a.png", "s__a.png"], ["s__a", "s__t__a", "s__a_2"]),
        (["two words.png", "x:y?.png", "v1.5.png", "è.png"], ["two_words", "x_y_", "v1.5", "è"]),
        ([".d/a.png"], ["_d__a"]),
    ],
)
def test_names_are_unique_and_fit_for_files(tmp_path: Path, files: list[str], names: list[str]) -> None:
    assert unique_names(tmp_path, [tmp_path / file for file in files]) == names


def test_names_do_not_depend_on_the_subset(image_folder: Path) -> None:
    Image.new("RGB", (16, 16)).save(image_folder / "a.jpg")
    assert [item["name"] for item in photos(root=str(image_folder), subset=2)] == ["a", "a_2"]


def test_bundled_photographs() -> None:
    shapes = {item["name"]: tuple(item["pixels"].shape[1:]) for item in photos()}
    assert shapes == {
        "astronaut": (128, 128), "chelsea": (112, 160), "coffee": (128, 128), "hubble": (128, 128), "rocket": (128, 96)
    }  # fmt: skip
    assert all(f"{name}.png" in (BUNDLED.parent / "SOURCES.md").read_text() for name in shapes)
    assert sum(file.stat().st_size for file in BUNDLED.iterdir()) < 200_000


class Collect(LightningModule):
    """Keeps what a Trainer hands to ``test`` and ``predict``."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, tuple[int, ...]]] = []

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.seen.append((batch["name"], tuple(batch["pixels"].shape)))

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> str:
        name: str = batch["name"]
        return name


def test_a_trainer_tests_and_predicts_on_it(image_folder: Path, tmp_path: Path) -> None:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer, module = Trainer(default_root_dir=tmp_path, accelerator="cpu", **quiet), Collect()
    data = FolderData(str(image_folder))
    trainer.test(module, data, verbose=False)
    assert module.seen == [("a", (3, 32, 32)), ("b", (3, 32, 48)), ("sub__a", (3, 24, 40))]
    assert trainer.predict(module, data) == ["a", "b", "sub__a"]


def test_crops_are_a_function_of_seed_epoch_and_index(image_folder: Path) -> None:
    def crops(seed: int, epoch: int) -> torch.Tensor:
        data = CropData(str(image_folder), str(image_folder), crop=16, crops_per_epoch=6, batch_size=3, seed=seed)
        data.setup("fit")
        data.train_set.epoch = epoch
        return torch.stack([data.train_set[index] for index in range(6)])

    first = crops(0, 0)
    assert first.shape == (6, 3, 16, 16)
    assert first.min() >= -1
    assert first.max() <= 1
    assert torch.equal(first, crops(0, 0))
    assert not torch.equal(first, crops(0, 1))
    assert not torch.equal(first, crops(1, 0))
    assert len({crop.numpy().tobytes() for crop in first}) == 6


def test_crops_can_be_sent_to_a_worker(image_folder: Path) -> None:
    data = CropData(str(image_folder), str(image_folder), crop=16, crops_per_epoch=4)
    data.setup("fit")
    here = data.train_set[2]  # its cache is there
    there = pickle.loads(pickle.dumps(data.train_set))
    assert torch.equal(there[2], here)


def test_crops_leave_out_what_cannot_be_read(image_folder: Path) -> None:
    (image_folder / "cut.png").write_bytes((image_folder / "a.png").read_bytes()[:60])
    data = CropData(str(image_folder), str(image_folder), crop=16, crops_per_epoch=40)
    data.setup("fit")
    with pytest.warns(UserWarning, match=r"left out of the training: .*cut\.png") as told:
        crops = [data.train_set[index] for index in range(40)]
    assert len(told) == 1
    assert torch.equal(data.train_set[39], crops[39])


def test_crops_of_files_of_which_none_can_be_read(image_folder: Path) -> None:
    for file in image_files(str(image_folder)):
        file.write_bytes(b"")
    data = CropData(str(image_folder), str(image_folder), crop=16)
    data.setup("fit")
    with pytest.warns(UserWarning, match="left out"), pytest.raises(ImageError):
        data.train_set[0]


@pytest.mark.parametrize("name", ["root", "val_root", "scales"])
def test_crops_of_nothing_are_refused(name: str) -> None:
    options: dict[str, Any] = {"root": "a", "val_root": "b", name: []}
    with pytest.raises(ValueError, match=f"data.{name} must not be empty"):
        CropData(**options)


def test_the_missing_folder_is_named_by_its_option(image_folder: Path) -> None:
    data = CropData(str(image_folder), "nowhere", crop=16)
    with pytest.raises(ImageError, match=r"data.val_root must be a folder of images or an image, but 'nowhere'"):
        data.setup("fit")


def test_learning_takes_images_one_by_one(image_folder: Path) -> None:
    data = FolderData(str(image_folder), batch_size=2)
    data.setup("fit")
    with pytest.raises(PscxError, match=r"data.batch_size must be 1 to learn from whole images, got 2"):
        data.train_dataloader()


def test_one_pair_of_scales_is_for_every_root() -> None:
    for scales in ([0.5, 1.0], [[0.5, 1.0]]):
        assert CropData(["a", "b", "c"], "v", scales=scales).scales == [[0.5, 1.0]] * 3


def test_crops_want_scales_for_every_root() -> None:
    with pytest.raises(ValueError, match=r"data.scales must hold 1 pair or 3 \(1 per root\), got 2"):
        CropData(["a", "b", "c"], "v", scales=[[0.5, 1.0], [0.5, 1.0]])


def test_crops_refuse_a_seed_below_zero() -> None:
    with pytest.raises(ValueError, match=r"data\.seed must be at least 0, got -1"):
        CropData("a", "v", seed=-1)


@pytest.mark.parametrize("scales", [[0.0, 1.0], [0.8, 0.4], [0.5, 1.5], [0.5], [[0.4, 0.8], [0.9, 2.0]]])
def test_crops_refuse_scales_out_of_range(scales: list[float] | list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"data\.scales must be two increasing factors in \(0, 1\], got \["):
        CropData(["a", "b"], "v", scales=scales)
