"""Reading what the user brought: logs, triples, side tables; checks, vocabularies and splits."""
