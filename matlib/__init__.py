"""matlib: multimodal adversarial attacks and defences for vision-language models."""

__version__ = "0.1.0"
