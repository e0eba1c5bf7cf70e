"""Running a LiteRT file on this machine, by the runtime and the delegate (XNNPACK) that devices have."""

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray


def run_tflite(model: bytes, images: NDArray[np.float32], *, threads: int = 1) -> NDArray[np.float32]:
    """Outputs (N, classes) for images (N, S, S, 3), normalised as the file's metadata say; one image at a time.

    Raises:
        ValueError: the bytes are no LiteRT file, the images have another shape or type than its input, or threads < 1.
    """
    if threads < 1:
        raise ValueError(f"threads must be 1 or more, but got {threads=}")
    interpreter = Interpreter(model_content=model, num_threads=threads)
    interpreter.allocate_tensors()
    image, logits = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    expected = tuple(image["shape"][1:])
    if images.dtype != np.float32 or images.shape[1:] != expected:
        raise ValueError(
            f"images must be float32 (N, {', '.join(map(str, expected))}), but got {images.dtype} {images.shape}"
        )
    outputs = np.empty((len(images), *logits["shape"][1:]), np.float32)
    for i, one in enumerate(images):
        interpreter.set_tensor(image["index"], one[None])
        interpreter.invoke()
        outputs[i] = interpreter.get_tensor(logits["index"])[0]
    return outputs
