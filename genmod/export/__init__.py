"""Export: encoder, decoder and denoiser as files for other runtimes (ONNX, torch.export)."""

from genmod.export.exporting import export as export
