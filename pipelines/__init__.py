"""The thin coats: Prefect flows and the command line over kgrec.stages."""
