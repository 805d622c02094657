"""LightningDataModules: folders of images, whole for evaluation or as crops for training."""

from lightning.pytorch import LightningDataModule

from pscx.data.crops import CropData
from pscx.data.folder import FolderData
from pscx.registry import Registry

DATA: Registry[LightningDataModule] = Registry("data module", LightningDataModule)
DATA.register("folder")(FolderData)
DATA.register("crops")(CropData)

__all__ = ["DATA", "CropData", "FolderData"]
