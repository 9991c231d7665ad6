"""Claims of papers, judged by a study's own runs."""
