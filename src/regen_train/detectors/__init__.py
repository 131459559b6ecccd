"""Detectors behind the gate: people, faces, text, names."""
