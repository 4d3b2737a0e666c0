"""One module per revision of the schema, frozen once released."""
