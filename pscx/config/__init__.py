"""Configuration: layers of YAML and options, their checker, plugins and recipes."""
