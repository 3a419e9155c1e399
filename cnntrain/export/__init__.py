"""The formats in which a trained network leaves: ONNX, torch.export, TorchScript, safetensors."""
