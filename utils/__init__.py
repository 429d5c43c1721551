"""What two of the four scripts share. HOUSE: text to tensors is windows and batches, logits to text is spans."""
