"""Speed and memory beside the released code's order of operations: `python -m benchmarks`."""
