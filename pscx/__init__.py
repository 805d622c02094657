"""pscx: image compression with pretrained diffusion models."""
