"""What the callback is made of: finding the network, the scales' optimizer, the history, ranks, delivery."""
