"""From videos and signals to a dataset: survey the clips, compose and encode their windows, pack the shards."""
