"""A step that the alphabet cannot carry is refused: quality never falls with a finer step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny import write_codec

from pscx import PscxError, load_codec
from pscx.cli.main import main
from pscx.quantizers import RDO, Deadzone, Float8, Quantizer, Trellis, Uniform

STEPS = (1.0, 0.1, 0.01, 0.001, 1e-4, 1e-6)
SLACK = 0.3  # dB: rounding to pixels
ONE = torch.ones(1, dtype=torch.float64)


@pytest.mark.parametrize("coder", ["posterior", "static", "adaptive", "raw"])
@pytest.mark.parametrize("name", ["uniform", "deadzone", "rdo", "trellis"])
def test_quality_never_falls_with_a_finer_step(
    tmp_path: Path, astronaut: NDArray[np.uint8], name: str, coder: str
) -> None:
    image, refusals = astronaut[:16, :16], []
    psnr: list[float] = []
    for step in STEPS:
        codec = load_codec(write_codec(tmp_path), quantizer={"name": name, "step": step}, coder=coder)
        try:
            pixels = codec.simulate(image).pixels
        except PscxError as error:
            refusals.append(str(error))
            continue
        assert not refusals, "a finer step than one that was refused"
        psnr.append(10 * np.log10(255**2 / np.square(pixels.astype(float) - image).mean()))
        assert psnr[-1] > max(psnr) - SLACK
    assert max(psnr) > 40
    assert len(refusals) == 2
    assert all("is too small for this image: a measurement lies" in refusal for refusal in refusals)


def test_what_is_advised_is_enough(tmp_path: Path, astronaut: NDArray[np.uint8]) -> None:
    image, config = astronaut[40:56, 40:56], write_codec(tmp_path)
    with pytest.raises(PscxError, match=r"take a step over \S+ or more quantizer\.bits$") as caught:
        load_codec(config, step=1e-4).compress(image)
    least = float(str(caught.value).partition("take a step over ")[2].split()[0])
    load_codec(config, step=1.1 * least).compress(image)
    codec = load_codec(config, quantizer={"name": "uniform", "step": 1e-4, "bits": 24})
    assert codec.simulate(image).pixels.shape == image.shape


def test_the_command_says_it_in_one_sentence(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["compress", str(image_folder / "a.png"), "--config", write_codec(tmp_path), "--step", "1e-5"]
    assert main(args) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "step 1e-05 is too small for this image" in message
    assert not (image_folder / "a.pscx").exists()


@pytest.mark.parametrize(
    "quantizer",
    [
        *(Uniform(0.37, bits) for bits in (2, 5, 14)),
        *(Deadzone(0.37, offset, 0.0, 5) for offset in (0.0, 0.3, 0.5)),
        *(Trellis(0.37, weight, bits=5) for weight in (0.0, 0.12)),
        RDO(0.37, 0.0, bits=5),
    ],
    ids=lambda quantizer: f"{type(quantizer).__name__}{quantizer.alphabet}",
)
def test_what_is_in_reach_is_not_clipped(quantizer: Quantizer) -> None:
    for sign in (-1, 1):
        value = sign * 0.999 * quantizer.reach * ONE.repeat(70)
        mean = torch.zeros_like(value)
        symbols = quantizer.quantize(value, mean, mean + quantizer.reach)
        assert (quantizer.dequantize(symbols, mean, mean + quantizer.reach) - value).abs().max() < 1.3 * 0.37


def test_saturation_is_part_of_float8() -> None:
    assert Float8().reach == float("inf")
