"""``pscx test``, ``predict`` and ``fit`` through ``main``: the files they write, and every config of the repository."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file
from tiny import CODEC, save_prior, write_codec
from tiny_latent import save_stable_diffusion

from pscx import Decompressor, read_image
from pscx.cli.main import main
from pscx.evaluation.tables import as_csv, summary
from pscx.metrics import psnr, ssim
from pscx.networks import NoiseExperts
from pscx.priors import DDPM
from pscx.priors.denoiser import load_denoiser

TIMES = {"encode_seconds", "decode_seconds", "network_share"}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run(root: Path, config: str, *options: str, command: str = "test") -> Path:
    assert main([command, "--config", config, "--trainer.default_root_dir", str(root), *options]) == 0
    return root


def test_what_test_writes_is_what_the_files_hold(image_folder: Path, tmp_path: Path) -> None:
    root = run(tmp_path / "run", write_codec(tmp_path), "--data.root", str(image_folder), "--model.restorations", "2")
    table = rows_of(root / "images.csv")
    assert [row["name"] for row in table] == ["a", "b", "sub__a"]
    sources = [image_folder / "a.png", image_folder / "b.webp", image_folder / "sub" / "a.png"]
    for row, source in zip(table, sources, strict=True):
        original = read_image(source)
        data = (root / "streams" / f"{row['name']}.pscx").read_bytes()
        pictures = [read_image(root / "reconstructions" / f"{row['name']}{end}.png") for end in ("", "-1")]
        for expected, got in zip(Decompressor().decompress_samples(data, 2), pictures, strict=True):
            assert np.array_equal(expected, got)
        assert (int(row["height"]), int(row["width"])) == original.shape[:2]
        assert int(row["bytes"]) == len(data)
        assert float(row["bpp"]) == 8 * len(data) / original[..., 0].size
        assert float(row["psnr"]) == pytest.approx(psnr(original, pictures[0]))
        assert float(row["ssim"]) == pytest.approx(ssim(original, pictures[0]))
        assert row["ms_ssim"] == ""  # too small for it
        assert int(row["evaluations"]) == 2 * 2 * 2  # the first of three iterations needs no samples
        assert 0 < float(row["encode_seconds"]) <= float(row["decode_seconds"])
        assert 0 < float(row["network_share"]) < 1
    means = rows_of(root / "summary.csv")[0]
    assert means["images"] == "3"
    assert float(means["psnr"]) == pytest.approx(np.mean([float(row["psnr"]) for row in table]))


def test_simulating_and_decoding_give_the_same_figures(image_folder: Path, tmp_path: Path) -> None:
    config = write_codec(tmp_path)
    tables = []
    for simulate in ("true", "false"):
        options = ["--data.root", str(image_folder), "--model.simulate", simulate, "--model.restorations", "2"]
        root = run(tmp_path / simulate, config, *options)
        tables.append([{k: v for k, v in row.items() if k not in TIMES} for row in rows_of(root / "images.csv")])
    assert tables[0] == tables[1]
    for name in ("a.png", "a-1.png", "sub__a.png"):
        first, second = (read_image(tmp_path / way / "reconstructions" / name) for way in ("true", "false"))
        assert np.array_equal(first, second)


def test_a_saved_config_loads_again(image_folder: Path, tmp_path: Path) -> None:
    first = run(
        tmp_path / "1", write_codec(tmp_path), "--data.root", str(image_folder), "--model.codec.sampler.eta", "0.5"
    )
    saved = str(first / "config.yaml")
    second = run(tmp_path / "2", saved)
    assert [row["bytes"] for row in rows_of(first / "images.csv")] == [
        row["bytes"] for row in rows_of(second / "images.csv")
    ]
    assert (first / "streams" / "a.pscx").read_bytes() == (second / "streams" / "a.pscx").read_bytes()
    third = run(tmp_path / "3", saved, "--model.codec.sampler", "ddrm", "--model.codec.sampler.steps", "3")
    assert {row["evaluations"] for row in rows_of(third / "images.csv")} == {str(2 * 2 * 3)}
    output = tmp_path / "x.pscx"
    assert main(["compress", str(image_folder / "a.png"), "-o", str(output), "--config", saved]) == 0
    assert output.read_bytes() == (first / "streams" / "a.pscx").read_bytes()


def test_class_paths_run_as_names_do(image_folder: Path, tmp_path: Path) -> None:
    options = ["--data.root", str(image_folder), "--data.subset", "1"]
    names = run(tmp_path / "names", write_codec(tmp_path), *options)
    text = "model:\n  class_path: pscx.evaluation.Evaluate\n  init_args:\n" + "".join(
        f"  {line}\n" for line in CODEC.splitlines()[1:]
    )
    text = text.replace("{name: ddrm, steps: 2}", "{class_path: pscx.samplers.DDRM, init_args: {steps: 2}}")
    text += "data: {class_path: pscx.data.FolderData}\n"
    paths = run(tmp_path / "paths", write_codec(tmp_path, text, "paths.yaml"), *options)
    stream = Path("streams") / "a.pscx"
    assert (names / stream).read_bytes() == (paths / stream).read_bytes()


def test_predict_writes_the_restorations(image_folder: Path, tmp_path: Path) -> None:
    options = ["--data.root", str(image_folder), "--data.subset", "1"]
    tested = run(tmp_path / "test", write_codec(tmp_path), *options)
    predicted = run(tmp_path / "predict", write_codec(tmp_path), *options, command="predict")
    name = Path("reconstructions") / "a.png"
    assert (predicted / name).read_bytes() == (tested / name).read_bytes()


def test_results_go_under_the_name_of_the_config(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = write_codec(tmp_path, name="mine.yaml")
    assert main(["test", "--config", config, "--data.root", str(image_folder), "--data.subset", "1"]) == 0
    assert {path.name for path in Path("runs/mine").iterdir()} == {
        *(".pscx-run", "config.yaml", "images.csv", "summary.csv", "metrics.json"),
        *("streams", "reconstructions", "records", "logs"),
    }
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "runs/mine" in captured.out
    assert "psnr" in captured.out
    assert "Tip" not in captured.out


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--model.codec.sampler", "ddrn"], "unknown sampler 'ddrn'"),
        (["--model.codec.sampler.steps", "0"], "sampler.steps must be at least 1, got 0"),
        (["--model.restorations", "0"], "restorations must be at least 1, got 0"),
        (["--model.codec.samples", "0"], "samples must be at least 1"),
        (["--trainer.max_step", "1"], "did you mean 'max_steps'?"),
        (["--trainer.accelerator", "cuda"], "CUDAAccelerator"),
        (["--data.root", "nowhere"], "'nowhere' does not exist"),
        (["--data.crop", "4"], "data.crop must be at least 16"),
        (["--data.crop", "4000"], "data.crop must fit into every image"),
        (["--ckpt_path", "nowhere.ckpt"], "Checkpoint file not found: nowhere.ckpt"),
        (["--ckpt_path", __file__], "test_evaluate.py' is no checkpoint that pscx fit has written"),
        (["--ckpt_path", "."], "ckpt_path: '.' is no checkpoint that pscx fit has written"),
        (["--seed_everything", "x"], "option --seed_everything must be true or false or an integer, got x"),
        (["--model.codec.samples", "{a: 1}"], "option --model.codec.samples must be an integer, got {'a': 1}"),
        (["--model.help"], "--model.help and --data.help show nothing: see pscx components NAME"),
        (["--ckpt", "nowhere.ckpt"], "test has no option '--ckpt'"),
        (["--verbose", "7"], "--verbose must be bool, got 7"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    options: list[str], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["test", "--config", write_codec(tmp_path), *options]) == 2
    captured = capsys.readouterr()
    assert part in captured.err
    assert captured.err.startswith("pscx: ")
    assert captured.err.count("\n") == 1
    tables = {path.name for path in tmp_path.rglob("*.csv") if "logs" not in path.parts}
    assert tables <= {"left_out.csv"}  # of a crop that fits no image


def test_a_bar_moves_inside_an_image(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # what rich takes for a terminal
    run(tmp_path / "run", write_codec(tmp_path), "--data.root", str(image_folder))
    text = capsys.readouterr().err
    assert "sub__a" in text
    assert "3/3" in text


def test_the_summary_leaves_out_what_is_missing() -> None:
    row: dict[str, Any] = {"name": "a", "height": 16, **dict.fromkeys(("psnr", "ms_ssim", "encode_seconds"), 1.0)}
    means = summary([{**row, "ms_ssim": None}, {**row, "psnr": 3.0, "ms_ssim": 0.5}])
    assert (means["images"], means["psnr"], means["ms_ssim"]) == (2, 2.0, 0.5)
    assert summary([{**row, "ms_ssim": None}])["ms_ssim"] is None
    assert as_csv([{"a": 1, "b": None}, {"a": "x,y", "b": 2}]) == b'a,b\n1,\n"x,y",2\n'


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gaussian", ["--model.codec.iterations", "2"]),
        (
            "quickstart",
            ["--model.codec.prior.path", "PRIOR", "--model.codec.sampler.steps", "2", "--model.codec.iterations", "2"],
        ),
        (
            "paper_pixel",
            [
                *(
                    "--model.codec.prior.path",
                    "PRIOR",
                    "--model.codec.sampler.steps",
                    "2",
                    "--model.codec.iterations",
                    "2",
                ),
                *("--model.codec.samples", "2"),
            ],
        ),
    ],
)
def test_every_evaluation_config_runs(name: str, options: list[str], tmp_path: Path) -> None:
    prior = save_prior(tmp_path / "prior", 1)
    options = [prior if option == "PRIOR" else option for option in options]
    root = run(tmp_path / "run", f"configs/{name}.yaml", "--data.crop", "16", "--data.subset", "1", *options)
    assert len(rows_of(root / "images.csv")) == 1


def fit(root: Path, folder: Path, steps: int, *options: str, config: str = "fit_ddpm") -> int:
    sizes = ["--data.crop", "16", "--data.crops_per_epoch", "2", "--data.batch_size", "2", "--data.val_crops", "2"]
    network = ["--model.network.block_out_channels", "[8, 16, 16]", "--model.network.blocks", "[1, 1, 1]"]
    sizes += ["--trainer.log_every_n_steps", "1"]
    sources = ["--data.root", f"[{folder}, {folder}]", "--data.val_root", str(folder)]
    where = ["--trainer.default_root_dir", str(root), "--trainer.max_steps", str(steps)]
    return main(["fit", "--config", f"configs/{config}.yaml", *sizes, *network, *sources, *where, *options])


def test_a_unet_of_diffusers_is_trained(image_folder: Path, tmp_path: Path) -> None:
    sizes = ["--data.crop", "16", "--data.crops_per_epoch", "2", "--data.batch_size", "2", "--data.val_crops", "2"]
    network = ["--model.network.block_out_channels", "[8, 16, 16]", "--trainer.enable_progress_bar", "false"]
    sources = ["--data.root", str(image_folder), "--data.val_root", str(image_folder)]
    where = [
        "--trainer.default_root_dir",
        str(tmp_path),
        "--trainer.max_steps",
        "1",
        "--trainer.log_every_n_steps",
        "1",
    ]
    assert main(["fit", "--config", "configs/fit_unet.yaml", *sizes, *network, *sources, *where]) == 0
    assert isinstance(load_denoiser(tmp_path / "prior").network, UNet2DModel)


def test_an_expert_is_trained_from_one_network(image_folder: Path, tmp_path: Path) -> None:
    few = ("--trainer.enable_progress_bar", "false")
    assert fit(tmp_path / "one", image_folder, 1, *few) == 0
    init = ["--model.init", str(tmp_path / "one" / "prior"), "--model.network.low_block_out_channels", "[12, 16, 16]"]
    init += ["--model.network.low_blocks", "[2, 1, 1]"]
    assert fit(tmp_path / "two", image_folder, 1, *few, *init, config="fit_experts") == 0
    start = load_denoiser(tmp_path / "one" / "prior").network.state_dict()
    network = load_denoiser(tmp_path / "two" / "prior").network
    assert isinstance(network, NoiseExperts)
    high = network.high.state_dict()
    assert all(torch.equal(high[key], value) for key, value in start.items())
    low = network.low.state_dict()
    assert low["head.weight"].shape == (12, 13, 3, 3)
    assert low.keys() > start.keys()
    torch.testing.assert_close(low["body.0.first.weight"], start["body.0.first.weight"], rtol=1e-2, atol=2e-3)
    assert not low["body.0.first.weight"].equal(start["body.0.first.weight"])


def test_a_prior_is_trained_resumed_and_used(image_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "run"
    assert fit(root, image_folder, 2, "--trainer.enable_progress_bar", "false") == 0
    checkpoint = next(root.rglob("last.ckpt"))
    assert fit(root, image_folder, 3, "--ckpt_path", str(checkpoint), "--trainer.enable_model_summary", "false") == 0
    text = CODEC.replace("prior: gaussian", f"prior: {{name: ddpm, path: {root / 'prior'}}}")
    options = ["--data.root", str(image_folder), "--data.subset", "1", "--data.crop", "16"]
    tested = run(tmp_path / "test", write_codec(tmp_path, text), *options)
    assert len(rows_of(tested / "images.csv")) == 1


def test_the_latent_config_runs(image_folder: Path, tmp_path: Path) -> None:
    """With fewer steps, on a prior that is at hand."""
    prior = save_stable_diffusion(tmp_path / "prior")
    few = ["--model.codec.sampler.steps", "2", "--model.codec.iterations", "2", "--model.codec.samples", "2"]
    few += ["--model.codec.restoration_sampler", "{steps: 2, inner_steps: 2}"]
    options = ["--data.root", str(image_folder), "--data.subset", "1", "--model.codec.prior.path", prior]
    root = run(tmp_path / "run", "configs/paper_latent.yaml", *options, *few)
    assert len(rows_of(root / "images.csv")) == 1


def test_the_shipped_codec_is_calibrated(image_folder: Path, tmp_path: Path) -> None:
    root, prior = tmp_path / "run", save_prior(tmp_path / "prior", 1)
    options = ["--data.root", str(image_folder), "--data.subset", "1", "--model.codec.prior.path", prior]
    run(root, "configs/fit_codec.yaml", *options, command="fit")
    assert len(rows_of(root / "calibration.csv")) == 4


def test_the_shipped_row_rule_is_learnt(image_folder: Path, tmp_path: Path) -> None:
    root, prior = tmp_path / "run", save_prior(tmp_path / "prior", 1)
    few = ["--model.codec.iterations", "6", "--model.codec.sampler.steps", "2", "--model.codec.samples", "2"]
    options = [
        "--data.root",
        str(image_folder),
        "--data.subset",
        "2",
        "--data.crop",
        "32",
        "--model.codec.rows.block",
        "8",
        *few,
    ]
    run(root, "configs/fit_rows.yaml", *options, "--model.codec.prior.path", prior, command="fit")
    assert [row["rows"] for row in rows_of(root / "rows.csv")] == ["before", "learned"]


def test_the_weights_of_a_prior_are_rounded(image_folder: Path, tmp_path: Path) -> None:
    """To 127 times a scale, in the file and in both arithmetics; the answers are nearly those of before."""
    prior = save_prior(tmp_path / "prior", 1)
    few = ["--data.root", str(image_folder), "--data.val_root", str(image_folder), "--data.crop", "16"]
    few += ["--data.batch_size", "2", "--data.crops_per_epoch", "4", "--trainer.enable_progress_bar", "false"]
    root = ["--trainer.default_root_dir", str(tmp_path / "run"), "--model.prior", prior]
    assert main(["fit", "--config", "configs/fit_weights.yaml", *few, *root]) == 0
    stored = load_file(tmp_path / "run" / "prior" / "unet" / "diffusion_pytorch_model.safetensors")
    assert stored["head.weight"].dtype == torch.int8
    assert stored["head.weight_scale"].shape == (len(stored["head.weight"]),)
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    wanted = DDPM(prior).denoise(x, 0.5)
    for exact in (False, True):
        answer = DDPM(str(tmp_path / "run" / "prior"), exact=exact).denoise(x, 0.5)
        assert 0 < float((answer - wanted).square().mean() / wanted.square().mean()) < 1e-3


def test_every_config_of_the_repository_is_run_above() -> None:
    assert {path.stem for path in Path("configs").glob("*.yaml")} == {
        "gaussian",
        "quickstart",
        "paper_pixel",
        "paper_latent",
        "fit_codec",
        "fit_curve",  # tests/test_fit_curve.py
        "fit_ddpm",
        "fit_experts",
        "fit_latent",  # tests/test_fit_latent.py
        "fit_rows",
        "fit_unet",
        "fit_weights",
    }
