"""What two of the four scripts share. Text to tensors: windows, batches. Logits to text: spans. All of it: reader."""
