"""LPIPS and DISTS on seeded backbones: written out in float64, and as torchmetrics computes them.

The learned weights of the channels are real; those of the backbones are drawn, as the published ones are large.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torchmetrics.functional.image.dists as torch_dists
import torchmetrics.functional.image.lpips as torch_lpips
from numpy.typing import NDArray
from pairs import coarse, jpeg
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pscx.config import Checker, Layer, built
from pscx.errors import PscxError
from pscx.metrics import DISTS, LPIPS, METRICS
from pscx.metrics.backbones import BACKBONES, Backbone
from pscx.metrics.dists import L2Pooling
from pscx.metrics.weights import Published, find_weights

Pixels = NDArray[np.uint8]

# torchvision's `features`, layer by layer: a convolution is (inputs, outputs, side, stride, padding).
CONV3 = [(3, 64), (64, 64), "M", (64, 128), (128, 128), "M", (128, 256), (256, 256), (256, 256), "M"]
CONV3 += [(256, 512), (512, 512), (512, 512), "M", (512, 512), (512, 512), (512, 512)]
FIRES = [(64, 16, 64), (128, 16, 64), "P", (128, 32, 128), (256, 32, 128), "P"]
FIRES += [(256, 48, 192), (384, 48, 192), (384, 64, 256), (512, 64, 256)]
ALEX = [(3, 64, 11, 4, 2), "R", "M", (64, 192, 5, 1, 2), "R", "M", (192, 384, 3, 1, 1), "R", (384, 256, 3, 1, 1), "R"]
ALEX += [(256, 256, 3, 1, 1), "R"]


def vgg_layers() -> list[Any]:
    layers: list[Any] = []
    for item in CONV3:
        layers += ["V"] if item == "M" else [(*item, 3, 1, 1), "R"]
    return layers


Net = Literal["alex", "vgg", "squeeze"]
LAYERS: dict[Net, list[Any]] = {
    "alex": ALEX,
    "vgg": vgg_layers(),
    "squeeze": [(3, 64, 3, 2, 0), "R", "P", *(item if item == "P" else ("fire", *item) for item in FIRES)],
}
TAPS = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29), "squeeze": (1, 4, 7, 9, 10, 11, 12)}


def drawn(net: Net) -> dict[str, Tensor]:
    """A state dict with the keys of torchvision's, classifier and all, whose activations neither die nor grow."""
    generator = torch.Generator().manual_seed(3)
    weights: dict[str, Tensor] = {"classifier.1.weight": torch.zeros(2, 2)}

    def add(name: str, inputs: int, outputs: int, side: int) -> None:
        scale = (2 / (inputs * side**2)) ** 0.5
        weights[f"{name}.weight"] = scale * torch.randn(outputs, inputs, side, side, generator=generator)
        weights[f"{name}.bias"] = 0.1 * torch.randn(outputs, generator=generator)

    for index, layer in enumerate(LAYERS[net]):
        if layer[0] == "fire":
            _, inputs, squeezed, expanded = layer
            add(f"features.{index}.squeeze", inputs, squeezed, 1)
            add(f"features.{index}.expand1x1", squeezed, expanded, 1)
            add(f"features.{index}.expand3x3", squeezed, expanded, 3)
        elif not isinstance(layer, str):
            add(f"features.{index}", *layer[:3])
    return weights


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of drawn weights by the name of the network."""
    folder = tmp_path_factory.mktemp("weights")
    for net in LAYERS:
        torch.save(drawn(net), folder / f"{net}.pth")
    return {net: str(folder / f"{net}.pth") for net in LAYERS}


def blurred(x: Tensor) -> Tensor:
    """Root of the blurred squares, every second one."""
    profile = torch.tensor(np.hanning(5)[1:-1])
    kernel = torch.outer(profile, profile) / profile.sum() ** 2
    padded = F.pad(x**2, (1, 1, 1, 1)).unfold(2, 3, 2).unfold(3, 3, 2)
    return (torch.einsum("nchwij,ij->nchw", padded, kernel) + 1e-12).sqrt()


def written_out(net: Net, x: Tensor, pool: Callable[[Tensor], Tensor] = lambda x: F.max_pool2d(x, 2)) -> list[Tensor]:
    """Activations of the drawn network in float64."""
    weights = {key: value.double() for key, value in drawn(net).items()}

    def conv(name: str, x: Tensor, stride: int, padding: int) -> Tensor:
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride, padding)

    maps = []
    for index, layer in enumerate(LAYERS[net]):
        name = f"features.{index}"
        if layer[0] == "fire":
            x = F.relu(conv(f"{name}.squeeze", x, 1, 0))
            x = torch.cat([F.relu(conv(f"{name}.expand{n}x{n}", x, 1, n // 2)) for n in (1, 3)], 1)
        elif layer == "R":
            x = F.relu(x)
        elif isinstance(layer, str):
            x = pool(x) if layer == "V" else F.max_pool2d(x, 3, 2, ceil_mode=layer == "P")
        else:
            x = conv(name, x, *layer[3:])
        maps += [x] if index in TAPS[net] else []
    return maps


def batch(*pictures: Pixels) -> Tensor:
    return torch.stack([torch.from_numpy(picture).movedim(-1, 0).double() / 255 for picture in pictures])


@pytest.fixture
def pair(astronaut: Pixels) -> tuple[Pixels, Pixels]:
    """``(50, 61, 3)``: sides that do not halve evenly."""
    picture = astronaut[20:70, 30:91]
    return picture, coarse(picture)


def lpips_written_out(net: Net, pair: tuple[Pixels, Pixels]) -> float:
    """Zhang et al. 2018, Eq. 1, with the authors' scaling of the input."""
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x = (2 * batch(*pair) - 1 - shift.double()[:, None, None]) / scale.double()[:, None, None]
    heads = torch.load(Path(torch_lpips.__file__).parent / "lpips_models" / f"{net}.pth", "cpu", weights_only=True)
    total = 0.0
    for index, y in enumerate(written_out(net, x)):
        unit = y / (y**2).sum(1, keepdim=True).add(1e-8).sqrt()
        weight = heads[f"lin{index}.model.1.weight"].double().flatten()
        total += float(torch.einsum("chw,c->hw", (unit[0] - unit[1]) ** 2, weight).mean())
    return total


def dists_written_out(pair: tuple[Pixels, Pixels]) -> float:
    """Ding et al. 2022, Eqs. 4-6."""
    heads = torch.load(Path(torch_dists.__file__).parent / "dists_models" / "weights.pt", "cpu", weights_only=True)
    alpha, beta = (heads[key].double().flatten() for key in ("alpha", "beta"))
    mean, deviation = (torch.tensor(v).double()[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    x = batch(*pair)
    score, channel = 0.0, 0
    for y in (x, *written_out("vgg", (x - mean) / deviation, blurred)):
        for first, second in zip(*y.numpy(), strict=True):
            m1, m2 = first.mean(), second.mean()
            texture = (2 * m1 * m2 + 1e-6) / (m1**2 + m2**2 + 1e-6)
            structure = (2 * ((first - m1) * (second - m2)).mean() + 1e-6) / (first.var() + second.var() + 1e-6)
            score += float(alpha[channel] * texture + beta[channel] * structure)
            channel += 1
    return 1 - score / float(alpha.sum() + beta.sum())


@pytest.mark.parametrize("net", LAYERS)
def test_lpips_written_out(net: Net, files: dict[str, str], pair: tuple[Pixels, Pixels]) -> None:
    value = LPIPS(net=net, weights=files[net])(*pair)
    assert value > 0.001
    assert value == pytest.approx(lpips_written_out(net, pair), rel=1e-4)


def test_dists_written_out(files: dict[str, str], pair: tuple[Pixels, Pixels]) -> None:
    value = DISTS(weights=files["vgg"])(*pair)
    assert value > 0.001
    assert value == pytest.approx(dists_written_out(pair), rel=1e-4)


def ours(net: Net, file: str) -> torch.nn.Sequential:
    """Our layers with the drawn weights, to stand in for torchvision's in torchmetrics."""
    network = BACKBONES[net].make()
    weights = torch.load(file, weights_only=True)
    network.load_state_dict({key[9:]: value for key, value in weights.items() if key.startswith("features.")})
    return network


@pytest.mark.parametrize("net", LAYERS)
def test_lpips_is_that_of_torchmetrics(
    net: Net, files: dict[str, str], pair: tuple[Pixels, Pixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_lpips, "_get_tv_model_features", lambda *_: ours(net, files[net]))
    first, second = batch(*pair).float()[:, None]
    expected = torch_lpips._LPIPS(net=net)(first, second, normalize=True)
    assert LPIPS(net=net, weights=files[net])(*pair) == pytest.approx(float(expected), rel=1e-5)


def test_dists_is_that_of_torchmetrics(
    files: dict[str, str], pair: tuple[Pixels, Pixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_dists, "_TORCHVISION_AVAILABLE", True)
    monkeypatch.setattr(torch_dists, "VGG16_Weights", SimpleNamespace(DEFAULT=None), raising=False)
    network = SimpleNamespace(features=ours("vgg", files["vgg"]))
    monkeypatch.setattr(torch_dists, "vgg16", lambda weights: network, raising=False)
    first, second = batch(*pair).float()[:, None]
    expected = torch_dists.DISTSNetwork()(first, second).detach()
    assert DISTS(weights=files["vgg"])(*pair) == pytest.approx(float(expected), rel=1e-4)


def metrics(files: dict[str, str]) -> list[LPIPS | DISTS]:
    return [*(LPIPS(net=net, weights=files[net]) for net in LAYERS), DISTS(weights=files["vgg"])]


def test_equal_pictures_worse_ones_and_small_ones(files: dict[str, str], cat: Pixels) -> None:
    cat = cat[:48, :64]
    for metric in metrics(files):
        assert metric(cat, cat) == pytest.approx(0, abs=1e-6)
        values = [metric(cat, jpeg(cat, quality)) for quality in (90, 40, 5)]
        assert values == sorted(values)
        side = metric.least_side
        assert metric(cat[:side, :side], jpeg(cat, 5)[:side, :side]) > 0
        assert metric.value(cat[: side - 1], cat[: side - 1]) is None
        says = f"{metric.column} needs sides of at least {side} pixels, got 20x{side - 1}"
        with pytest.raises(ValueError, match=says):
            metric(cat[:20, : side - 1], cat[:20, : side - 1])


@pytest.mark.parametrize(("net", "backbone"), BACKBONES.items())
def test_the_least_side_of_a_network_is_its_own(net: Net, backbone: Backbone) -> None:
    network = backbone.make()
    network(torch.zeros(1, 3, backbone.least_side, backbone.least_side))
    with pytest.raises(RuntimeError, match="too small"):
        network(torch.zeros(1, 3, backbone.least_side - 1, backbone.least_side))


def test_a_network_is_loaded_once(files: dict[str, str], cat: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    first = LPIPS(weights=files["alex"])
    value = first(cat, coarse(cat))
    monkeypatch.setattr(torch, "load", None)
    assert LPIPS(weights=files["alex"])(cat, coarse(cat)) == value


def test_columns_and_digests(files: dict[str, str]) -> None:
    assert [metric.column for metric in metrics(files)] == ["lpips", "lpips_vgg", "lpips_squeeze", "dists"]
    digests = LPIPS(weights=files["alex"]).digests()
    assert list(digests) == [f"{Path(files['alex']).parent.name}/alex.pth", "lpips_models/alex.pth"]
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests.values())


def test_from_yaml(files: dict[str, str]) -> None:
    checker = Checker([Layer("x.yaml", {})])
    form = checker.component(METRICS, {"name": "lpips", "net": "vgg", "weights": files["vgg"]}, "model.metrics")
    metric = built(form)
    assert isinstance(metric, LPIPS)
    assert (metric.net, metric.name) == ("vgg", "lpips")
    with pytest.raises(PscxError, match="net must be one of 'alex', 'vgg', 'squeeze', got 'vgg19'"):
        checker.component(METRICS, {"name": "lpips", "net": "vgg19"}, "model.metrics")
    with pytest.raises(PscxError, match=r"unknown metric 'lpisp' \(did you mean 'lpips'\?\)"):
        checker.component(METRICS, "lpisp", "model.metrics")


def test_an_unknown_network() -> None:
    with pytest.raises(ValueError, match="net must be one of alex, vgg, squeeze, got 'vgg19'"):
        LPIPS(net="vgg19")  # type: ignore[arg-type]  # wrong on purpose


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Torch hub's folder of checkpoints, which does not exist yet."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return tmp_path / "hub" / "checkpoints"


@pytest.mark.parametrize(
    ("metric", "file"),
    [
        (LPIPS(), "alexnet-owt-7be5be79.pth"),
        (LPIPS(net="vgg"), "vgg16-397923af.pth"),
        (LPIPS(net="squeeze"), "squeezenet1_1-b8a52dc0.pth"),
        (DISTS(), "vgg16-397923af.pth"),
    ],
)
def test_missing_weights_are_one_sentence_and_not_fetched(
    metric: LPIPS | DISTS, file: str, hub: Path, cat: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("fetched without being asked"))
    url = f"https://download.pytorch.org/models/{file}"
    says = re.escape(f"{metric.name} needs the weights {file}, which are published at {url}: put the file into {hub}")
    for ask in (metric.prepare, metric.digests, lambda: metric(cat, cat)):
        with pytest.raises(PscxError, match=says):
            ask()


def test_weights_are_found_where_torch_hub_keeps_them(hub: Path, files: dict[str, str]) -> None:
    hub.mkdir(parents=True)
    (hub / "alexnet-owt-7be5be79.pth").write_bytes(Path(files["alex"]).read_bytes())
    with pytest.raises(PscxError, match="is not the published file: its SHA-256 does not begin with 7be5be79"):
        LPIPS().prepare()
    digest = sha256(Path(files["alex"]).read_bytes()).hexdigest()
    assert digest in LPIPS(weights=files["alex"]).digests().values()
    found = find_weights("lpips", Published("https://x/alexnet-owt-7be5be79.pth", digest[:8]), None, download=False)
    assert found == hub / "alexnet-owt-7be5be79.pth"


def test_a_download_that_was_asked_for(hub: Path, tmp_path: Path) -> None:
    source = tmp_path / "weights.pth"
    source.write_bytes(b"weights")
    published = Published(source.as_uri(), "f3b9c61a")
    with pytest.raises(PscxError, match=r"lpips: cannot download file://.*weights.pth: invalid hash value"):
        find_weights("lpips", published, None, download=True)
    assert not list(hub.glob("*"))
    found = find_weights("lpips", Published(source.as_uri()), None, download=True)
    assert (found, found.read_bytes()) == (hub / "weights.pth", b"weights")
    with pytest.raises(PscxError, match=r"lpips: cannot download file://.*nowhere"):
        find_weights("lpips", Published(f"{source.as_uri()}nowhere"), None, download=True)


def test_files_that_are_no_weights(tmp_path: Path, files: dict[str, str], cat: Pixels) -> None:
    with pytest.raises(PscxError, match=r"lpips: no such file of weights: 'nowhere\.pth'"):
        LPIPS(weights="nowhere.pth")(cat, cat)
    file = tmp_path / "text.pth"
    file.write_text("hello")
    with pytest.raises(PscxError, match=r"text.pth cannot be read as weights"):
        LPIPS(weights=str(file)).prepare()
    torch.save([1], file)
    with pytest.raises(PscxError, match=r"text\.pth cannot be read as weights: it holds a list"):
        DISTS(weights=str(file)).prepare()
    with pytest.raises(PscxError, match=r"vgg.pth has no weights features.0.weight of the shape \(64, 3, 11, 11\)"):
        LPIPS(weights=files["vgg"]).prepare()


def test_l2_pooling_of_a_constant() -> None:
    pooled = L2Pooling(2)(torch.full((1, 2, 9, 9), 3.0))
    assert pooled.shape == (1, 2, 5, 5)
    torch.testing.assert_close(pooled[..., 1:-1, 1:-1], torch.full((1, 2, 3, 3), 3.0))


def test_pictures_that_are_larger_are_taken_as_they_are(files: dict[str, str], cat: Pixels) -> None:
    """DISTS of an enlarged picture differs: nothing is scaled to a fixed size before."""
    cat = cat[:32, :32]
    twice = np.array(Image.fromarray(cat).resize((64, 64)))
    metric = DISTS(weights=files["vgg"])
    assert metric(twice, coarse(twice)) != pytest.approx(metric(cat, coarse(cat)), rel=1e-3)
