"""Stage scripts: from videos and signals to shards."""
