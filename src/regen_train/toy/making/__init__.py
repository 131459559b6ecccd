"""The scripts that made the toy's networks; rerun them to make the same again."""
