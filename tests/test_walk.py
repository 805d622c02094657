"""pscx.runtime.walk: which files of a folder are taken, and what is said of the others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pscx.data import FolderData
from pscx.data.files import image_files
from pscx.errors import ImageError
from pscx.runtime.run_folder import MARKER
from pscx.runtime.suffixes import IMAGES, STREAM
from pscx.runtime.walk import walk


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def taken(root: Path, *suffixes: str) -> list[str]:
    return [file.relative_to(root).as_posix() for file in walk(root, suffixes or IMAGES).files]


def test_one_rule_for_images_and_streams(tmp_path: Path) -> None:
    visible = ["A{}", "b{}", "c{}/d{}"]
    hidden = [".e{}", ".ipynb_checkpoints/f-checkpoint{}", "g/.Trash-1000/h{}"]
    for suffix in (".png", STREAM, STREAM.upper(), ".JPG"):
        root = tmp_path / suffix[1:]
        make(root, *(name.replace("{}", suffix) for name in [*visible, *hidden]), "notes.txt", "README")
        kind = (suffix.lower(),)
        assert taken(root, *kind) == [name.replace("{}", suffix) for name in visible]
        assert walk(root, kind).left_out == "3 hidden, 2 with other extensions (none, .txt)"


def test_images_of_every_kind_are_taken(tmp_path: Path) -> None:
    names = [f"x{suffix}" for suffix in (".bmp", ".jfif", ".JPEG", ".jpg", ".png", ".tif", ".TIFF", ".webp")]
    make(tmp_path, *names)
    assert sorted(taken(tmp_path)) == sorted(names)


def test_links_to_folders_and_files_are_followed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    make(root, "a.png")
    make(tmp_path, "elsewhere/b.png", "elsewhere/sub/c.png", "further/d.png")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "e.png").symlink_to(tmp_path / "further" / "d.png")
    (tmp_path / "elsewhere" / "link").symlink_to(tmp_path / "further")
    assert taken(root) == ["a.png", "e.png", "link/b.png", "link/link/d.png", "link/sub/c.png"]
    assert walk(root, IMAGES).notice == ""
    (tmp_path / "named").symlink_to(root)
    assert taken(tmp_path / "named")[0] == "a.png"


def test_loops_end_and_a_folder_is_taken_once(tmp_path: Path) -> None:
    root = tmp_path / "root"
    make(root, "z/a.png")
    make(tmp_path, "above_the_root.png")
    for name, target in {"itself": root, "above": tmp_path, "z/up": root, "a_link": root / "z"}.items():
        (root / name).symlink_to(target)
    assert taken(root) == ["z/a.png"]
    assert walk(root, IMAGES).left_out == "4 links to a folder that is taken already"


def test_many_links_among_folders_take_no_time(tmp_path: Path) -> None:
    """Thirty folders that all link to each other: each is taken once, not once for each way that leads to it."""
    root = tmp_path / "root"
    for one in range(30):
        make(tmp_path, f"{one}/x.png")
        for other in range(30):
            (tmp_path / f"{one}" / f"to{other}").symlink_to(tmp_path / f"{other}")
    root.mkdir()
    (root / "first").symlink_to(tmp_path / "0")
    assert len(taken(root)) == 30


def test_what_cannot_be_read_is_counted(tmp_path: Path) -> None:
    make(tmp_path, "a.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert taken(tmp_path) == ["a.png"]
    assert walk(tmp_path, IMAGES).left_out == "3 unreadable"


def test_runs_are_no_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, "a.png", f"runs/fast/{MARKER}", "runs/fast/records/b.png", "runs/fast/streams/b.pscx")
    make(tmp_path, f".elsewhere/{MARKER}", ".elsewhere/records/c.png")
    (tmp_path / "moved").symlink_to(tmp_path / ".elsewhere")
    assert image_files(tmp_path) == [tmp_path / "a.png"]
    notice = f"pscx: '{tmp_path}': left out 1 hidden, 2 folders of results of pscx\n"
    assert capsys.readouterr().err == notice
    FolderData(str(tmp_path)).setup("test")
    assert capsys.readouterr().err == ""  # once a process
    with pytest.raises(ImageError, match=r"but '.*fast' holds the results of a pscx run"):
        image_files(tmp_path / "runs" / "fast")
    assert taken(tmp_path / "runs" / "fast", STREAM) == ["streams/b.pscx"]
    assert taken(tmp_path / "runs", STREAM) == []


def test_a_folder_that_is_named_is_taken_whatever_its_name(tmp_path: Path) -> None:
    make(tmp_path, ".hidden/a.png", ".hidden/.b/c.png")
    assert taken(tmp_path / ".hidden") == ["a.png"]


def test_an_empty_name_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError, match=r"data.root must not be empty"):
        image_files("")
    with pytest.raises(ValueError, match=r"data.root must not be empty"):
        FolderData("")


def test_no_images_says_what_was_left_out(tmp_path: Path) -> None:
    make(tmp_path, ".a.png", *(f"x{suffix}" for suffix in (".heic", ".mov", ".avi", ".raw")))
    with pytest.raises(ImageError, match=r"holds none; left out: 1 hidden, 4 with other extensions \(.*, \.\.\.\)$"):
        image_files(tmp_path)
