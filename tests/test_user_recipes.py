"""User recipes: what names them in a stream, where they are looked for, and every way in which they can be wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_streams import save_golden_prior
from numpy.typing import NDArray
from PIL import Image
from reference_decoder import Decoder, digest
from tiny import CODEC, EXACT, save_prior, write_codec

from pscx import Decompressor, PscxError, StreamError, load_codec, load_recipes, read_image, stream_info
from pscx.cli.main import main
from pscx.codecs.specs import codec_spec, recipe_spec
from pscx.codecs.user_recipes import digest_of, find_user_recipe
from pscx.config.recipes import RECIPES, folders, read_recipe
from pscx.config.recipes.folders import GROUP, VARIABLE
from pscx.format.container import pack, unpack
from pscx.runtime import notices

Pixels = NDArray[np.uint8]
DECODE = """
import sys
import numpy as np
from pathlib import Path
import pscx
np.save(sys.argv[2], pscx.Decompressor(prior_path=sys.argv[3] or None).decompress(Path(sys.argv[1]).read_bytes()))
"""
SPEC: dict[str, Any] = {
    "prior": {"name": "gaussian"},
    "samples": 2,
    "sampler": {"name": "ddrm", "start": 20.0, "stop": None, "eta": 0.85},
}


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder is named yet, and nothing was told."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(folders, "_named", {})
    monkeypatch.setattr(notices, "_told", set())
    folders._of_packages.cache_clear()


def folder_of(root: Path, **files: str) -> Path:
    root.mkdir(exist_ok=True)
    for name, text in files.items():
        write_codec(root, text, f"{name}.yaml")
    return root


@pytest.fixture
def photo(astronaut: Pixels) -> Pixels:
    return astronaut[30:54, 40:70]


@pytest.fixture
def image(tmp_path: Path, photo: Pixels) -> Path:
    path = tmp_path / "image.png"
    Image.fromarray(photo).save(path)
    return path


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "recipes", mine=CODEC)


def header_size(data: bytes) -> int:
    return len(data) - len(unpack(data)[1])


# What a stream holds.


def test_a_digest_is_a_promise() -> None:
    """Stored: another value would orphan every stream of a user recipe."""
    assert digest_of(SPEC).hex() == digest(SPEC).hex() == "630d757e1eb5"


@pytest.mark.parametrize(
    "change",
    [
        {"samples": 3},
        {"samples": True},
        {"prior": {"name": "ddpm"}},
        {"sampler": {**SPEC["sampler"], "start": 20.5}},
        {"sampler": {**SPEC["sampler"], "stop": 0}},
        {"batch": 4},
    ],
)
def test_another_value_is_another_digest(change: dict[str, Any]) -> None:
    assert digest_of({**SPEC, **change}) != digest_of(SPEC)
    assert digest_of({**SPEC, **change}) == digest({**SPEC, **change})


def test_neither_order_nor_the_kind_of_a_whole_number_matters() -> None:
    other = {
        "sampler": {"stop": None, "start": 20, "eta": 0.85, "name": "ddrm"},
        "samples": 2.0,
        "prior": SPEC["prior"],
    }
    assert digest_of(other) == digest_of(SPEC)


def test_shipped_recipes_have_different_digests() -> None:
    assert len({digest_of(recipe_spec(number)) for number in RECIPES}) == len(RECIPES)


def test_only_what_a_codec_is_made_of_matters(mine: Path, photo: Pixels) -> None:
    load_recipes(mine)
    named = stream_info(load_codec("mine").compress(photo))
    text = "# a comment\nmodel:\n  codec:\n" + "".join(
        f"    {line.strip()}\n" for line in reversed(CODEC.splitlines()[2:])
    )
    text = text.replace("steps: 2}", "steps: 2, eta: 1}").replace("step: 0.25", "step: 0.5") + "    seed: 7\n"
    folder_of(mine, mine=text)
    again = stream_info(load_codec("mine").compress(photo))
    assert (again["seed"], again["parameter"]) == (7, 0.5)
    assert again["recipe_digest"] == named["recipe_digest"] != None  # noqa: E711
    folder_of(mine, mine=CODEC.replace("samples: 2\n", "samples: 3\n"))
    assert stream_info(load_codec("mine").compress(photo))["recipe_digest"] != named["recipe_digest"]


def test_where_weights_are_does_not_matter(tmp_path: Path, photo: Pixels) -> None:
    paths = [save_prior(tmp_path / name, 1) for name in ("a", "b")]
    for path in paths:
        load_recipes(folder_of(tmp_path / "recipes", exact=EXACT.format(path=path)))
        data = load_codec("exact").compress(photo)
        assert (stream_info(data)["recipe"], header_size(data)) == ("exact", 25)


def test_the_header_of_a_large_image_has_at_most_30_bytes(tmp_path: Path) -> None:
    load_recipes(folder_of(tmp_path / "recipes", exact=EXACT.format(path=save_prior(tmp_path / "prior", 1))))
    codec = load_codec("exact")
    small = codec.compress(np.zeros((16, 16, 3), np.uint8))
    assert header_size(small) == 25
    embedded = load_codec("exact", samples=3).compress(np.zeros((16, 16, 3), np.uint8))
    assert header_size(embedded) > 200
    header = codec.header(4096, 4096)
    assert len(pack(header, b"")) == 27
    assert len(pack(load_codec("exact", seed=(1 << 21) - 1).header(4096, 4096), b"")) == 30


def test_a_codec_that_is_no_recipe_is_embedded(mine: Path, photo: Pixels) -> None:
    load_recipes(mine)
    facts = stream_info(load_codec("mine", samples=3).compress(photo))
    assert (facts["recipe"], facts["recipe_digest"], facts["spec"]["samples"]) == (None, None, 3)


def test_a_config_that_is_a_recipe_is_named(mine: Path, tmp_path: Path, photo: Pixels) -> None:
    before = load_codec(write_codec(tmp_path)).compress(photo)
    load_recipes(mine)
    after = load_codec(write_codec(tmp_path)).compress(photo)
    assert (stream_info(before)["recipe"], stream_info(after)["recipe"]) == (None, "mine")
    assert unpack(before)[1] == unpack(after)[1]


def test_the_second_decoder_knows_user_recipes(tmp_path: Path, photo: Pixels) -> None:
    path = save_golden_prior(tmp_path / "prior")
    text = EXACT.format(path=path).replace("steps: 2", "steps: 2, start: 20, stop: 0.05, warm_start: 2, spacing: log")
    load_recipes(folder_of(tmp_path / "recipes", exact=text))
    codec = load_codec("exact")
    done = codec.simulate(photo[:16, :16])
    specs = [SPEC, json.loads(json.dumps(codec_spec(codec.signal_codec)))]
    assert np.array_equal(Decoder(done.data, Path(path), specs).image(), done.pixels)
    with pytest.raises(StopIteration):
        Decoder(done.data, Path(path), specs[:1])


# Where recipes are looked for.


def test_a_stream_decodes_in_a_new_process_with_the_file(mine: Path, tmp_path: Path, photo: Pixels) -> None:
    load_recipes(mine)
    done = load_codec("mine").simulate(photo)
    stream, pixels = tmp_path / "x.pscx", tmp_path / "x.npy"
    stream.write_bytes(done.data)
    command = [sys.executable, "-c", DECODE, str(stream), str(pixels), ""]
    empty = folder_of(tmp_path / "empty")
    environment = {**os.environ, VARIABLE: os.pathsep.join([str(empty), str(mine)])}
    subprocess.run(command, check=True, timeout=300, env=environment)
    assert np.array_equal(np.load(pixels), done.pixels)


def test_without_the_file_a_sentence_says_what_is_wanted_and_where_it_was_looked_for(
    mine: Path, tmp_path: Path, photo: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_recipes(mine)
    data = load_codec("mine").compress(photo)
    wanted = stream_info(data)["recipe_digest"]
    (mine / "mine.yaml").write_text(CODEC.replace("samples: 2\n", "samples: 3\n"))
    with pytest.raises(
        StreamError, match=rf"^the stream was made with a user recipe \(digest {wanted}\), and none of "
    ) as e:
        Decompressor().decompress(data)
    assert f"in '{mine}' has it: name the folder of its file with --recipes FOLDER, in PSCX_RECIPES" in str(e.value)
    monkeypatch.setattr(folders, "_named", {})
    with pytest.raises(StreamError, match=rf"digest {wanted}\), and no folder of recipes is named: name the folder"):
        Decompressor().decompress(data)
    facts = stream_info(data)
    assert (facts["recipe"], facts["recipe_digest"], facts["spec"]) == (None, wanted, None)


def test_a_recipe_is_found_again_under_another_name(mine: Path, tmp_path: Path, photo: Pixels) -> None:
    load_recipes(mine)
    done = load_codec("mine").simulate(photo)
    (mine / "mine.yaml").rename(mine / "renamed.yaml")
    assert stream_info(done.data)["recipe"] == "renamed"
    assert np.array_equal(Decompressor().decompress(done.data), done.pixels)


def test_on_the_command_line(mine: Path, tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stream, recipes = tmp_path / "x.pscx", ["--recipes", str(mine)]
    assert main(["compress", str(image), "-o", str(stream), "--recipe", "mine", *recipes]) == 0
    folders._named.clear()
    assert main(["decompress", str(stream)]) == 2
    assert "no folder of recipes is named" in capsys.readouterr().err
    assert main(["info", str(stream)]) == 0
    digest = stream_info(stream.read_bytes())["recipe_digest"]
    assert f"codec           a user recipe that is not here (digest {digest})\n" in capsys.readouterr().out
    assert main(["info", f"--recipes={mine}", str(stream)]) == 0
    out = capsys.readouterr().out
    assert f"codec           recipe mine (digest {digest})\n" in out
    assert "step            0.25\n" in out
    assert main(["info", "--json", str(stream)]) == 0
    assert json.loads(capsys.readouterr().out)["recipe_digest"] == digest
    folders._named.clear()
    assert main(["decompress", *recipes, str(stream), "-o", str(tmp_path / "x.png")]) == 0
    done = load_codec("mine").simulate(read_image(image))
    assert np.array_equal(read_image(tmp_path / "x.png"), done.pixels)


def test_test_and_report(mine: Path, tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    options = [
        "--recipe",
        "mine",
        "--recipes",
        str(mine),
        "--data.root",
        str(image),
        "--trainer.default_root_dir",
        str(run),
    ]
    assert main(["test", *options]) == 0
    stream = next((run / "streams").iterdir())
    assert stream_info(stream.read_bytes())["recipe"] == "mine"
    folders._named.clear()
    assert main(["report", str(run), "--recipes", str(mine)]) == 0
    assert "MB, 1 of 1 streams shown\n" in capsys.readouterr().out
    # The same codec, whose streams hold it: nothing of the other kind is kept.
    folders._named.clear()
    without = ["--config", str(mine / "mine.yaml"), *options[4:]]
    assert main(["test", *without]) == 0
    assert stream_info(stream.read_bytes())["recipe_digest"] is None


def test_the_demo_decodes_streams_of_user_recipes(mine: Path, tmp_path: Path, photo: Pixels) -> None:
    from pscx.demo.views import views_of
    from pscx.demo.work import Bounds

    load_recipes(mine)
    stream = tmp_path / "x.pscx"
    stream.write_bytes(load_codec("mine").compress(photo))
    last = list(views_of(None, None, Bounds(1 << 20, 1 << 20)).decode(str(stream)))[-1]
    assert "Done." in last[0]


def installed(site: Path, entry: str, **files: str) -> None:
    folder_of(site)
    folder_of(site / "outside_recipes", **files)
    (site / "outside_recipes" / "__init__.py").write_text("raise AssertionError('it is imported')\n")
    facts = site / "outside_recipes-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-recipes\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[{GROUP}]\nown = {entry}\n")


def test_an_installed_package(tmp_path: Path, photo: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path / "site", "outside_recipes", theirs=CODEC)
    monkeypatch.syspath_prepend(tmp_path / "site")
    done = load_codec("theirs").simulate(photo)
    assert stream_info(done.data)["recipe"] == "theirs"
    assert np.array_equal(Decompressor().decompress(done.data), done.pixels)
    assert "outside_recipes" not in sys.modules


def test_a_package_without_a_folder_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    installed(tmp_path / "site", "outside_recipes.nowhere", theirs=CODEC)
    monkeypatch.syspath_prepend(tmp_path / "site")
    load_recipes()
    said = "the recipes 'outside_recipes.nowhere' of outside-recipes must be a package that is a folder"
    assert [record.message for record in caplog.records] == [f"pscx: warning: {said}"]


# What can be wrong.


def test_names_that_clash(mine: Path, tmp_path: Path, photo: Pixels) -> None:
    load_recipes(mine)
    data = load_codec("mine").compress(photo)
    load_recipes(folder_of(tmp_path / "others", mine=CODEC.replace("samples: 2\n", "samples: 3\n"), fast=CODEC))
    with pytest.raises(
        PscxError, match=r"'mine' is the name of both '.*recipes/mine.yaml' and '.*others/mine.yaml': rename"
    ):
        load_codec("mine")
    with pytest.raises(
        PscxError, match=r"'fast' ships with pscx, and '.*others/fast.yaml' has the same name: rename that file"
    ):
        load_codec("fast")
    assert Decompressor().decompress(data).shape == photo.shape  # a digest is no name
    assert recipe_spec(3)["iterations"] == 16  # nor is a number
    assert read_recipe("best")["model"]["codec"]["iterations"] == 40


def test_an_unknown_name(mine: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", str(image), "--recipe", "nine", "--recipes", str(mine)]) == 2
    message = capsys.readouterr().err
    assert (
        "unknown recipe 'nine' (did you mean 'mine'?); "
        "choose from best, default, fast, latent, latent-fast, latent-rows, mine" in message
    )
    with pytest.raises(PscxError, match=r"'\.\./mine' is neither a config file nor a recipe"):
        load_codec("../mine")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("model: {codec: [", "is not valid YAML"),
        ("", "is not a recipe: it must hold 'model: {codec: ...}'"),
        ("model: {}", "is not a recipe: it must hold 'model: {codec: ...}'"),
        ("model: {codec: psc}", "is not a recipe: it must hold 'model: {codec: ...}'"),
        (f"{CODEC}data: folder\n", "is not a recipe: it must hold 'model: {codec: ...}'"),
        (f"{CODEC}  target: {{name: bpp, value: 1}}\n", "is not a recipe: it must hold 'model: {codec: ...}'"),
        (CODEC.replace("gaussian", "os.system"), "components by their registered names, as in 'ddrm', got 'os.system'"),
        (
            CODEC.replace("name: ddrm", "class_path: a.b"),
            "components by their registered names, as in 'ddrm', got 'a.b'",
        ),
        (CODEC.replace("prior: gaussian\n", "prior: gaussian\n    prior: ddpm\n"), "the key 'prior' is given twice"),
        (CODEC.replace("gaussian", "gausian"), "unknown prior 'gausian'"),
        (CODEC.replace("steps: 2", "steps: 0"), "must be at least 1, got 0"),
        (CODEC.replace("samples: 2\n    iter", "smaples: 2\n    iter"), "has no option 'smaples'"),
        (CODEC.replace("    prior: gaussian\n", ""), "model.codec.prior is missing"),
    ],
)
def test_a_broken_file_is_told_of_and_stops_no_other(
    text: str, why: str, mine: Path, photo: Pixels, caplog: pytest.LogCaptureFixture
) -> None:
    folder_of(mine, broken=text)
    load_recipes(mine)
    done = load_codec("mine").simulate(photo)
    assert stream_info(done.data)["recipe"] == "mine"
    assert np.array_equal(Decompressor().decompress(done.data), done.pixels)
    (record,) = caplog.records  # once
    assert record.message.startswith("pscx: warning: ")
    assert str(mine / "broken.yaml") in record.message
    assert why in record.message
    assert "\n" not in record.message
    with pytest.raises(PscxError, match="broken"):
        load_codec("broken")


def test_a_stranger_s_recipe_imports_nothing(tmp_path: Path, photo: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trap.py").write_text("raise SystemExit('it is imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    trap = CODEC.replace("restoration: {name: mean, samples: 2}", "restoration: {name: trap.Mean}")
    load_recipes(folder_of(tmp_path / "recipes", trap=trap))
    assert find_user_recipe(bytes(6)) is None
    with pytest.raises(PscxError, match="by their registered names"):
        load_codec("trap")
    assert "trap" not in sys.modules


def test_a_folder_that_is_missing(
    mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(PscxError, match=r"^--recipes: the folder of recipes 'nowhere' does not exist$"):
        load_recipes("nowhere")
    assert main(["info", "x.pscx", "--recipes", str(mine / "mine.yaml")]) == 2
    assert "mine.yaml' is a file: recipes are loaded by folder" in capsys.readouterr().err
    assert main(["info", "x.pscx", "--recipes"]) == 2
    assert "option --recipes needs a folder" in capsys.readouterr().err
    assert main(["components", "--recipes", str(mine)]) == 2
    assert "components has no option '--recipes'" in capsys.readouterr().err
    monkeypatch.setenv(VARIABLE, os.pathsep.join([str(mine), "nowhere"]))
    assert main(["info", "x.pscx"]) == 2
    assert "PSCX_RECIPES: the folder of recipes 'nowhere' does not exist" in capsys.readouterr().err


def test_hidden_files_and_other_files_are_no_recipes(mine: Path, caplog: pytest.LogCaptureFixture) -> None:
    (mine / ".hidden.yaml").write_text("x")
    (mine / "notes.txt").write_text("x")
    load_recipes(mine, mine)
    assert folders.user_recipe_names() == ["mine"]
    assert not caplog.records


def test_a_recipe_that_no_stream_may_hold_is_refused(mine: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder_of(mine, huge=CODEC.replace("iterations: 3", "iterations: 5000"))
    load_recipes(mine)
    assert find_user_recipe(bytes(6)) is None
    assert "iterations must be a word or a number of at most 4096 in a stream, got 5000" in caplog.text
