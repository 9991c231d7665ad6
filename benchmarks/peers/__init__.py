"""What users would otherwise pick, as they would write it. Nothing in here imports this project."""
