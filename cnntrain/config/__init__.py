"""From YAML files and command lines to typed settings. Nothing here imports torch."""
