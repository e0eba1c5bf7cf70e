"""Convert a program of torch.export to a LiteRT file with litert-torch, the official converter.

    .venv-litert-torch/bin/python scripts/litert_torch_convert.py PROGRAM.pt2 FILE.tflite

It runs in the environment of scripts/litert-torch-env, which does not contain mnas. The program takes one image batch
in torch's layout, (N, 3, S, S); the file takes it in LiteRT's, (N, S, S, 3). The last line of standard output is a JSON
object: the CPU seconds of converting and writing, without imports, and the versions of litert-torch and torch.
"""

import importlib.metadata
import json
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import litert_torch
import torch


def main() -> None:
    if len(sys.argv) != 3:
        raise SystemExit("usage: litert_torch_convert.py PROGRAM.pt2 FILE.tflite")
    program, file = sys.argv[1:]
    exported = torch.export.load(program)
    (images,), _ = exported.example_inputs
    started = time.process_time()
    network = litert_torch.to_channel_last_io(exported.module(), args=[0])
    litert_torch.convert(network, (images.permute(0, 2, 3, 1),)).export(file)
    seconds = time.process_time() - started
    versions = {name: importlib.metadata.version(name) for name in ("litert-torch", "torch")}
    print(json.dumps({"seconds": seconds, "versions": versions}))


if __name__ == "__main__":
    main()
