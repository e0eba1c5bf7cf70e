"""The functions of `import mnas`: one for each command that does work, with the command's options as arguments."""
