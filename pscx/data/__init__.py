"""LightningDataModules: folders of images, whole for evaluation or as crops for training."""

from pscx.data.crops import CropData
from pscx.data.folder import FolderData

__all__ = ["CropData", "FolderData"]
