"""What makes an augmentation good: alignment, diversity, and shift, measured."""
