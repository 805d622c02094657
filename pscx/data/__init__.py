"""LightningDataModules: folders and sharded datasets of images, whole for evaluation or as crops for training."""

from lightning.pytorch import LightningDataModule

from pscx.data.crops import CropData
from pscx.data.folder import FolderData
from pscx.data.huggingface import HuggingFaceData
from pscx.data.streamed_crops import StreamedCropData
from pscx.data.webdataset import WebDatasetData
from pscx.registry import Registry

DATA: Registry[LightningDataModule] = Registry("data module", LightningDataModule)
DATA.register("folder")(FolderData)
DATA.register("crops")(CropData)
DATA.register("streamed_crops")(StreamedCropData)
DATA.register("webdataset")(WebDatasetData)
DATA.register("huggingface")(HuggingFaceData)

__all__ = ["DATA", "CropData", "FolderData", "HuggingFaceData", "StreamedCropData", "WebDatasetData"]
