"""Pages to read results on: one file each, without network, for one scan or for a cohort."""
