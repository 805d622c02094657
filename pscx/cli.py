"""The command line."""
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningCLI
import pscx.data, pscx.modules

def main(args=None):
    LightningCLI(LightningModule, LightningDataModule, subclass_mode_model=True, subclass_mode_data=True, args=args, save_config_kwargs={"overwrite": True})

if __name__ == "__main__":
    main()
