"""The functions that `import mnas` offers: one per command that does work, with the command's options as arguments."""
