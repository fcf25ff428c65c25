"""What every code means: one table a prefix, read by errors, doubts and ``assay explain``."""
