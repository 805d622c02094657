from pscx.metrics.base import METRICS, Image, ImageMetric, Metric, SetMetric, SetState
from pscx.metrics.clip_iqa import CLIPIQA
from pscx.metrics.cvvdp import CVVDP
from pscx.metrics.dists import DISTS
from pscx.metrics.fid import FID
from pscx.metrics.flip import FLIP
from pscx.metrics.gmsd import GMSD
from pscx.metrics.haarpsi import HaarPSI
from pscx.metrics.kid import KID
from pscx.metrics.lpips import LPIPS
from pscx.metrics.ms_ssim import MSSSIM, ms_ssim
from pscx.metrics.pixels import Pixels
from pscx.metrics.psnr import PSNR, psnr
from pscx.metrics.rate import bits_per_pixel
from pscx.metrics.ssim import SSIM, ssim
from pscx.metrics.ssimulacra2 import SSIMULACRA2

__all__ = [
    "CLIPIQA",
    "CVVDP",
    "DISTS",
    "FID",
    "FLIP",
    "GMSD",
    "KID",
    "LPIPS",
    "METRICS",
    "MSSSIM",
    "PSNR",
    "SSIM",
    "SSIMULACRA2",
    "HaarPSI",
    "Image",
    "ImageMetric",
    "Metric",
    "Pixels",
    "SetMetric",
    "SetState",
    "bits_per_pixel",
    "ms_ssim",
    "psnr",
    "ssim",
]
