"""Networks whose activations stay real numbers: dynamic and weight-only quantization, and the plain float16 file."""
