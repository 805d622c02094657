"""The .pscx file: its container, what it says of itself and what it may ask for."""
